"""A step is replayed in another process bit for bit, and whatever is not the same is found and named."""

# ruff: noqa: ANN401, D102 -- a forward takes what it takes, and needs no sentence

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from replayed import CASES, Small, nan, noisy_after, penalised, plain, recorded, recorded_step
from torch import nn

from tracer.capture import randomness
from tracer.errors import CapsuleError
from tracer.flight.archive import Archive, write_archive
from tracer.flight.capsule import Capsule, Facts, collect, load_capsule, write
from tracer.flight.replay import ReplayResult, trace
from tracer.flight.stored_steps import _LENGTH
from tracer.flight.tensors import from_bytes, to_bytes

pytestmark = pytest.mark.torch
FOLDER = Path(__file__).resolve().parent
PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
import replayed
from tracer.flight.capsule import load_capsule
results = {}
for name, path in json.load(sys.stdin).items():
    with load_capsule(path, entry=replayed.CASES.get(name, (replayed.small,))[0]) as capsule:
        results[name] = capsule.replay().to_json()
print(json.dumps(results))
"""


def in_a_fresh_process(capsules: dict[str, str]) -> dict[str, Any]:
    """Replay capsules in a process that has seen nothing of the training."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(FOLDER)],
        input=json.dumps(capsules),
        capture_output=True,
        text=True,
        check=True,
        timeout=250,
    )
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return results


