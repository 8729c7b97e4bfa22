"""What the recorder keeps of a training, and that the training is the same with it as without."""

from __future__ import annotations

import copy
import gc
import hashlib
import io
import random
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tracer.errors import UsageError
from tracer.flight.recorder import FlightRecorder
from tracer.flight.rerun import rerun
from tracer.flight.settings import FlightConfig
from tracer.flight.steps import Step
from tracer.sink import Guard

pytestmark = pytest.mark.torch

Record = Callable[..., FlightRecorder]


@pytest.fixture
def record() -> Iterator[Record]:
    """Record models, strictly and in silence, and stop at the end."""
    made: list[FlightRecorder] = []

    def begin(model: nn.Module, optimizer: object = None, /, **settings: Any) -> FlightRecorder:  # noqa: ANN401
        options = {name: settings.pop(name) for name in ("folder", "norms", "loss", "step_number") if name in settings}
        config = FlightConfig(**{"signal": "off", **settings})
        made.append(FlightRecorder(model, optimizer, config, guard=Guard(strict=True, quiet=True), **options))
        return made[-1]

    yield begin
    for recorder in made:
        recorder.stop()


class Net(nn.Module):
    """Draws numbers, keeps statistics, and takes what it is given by name."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.norm = nn.Linear(4, 8), nn.BatchNorm1d(8)
        self.drop, self.leave = nn.Dropout(0.3), nn.Linear(8, 2)

    def forward(self, x: Tensor, *, scale: float = 1.0) -> Tensor:
        """Map a batch."""
        out: Tensor = self.leave(self.drop(self.norm(self.enter(x)).relu())) * scale
        return out


def seeded() -> None:
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 -- what old programs use


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, *, clip: bool = True, spoil: int = -1
) -> list[float]:
    """Train, and return what the user's own generators gave."""
    drawn = []
    for step in range(steps):
        x = torch.randn(6, 4)
        if step == spoil:
            x[2, 1] = float("nan")
        optimizer.zero_grad()
        for part in x.chunk(2):
            scale = random.random()  # noqa: S311 -- a draw of the user's
            model(part, scale=scale).square().mean().backward()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        drawn += [random.gauss(0, 1), float(np.random.standard_normal()), float(torch.rand(()))]  # noqa: NPY002 -- as above
    return drawn


def hashed(model: nn.Module) -> str:
    return hashlib.sha256(b"".join(one.detach().numpy().tobytes() for one in model.state_dict().values())).hexdigest()


def made() -> tuple[Net, torch.optim.Optimizer]:
    seeded()
    model = Net()
    return model, torch.optim.AdamW(model.parameters(), lr=0.01)


def stepped(recorder: FlightRecorder) -> Callable[[], Step]:
    """Return what gives the step that is under way, completed."""
    return lambda: recorder._calls.complete(recorder._calls.step)


# What is kept.


def test_each_call_of_a_step_is_kept_with_what_decided_it(record: Record) -> None:
    model, optimizer = made()
    recorder = record(model, optimizer)
    x = torch.randn(3, 4)
    model(x, scale=2.0).sum().backward()
    model(x).sum().backward()

    step = stepped(recorder)()

    assert [call.inputs.rebuilt() for call in step.calls] == [((x,), {"scale": 2.0}), ((x,), {})]
    assert [sorted(call.buffers) for call in step.calls] == 2 * [
        ["norm.num_batches_tracked", "norm.running_mean", "norm.running_var"]
    ]
    assert [int(call.buffers["norm.num_batches_tracked"]) for call in step.calls] == [0, 1]
    ids = [output.upstream[0][0] for call in step.calls for output in call.differentiable]
    assert ids[0] != ids[1]
    assert step.replayable


def test_a_step_can_be_run_again_bit_for_bit_at_its_commit(record: Record) -> None:
    model, optimizer = made()
    compared: list[bool] = []

    class Comparing:
        def before_commit(self, optimizer: torch.optim.Optimizer, *, closure: bool) -> None:  # noqa: ARG002 -- the listener's signature
            found = rerun(model, stepped(recorder)())
            wanted = {name: one.grad for name, one in model.named_parameters()}
            compared.append(all(torch.equal(found.gradients[name], wanted[name]) for name in wanted))

        def after_commit(self, optimizer: torch.optim.Optimizer, *, closure: bool) -> None:
            """Nothing."""

    from tracer.capture import commits

    end = commits.listen(Comparing())
    recorder = record(model, optimizer)
    train(model, optimizer, 5)
    end()

    assert compared == [True] * 5