@pytest.fixture(scope="module")
def replays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Record every case with the flight recorder here, and replay them all in one other process."""
    folder = tmp_path_factory.mktemp("capsules")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("TRACER_STRICT", "1")
        patch.chdir(folder)
        yield in_a_fresh_process({name: recorded(name, str(folder / name)) for name in CASES})


@pytest.mark.parametrize("name", CASES)
def test_a_fresh_process_gives_the_same_gradients_bit_for_bit(name: str, replays: dict[str, Any]) -> None:
    result = replays[name]

    assert result["drift"] is None
    assert result["exact"]
    assert result["matched"] == result["total"] > 0
    assert result["repeatable"]


def test_a_nan_appears_again(replays: dict[str, Any]) -> None:
    assert replays["nan-row"]["reproduced"] is True
    assert "the origin holds" in replays["nan-row"]["verdict"]


def test_a_clip_that_nobody_saw_is_found_and_proved(replays: dict[str, Any]) -> None:
    assert replays["clipped-by-name"]["notes"] == [
        "The gradients were clipped to a norm of 0.25, which the recorder did not see."
    ]


@pytest.mark.slow
def test_a_compiled_model_is_replayed_compiled(tmp_path: Path) -> None:
    result = in_a_fresh_process({"compiled": recorded("compiled", str(tmp_path / "capsules"))})["compiled"]

    assert result["exact"], result
    assert result["matched"] == result["total"] == 12


# Negative controls.


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., str]:
    """Record one step of a model, with the trace of a run in this process; return the capsule."""

    def make(model: nn.Module, backward: Callable[[nn.Module], object], **facts: Any) -> str:
        step = recorded_step(model, backward, upstream=facts.pop("upstream", "on"))
        made_here = trace(model, step)
        return write(collect(model, step, Facts(**{"trace": made_here, **facts})), str(tmp_path / "made"))

    return make


def forged(path: str, **changes: Callable[[bytes], bytes]) -> str:
    """Return a capsule of which some entries were replaced, without a word in its manifest."""
    archive = Archive(path)
    entries = {name: archive.read(name) for name in archive.names[1:]}
    for name, change in changes.items():
        entry = next(one for one in entries if one.partition(".")[0] == name)
        entries[entry] = change(entries[entry])
    manifest = {key: value for key, value in archive.manifest.items() if key not in {"files", "signature"}}
    archive.close()
    write_archive(path, manifest, entries)
    return path


def replayed_here(path: str, build: Callable[[], nn.Module] = Small, **options: Any) -> ReplayResult:
    """Replay a capsule in this process."""
    with load_capsule(path, entry=build) as capsule:
        return capsule.replay(**options)


def with_tensor(name: str, change: Callable[[torch.Tensor], object]) -> Callable[[bytes], bytes]:
    """Return what changes one tensor of a file."""

    def apply(data: bytes) -> bytes:
        tensors = from_bytes("x.safetensors", data)
        change(tensors[name])
        return to_bytes(tensors)[1]

    return apply


def test_what_was_not_touched_is_exact(made: Callable[..., str]) -> None:
    result = replayed_here(made(Small(), plain))

    assert result.headline == "bit-exact, 12/12 gradients, 1/1 outputs"


def test_another_seed_is_a_drift_at_the_first_module_that_draws(made: Callable[..., str]) -> None:
    torch.manual_seed(12345)
    states = randomness.packed(randomness.capture())
    path = forged(made(Small(), plain), rng=lambda _: _LENGTH.pack(len(states)) + states)

    result = replayed_here(path)

    assert result.exact is False
    assert result.drift is not None
    assert result.drift.module == "drop"
    assert "random generators" in result.reasons[0]


def test_one_changed_bit_of_a_weight_is_a_drift_at_its_module(made: Callable[..., str]) -> None:
    def flip(tensor: torch.Tensor) -> None:
        tensor.view(torch.int32)[3, 4] ^= 1

    result = replayed_here(forged(made(Small(), plain), tensors=with_tensor("blocks.1.weight", flip)))

    assert result.exact is False
    assert result.drift is not None
    assert result.drift.module == "blocks.1"
    assert result.reasons[0] == "blocks.1.weight is not as recorded"


def test_one_changed_sample_is_a_drift_at_the_first_module(made: Callable[..., str]) -> None:
    path = forged(made(Small(), plain), batch=lambda data: data if data[:1] == b"{" else _changed_sample(data))

    result = replayed_here(path)

    assert result.exact is False
    assert result.drift is not None
    assert result.drift.module == "embed"
    assert result.reasons[0] == "argument 0 of call 0 is not the recorded one"


def _changed_sample(data: bytes) -> bytes:
    return with_tensor("c0.t0", lambda tensor: tensor[2].add_(1e-3))(data)


class Wide(nn.Module):
    """Adds up so much that every thread takes a part."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 1001)
        self.wide = nn.Linear(1001, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.wide(self.first(x))
        return out


def test_another_number_of_threads_is_a_drift_that_names_them(made: Callable[..., str]) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        path = made(Wide(), lambda model: model(torch.randn(1500, 4)).square().sum().backward())
        same = replayed_here(path, Wide)
        other = replayed_here(path, Wide, threads=1)
    finally:
        torch.set_num_threads(before)

    assert same.exact
    assert other.exact is False
    assert other.drift is not None
    assert other.drift.module in {"first", "wide"}
    assert other.reasons == ("threads 4 → 1",)
    assert "threads 4 → 1" in other.headline


def test_without_a_trace_the_first_differing_parameter_is_named(made: Callable[..., str]) -> None:
    def flip(tensor: torch.Tensor) -> None:
        tensor.view(torch.int32)[3, 4] ^= 1

    result = replayed_here(forged(made(Small(), plain, trace=None), tensors=with_tensor("blocks.2.weight", flip)))

    assert result.exact is False
    assert result.drift is not None
    assert result.drift.place == "blocks.2 (parameter blocks.2.weight)"


# Reasons.


def test_a_penalty_on_weights_is_the_reason_where_one_gradient_differs(made: Callable[..., str]) -> None:
    result = replayed_here(made(Small(), penalised))

    assert (result.matched, result.total) == (11, 12)
    assert result.differing == ("blocks.1.weight",)
    assert result.drift is not None
    assert result.drift.place == "blocks.1 (gradient blocks.1.weight)"
    assert "a term of the loss that takes parameters directly" in result.reasons[0]


def test_noise_on_the_gradients_is_told_from_another_computation(made: Callable[..., str]) -> None:
    result = replayed_here(made(Small(), noisy_after))

    assert result.exact is False
    assert result.reasons[0].startswith("gradients were changed after backward")


def test_gradients_that_were_scaled_are_measured(made: Callable[..., str]) -> None:
    def halved(model: nn.Module) -> None:
        plain(model)
        for parameter in model.parameters():
            parameter.grad.mul_(3.0)  # type: ignore[union-attr]

    result = replayed_here(made(Small(), halved))

    assert result.reasons == (
        "every gradient is 3 times the replayed one: gradients were scaled after backward",
        "already in the training process a second run of the step did not give the recorded gradients",
    )


def test_gradients_that_were_carried_over_are_a_possible_reason(made: Callable[..., str]) -> None:
    model = Small()
    plain(model)

    result = replayed_here(made(model, plain))

    assert result.exact is False
    assert any("want of zero_grad" in reason for reason in result.reasons)


def test_gradients_that_are_missing_in_the_recording_are_no_match(made: Callable[..., str]) -> None:
    def without_one(model: nn.Module) -> None:
        plain(model)
        model.get_parameter("head.bias").grad = None

    result = replayed_here(made(Small(), without_one))

    assert result.exact is False
    assert result.differing == ("head.bias",)


class Counting(Small):
    """Has state that neither buffers nor generators hold."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.count += 1
        return super().forward(x) * self.count


def test_state_outside_of_buffers_is_a_drift(made: Callable[..., str]) -> None:
    result = replayed_here(made(Counting(), plain), Counting)

    assert result.exact is False
    assert result.drift is not None
    assert result.drift.module == ""


class Restless(Small):
    """Draws from a source of randomness that nobody can set back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + int.from_bytes(os.urandom(4)) / 2**32)


def test_two_replays_that_differ_name_the_module(made: Callable[..., str]) -> None:
    result = replayed_here(made(Restless(), plain), Restless)

    assert result.repeatable is False
    assert result.exact is False
    assert result.verdict.startswith("Two replays differ from each other, first at embed (output)")


def test_an_anomaly_that_does_not_appear_points_to_hardware(made: Callable[..., str]) -> None:
    def broken(model: nn.Module) -> None:
        plain(model)
        model.get_parameter("head.bias").grad[0] = float("nan")  # type: ignore[index]

    result = replayed_here(made(Small(), broken, kind="nan_or_inf", value=float("nan")))

    assert result.reproduced is False
    assert "hardware or a race" in result.verdict


def test_a_capsule_without_gradients_and_outputs_is_never_exact(made: Callable[..., str]) -> None:
    result = replayed_here(made(Small(), lambda model: model(torch.randn(6, 8)), trace=None))

    assert (result.exact, result.total) == (False, 0)


def test_a_forward_part_alone_is_not_called_a_drift_nor_exact(made: Callable[..., str]) -> None:
    path = made(Small(), nan, kind="nan_or_inf", upstream="off")

    result = replayed_here(path)

    assert (result.exact, result.drift, result.forward_only) == (False, None, True)
    assert result.headline == "forward part bit-exact, 1/1 outputs; 12 gradients could not be compared"
    assert "the anomaly appears in it" in result.verdict
    assert result.reproduced is True