class WithLoss(nn.Module):
    """Returns its loss and what that was computed from, part of it checkpointed."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.drop, self.leave = nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return both."""
        hidden: Any = checkpoint(lambda y: self.drop(self.enter(y)).tanh(), x, use_reentrant=False)
        logits = self.leave(hidden)
        return {"loss": logits.square().mean(), "logits": logits}


@pytest.mark.parametrize("outside", [False, True])
def test_a_model_that_returns_its_loss_runs_again_bit_for_bit(record: Record, *, outside: bool) -> None:
    torch.manual_seed(2)
    model = WithLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder = record(model, optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        output = model(torch.randn(3, 4))
        (output["loss"] + (output["logits"].abs().sum() if outside else 0.0)).backward()
        step = stepped(recorder)()
        assert len(step.calls) == 1
        found = rerun(model, step)
        assert all(torch.equal(found.gradients[name], one.grad) for name, one in model.named_parameters())  # type: ignore[arg-type]  # it has one
        optimizer.step()
        assert recorder._ring.last().loss == float(output["loss"].detach())  # type: ignore[union-attr]  # there is one


def test_who_records_the_inside_of_a_compiled_model_is_told(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    recorder, said = record(model, optimizer), []
    monkeypatch.setattr(Guard, "say", lambda _, cause, message: said.append((cause, message)))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    for _ in range(5):
        compiled(torch.ones(3, 4)).sum().backward()
        optimizer.step()
    torch._dynamo.reset()

    assert [cause for cause, _ in said] == ["no calls seen"]
    assert recorder.stats()["steps"] == 5


def test_the_ring_holds_the_last_steps_with_their_scalars(record: Record) -> None:
    model, optimizer = made()
    recorder = record(model, optimizer, ring=3, check="sync")

    train(model, optimizer, 5)

    ring = list(recorder._ring)
    assert [step.number for step in ring] == [2, 3, 4]
    assert all(step.norm is not None and step.learning_rates == (0.01,) for step in ring)
    assert all(output.upstream == [] for step in ring for call in step.calls for output in call.differentiable)
    assert [len(step.calls) for step in ring] == [2, 2, 2]
    assert all(step.seconds is not None and step.data_seconds is not None for step in ring)


def test_old_batches_become_shape_and_hash_when_there_are_too_many_bytes(record: Record) -> None:
    model, optimizer = made()
    recorder = record(model, optimizer, ring_mb=100 / 2**20)

    train(model, optimizer, 3)

    first, last = next(iter(recorder._ring)), list(recorder._ring)[-1]
    assert (first.calls, first.shapes, len(first.batch_hash or "")) == ([], ("float32[3, 4]", "float32[3, 4]"), 8)
    assert len(last.calls) == 2
    assert recorder.stats()["ring"]["bytes"] <= 100


def test_more_calls_than_a_step_can_have_are_not_kept(record: Record) -> None:
    model, optimizer = made()
    recorder = record(model, optimizer)
    for _ in range(70):
        model(torch.ones(3, 4))

    step = stepped(recorder)()

    assert (step.calls, step.replayable) == ([], False)
    assert step.notes == ["More than 64 calls of the model came before the optimizer's step; they were not kept."]


def test_evaluation_is_not_recorded(record: Record) -> None:
    model, optimizer = made()
    recorder = record(model, optimizer)
    with torch.no_grad():
        model(torch.ones(3, 4))
    with torch.inference_mode():
        model(torch.ones(3, 4))

    assert recorder._calls.step.calls == []


def test_inputs_changed_in_place_are_told_and_copied_from_then_on(record: Record) -> None:
    model, optimizer = made()
    recorder = record(model, optimizer)
    x = torch.ones(3, 4)
    for _ in range(2):
        model(x).sum().backward()
        x.mul_(2.0)
        optimizer.step()

    first, second = recorder._ring
    [note] = first.notes
    assert note.startswith("Inputs were changed in place after the model was called: tensor 0 of call 0.")
    assert second.notes == []
    assert torch.equal(second.calls[0].inputs.tensors[0], torch.full((3, 4), 2.0))


def test_two_backward_passes_over_one_output_are_told_apart(record: Record) -> None:
    model, optimizer = made()
    recorder = record(model, optimizer)
    loss = model(torch.ones(3, 4)).sum()
    loss.backward(retain_graph=True)
    (2 * loss).backward()

    [output] = stepped(recorder)().calls[0].differentiable

    assert [float(gradient[0, 0]) for _, gradient in output.upstream] == [1.0, 2.0]
    assert len({identity for identity, _ in output.upstream}) == 2


def test_a_closure_is_looked_at_before_the_optimizer_uses_it(record: Record) -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=3)
    seen: list[Step] = []
    recorder = record(model, optimizer, norms=lambda: seen.append(recorder._calls.step))  # type: ignore[func-returns-value]  # None: nobody measured

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(2, 4)).square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)

    assert len(seen) > 1
    [step] = recorder._ring
    assert len(step.calls) == 1
    assert recorder.stats()["steps"] == 1