class Raising(Small):
    """Fails at some inputs."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 1e6:
            message = "too much"
            raise ArithmeticError(message)
        return super().forward(x)


def test_an_exception_is_raised_again(made: Callable[..., str]) -> None:
    def fails(model: nn.Module) -> None:
        with pytest.raises(ArithmeticError):
            model(torch.full((6, 8), 1e9))

    path = made(Raising(), fails, kind="exception", error="ArithmeticError: too much")

    result = replayed_here(path, Raising)

    assert (result.exact, result.reproduced) == (True, True)
    assert result.headline == "the model raises the same again: ArithmeticError: too much"


# The caller.


def test_the_caller_finds_everything_as_it_was(made: Callable[..., str]) -> None:
    path = made(Small(), nan, kind="nan_or_inf")
    torch.manual_seed(3)
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002 -- the global one is what models draw from
    before = (torch.get_rng_state(), random.getstate(), torch.get_num_threads(), torch.get_default_dtype())

    with load_capsule(path, entry=Small) as capsule:
        capsule.replay(threads=1, deterministic=True)
        capsule.what_if(dtype="float64", threads=1)
        gradients = [parameter.grad for parameter in capsule.model().parameters()]

    after = (torch.get_rng_state(), random.getstate(), torch.get_num_threads(), torch.get_default_dtype())
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]
    assert not torch.are_deterministic_algorithms_enabled()
    assert gradients == [None] * len(gradients)


def test_a_result_is_a_document(made: Callable[..., str]) -> None:
    result = replayed_here(made(Small(), penalised))

    document = json.loads(json.dumps(result.to_json()))

    assert document["drift"] == {
        "what": "gradient",
        "module": "blocks.1",
        "parameter": "blocks.1.weight",
        "call": None,
    }
    assert {field.name for field in dataclasses.fields(result)} - {"name"} <= set(document)
    assert str(result).startswith("Drift at blocks.1 (gradient blocks.1.weight), 11/12 gradients")


# Several steps.


@pytest.fixture
def travelled(tmp_path: Path) -> Iterator[Capsule]:
    """A capsule with a snapshot, eight steps of AdamW with clipping after it."""
    path = recorded("clipped", str(tmp_path / "steps"), steps=9, before=16)
    with load_capsule(path, entry=CASES["clipped"][0]) as capsule:
        yield capsule


def test_eight_steps_lead_to_the_same_parameters(travelled: Capsule) -> None:
    result = travelled.replay(steps=8)

    assert result.exact
    assert len(result.steps) == 8
    assert result.notes[-1] == "After 8 steps all parameters are bit for bit those of the capsule."


def test_a_step_out_of_reach_says_what_is_in_reach(travelled: Capsule) -> None:
    last = travelled.manifest["step"]

    with pytest.raises(IndexError, match=rf"Step {last - 20} is out of reach: the capsule holds steps \d+ to {last}"):
        travelled.replay(steps=20)


def test_an_earlier_step_can_be_looked_at(travelled: Capsule) -> None:
    earlier = travelled.goto(travelled.manifest["step"] - 3)

    assert earlier.step().number == travelled.manifest["step"] - 3
    assert earlier.manifest["kind"] == "earlier"
    assert not torch.equal(earlier.model().get_parameter("head.weight"), travelled.model().get_parameter("head.weight"))
    assert travelled.goto(travelled.manifest["step"]) is travelled


def test_probes_tell_of_a_module_over_steps(travelled: Capsule) -> None:
    probes = travelled.watch("blocks.1", 4)

    assert [probe.step for probe in probes] == [travelled.manifest["step"] - n for n in (4, 3, 2, 1, 0)]
    assert all(probe.outputs is not None and probe.outputs.elements == 96 for probe in probes)
    assert all(probe.gradient_norm is not None and 0 < probe.gradient_norm < 0.25 for probe in probes)


def test_a_module_that_is_not_there_is_a_mistake_with_a_hint(travelled: Capsule) -> None:
    with pytest.raises(ValueError, match=r"no module 'block.1'\. Did you mean 'blocks\.\d'\?"):
        travelled.watch("block.1")


def test_without_a_snapshot_only_its_own_step_can_be_replayed(made: Callable[..., str]) -> None:
    with load_capsule(made(Small(), plain), entry=Small) as capsule:
        assert len(capsule.watch("head")) == 1
        with pytest.raises(IndexError, match="has no snapshot"):
            capsule.replay(steps=2)


# The model.


def test_a_model_with_other_parameters_is_refused(made: Callable[..., str]) -> None:
    path = made(Small(), plain)

    with pytest.raises(CapsuleError, match=r"another one: it lacks blocks\.0\.bias.* and \d+ more and it has bias"):
        replayed_here(path, lambda: nn.Linear(8, 4))


def test_a_model_of_another_shape_is_refused(made: Callable[..., str]) -> None:
    path = made(nn.Linear(3, 2), lambda model: model(torch.ones(1, 3)).sum().backward())

    with pytest.raises(CapsuleError, match=r"weight has the shape \(2, 4\), the capsule's \(2, 3\)"):
        replayed_here(path, lambda: nn.Linear(4, 2))