def test_gradients_of_outputs_can_be_switched_off(record: Record) -> None:
    model, optimizer = made()
    recorder = record(model, optimizer, upstream="off")
    model(torch.ones(3, 4)).sum().backward()

    step = stepped(recorder)()

    assert step.calls[0].differentiable[0].upstream == []
    assert step.notes == ["Gradients of the outputs were not kept, so only the forward part can be run again."]


def test_two_optimizers_of_one_model_see_the_same_step(record: Record) -> None:
    model, _ = made()
    first = torch.optim.SGD(model.enter.parameters(), lr=0.1)
    second = torch.optim.SGD(model.leave.parameters(), lr=0.1)
    recorder = record(model)
    for _ in range(3):
        model(torch.ones(3, 4)).sum().backward()
        first.step()
        second.step()
    recorder.commit()

    assert [len(step.calls) for step in recorder._ring][-2:] == [1, 1]


def test_two_models_have_their_own_steps(record: Record) -> None:
    generator, critic = nn.Linear(2, 4), nn.Linear(4, 1)
    of_generator = torch.optim.SGD(generator.parameters(), lr=0.1)
    of_critic = torch.optim.SGD(critic.parameters(), lr=0.1)
    one, two = record(generator, of_generator), record(critic, of_critic)
    fake = generator(torch.ones(3, 2))
    critic(fake.detach()).sum().backward()
    of_critic.step()
    critic(fake).sum().backward()
    of_generator.step()

    assert (one.stats()["steps"], two.stats()["steps"]) == (1, 1)
    [kept] = two._calls.step.calls
    assert (kept.inputs.tensors[0].requires_grad, kept.inputs.tensors[0].grad_fn) == (True, None)


# The training is the same.


@pytest.mark.parametrize(
    "settings",
    [{}, {"upstream": "off"}, {"snapshots": 2}, {"check": "delayed"}, {"ring": 1, "ring_mb": 0}],
    ids=["on", "forward only", "snapshots", "delayed", "no ring"],
)
def test_training_and_random_numbers_are_the_same_with_the_recorder(record: Record, settings: dict[str, Any]) -> None:
    model, optimizer = made()
    drawn, wanted = train(model, optimizer, 12), hashed(model)

    model, optimizer = made()
    record(model, optimizer, **settings)

    assert train(model, optimizer, 12) == drawn
    assert hashed(model) == wanted


def test_training_is_the_same_when_it_is_diagnosed_in_the_middle(record: Record) -> None:
    def run(*, diagnosed: bool) -> tuple[list[float], str]:
        model, optimizer = made()
        recorder = record(model, optimizer) if diagnosed else None
        drawn = train(model, optimizer, 3)
        x = torch.full((3, 4), 1.5)
        model(x).square().mean().backward()
        if recorder is not None:
            assert recorder.diagnose() is None
        optimizer.step()
        return drawn + train(model, optimizer, 3), hashed(model)

    assert run(diagnosed=True) == run(diagnosed=False)


def test_training_is_the_same_through_an_anomaly(record: Record, tmp_path: Any) -> None:  # noqa: ANN401
    model, optimizer = made()
    drawn, wanted = train(model, optimizer, 6, spoil=4), hashed(model)

    model, optimizer = made()
    recorder = record(model, optimizer, folder=str(tmp_path / "capsules"))

    assert train(model, optimizer, 6, spoil=4) == drawn
    assert hashed(model) == wanted
    assert recorder.stats()["anomalies"] == {"nan_or_inf": 2}


# Nothing stays behind.


def test_no_activation_or_gradient_outlives_its_step(record: Record) -> None:
    model, optimizer = made()
    record(model, optimizer)
    alive: list[weakref.ref[Tensor]] = []

    def step() -> None:
        optimizer.zero_grad()
        hidden = torch.randn(3, 4, requires_grad=True) * 2
        output = model(hidden)
        output.register_hook(lambda gradient: alive.append(weakref.ref(gradient)))
        alive.extend([weakref.ref(hidden), weakref.ref(output)])
        output.sum().backward()
        optimizer.step()

    for _ in range(3):
        step()
    optimizer.zero_grad()
    gc.collect()

    assert [one() for one in alive] == [None] * 9


def test_a_thousand_steps_leave_no_growth(record: Record) -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    recorder = record(model, optimizer)

    def steps(count: int) -> int:
        for _ in range(count):
            model(torch.ones(3, 4)).square().mean().backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        gc.collect()
        return len(gc.get_objects())

    before = steps(200)

    assert steps(1000) - before < 50
    assert len(recorder._ring) == 8


def test_a_model_that_is_gone_takes_its_hooks_and_tensors_along(record: Record) -> None:
    model, optimizer = made()
    recorder = record(model, optimizer)
    train(model, optimizer, 2)
    parameter = weakref.ref(model.enter.weight)

    del model, optimizer
    gc.collect()

    assert parameter() is None
    assert recorder.stopped


def test_a_stopped_recorder_leaves_nothing_on_the_model(record: Record) -> None:
    model, optimizer = made()
    recorder = record(model, optimizer)
    train(model, optimizer, 1)

    recorder.stop()
    recorder.stop()

    assert (len(model._forward_hooks), len(model._forward_pre_hooks)) == (0, 0)
    assert FlightRecorder.of(model) is None
    train(model, optimizer, 1)
    assert recorder.stats()["steps"] == 1
    record(model, optimizer)


def test_a_copy_of_a_watched_model_is_not_watched(record: Record) -> None:
    model, optimizer = made()
    recorder = record(model, optimizer)
    saved = io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)

    for one in (copy.deepcopy(model), torch.load(saved, weights_only=False)):
        one(torch.ones(3, 4)).sum().backward()
        assert recorder._calls.step.calls == []
        assert b"tracer" not in saved.getvalue()


# Compiled.


@pytest.mark.parametrize("when", ["outside", "in place", "in place, later"])
def test_a_compiled_model_is_recorded(record: Record, when: str) -> None:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    watched: Any = model
    if when == "outside":
        watched = torch.compile(model, backend="eager")
    elif when == "in place":
        model.compile(backend="eager")
    recorder = record(watched, optimizer)
    if when == "in place, later":
        model.compile(backend="eager")
    for _ in range(3):
        optimizer.zero_grad()
        watched(torch.ones(3, 4)).sum().backward()
        optimizer.step()

    last = list(recorder._ring)[-1]
    assert [len(call.differentiable) for call in last.calls] == [1]
    recorder.stop()
    watched(torch.ones(3, 4)).sum().backward()
    torch._dynamo.reset()


# Refusals.


def test_what_cannot_be_recorded_is_refused() -> None:
    model, other = nn.Linear(2, 1), nn.Linear(2, 1)

    with pytest.raises(TypeError, match="got str"):
        FlightRecorder("model")  # type: ignore[arg-type]  # the case
    with pytest.raises(ValueError, match="SGD holds no parameter of this Linear"):
        FlightRecorder(model, torch.optim.SGD(other.parameters(), lr=0.1))
    with pytest.raises(ValueError, match="not fused"):
        FlightRecorder(model, torch.optim.SGD(model.parameters(), lr=0.1), FlightConfig(guard=True))


def test_a_model_has_one_recorder(record: Record) -> None:
    model = nn.Linear(2, 1)
    recorder = record(model)

    assert FlightRecorder.of(model) is recorder
    with pytest.raises(UsageError, match="already"):
        record(model)


def test_an_optimizer_that_is_not_torchs_commits_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Linear(2, 1)
    recorder = FlightRecorder(model, object(), FlightConfig(signal="off"))
    for _ in range(2):
        model(torch.ones(3, 2)).sum().backward()
        recorder.commit()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(0.1 * parameter.grad)  # type: ignore[operator]  # it has one
    recorder.stop()

    assert recorder.stats()["steps"] == 2
    assert capsys.readouterr().err.count("call recorder.commit() before its update") == 1
