"""What the recorder says and does when a step goes wrong, and within which limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from tracer.errors import TrainingAnomaly
from tracer.events import Finding
from tracer.flight.recorder import FlightRecorder
from tracer.flight.settings import FlightConfig
from tracer.sink import Guard
from tracer.testing import capture_events

pytestmark = pytest.mark.torch


class Root(nn.Module):
    """Gives NaN where a row's sum is negative."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch."""
        return (x * self.scale).sum(1).sqrt()


GOOD, BAD = torch.ones(5, 4), torch.ones(5, 4)
BAD[3] = -1.0


class Training:
    """A model, an optimizer and a recorder."""

    def __init__(self, folder: Path, kind: type[torch.optim.Optimizer] = torch.optim.SGD, **settings: Any) -> None:  # noqa: ANN401
        options = {name: settings.pop(name) for name in ("loss", "norms", "step_number", "fused") if name in settings}
        self.model = Root()
        fused = {"fused": True} if options.pop("fused", False) else {}
        self.optimizer = kind(self.model.parameters(), lr=0.01, **fused)  # type: ignore[call-arg]  # all have it
        self.recorder = FlightRecorder(
            self.model,
            self.optimizer,
            FlightConfig(**{"signal": "off", "include_model": False, **settings}),
            folder=str(folder / "run" / "capsules"),
            guard=Guard(strict=True, quiet=True),
            **options,
        )

    def step(self, x: Tensor = GOOD, factor: float = 1.0) -> None:
        """Train a step."""
        self.optimizer.zero_grad()
        (self.model(x).mean() * factor).backward()
        self.optimizer.step()

    def heal(self) -> None:
        """Make the parameters good again."""
        with torch.no_grad():
            self.model.scale.fill_(1.0)

    @property
    def weights(self) -> list[float]:
        """The parameters."""
        found: list[float] = self.model.scale.tolist()
        return found


Make = Callable[..., Training]


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Make]:
    made: list[Training] = []

    def make(*arguments: Any, **settings: Any) -> Training:  # noqa: ANN401
        made.append(Training(tmp_path, *arguments, **settings))
        return made[-1]

    yield make
    for one in made:
        one.recorder.stop()


@pytest.fixture
def events() -> Iterator[list[Any]]:
    with capture_events() as found:
        yield found


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "run" / "capsules").glob("*"))


def test_a_nan_is_found_explained_and_kept_before_the_parameters_change(
    training: Make, events: list[Any], tmp_path: Path
) -> None:
    one = training()
    one.step()
    one.step(BAD)
    one.recorder.stop()

    [finding] = events
    assert isinstance(finding, Finding)
    assert (finding.kind, finding.severity, finding.step) == ("nan_or_inf", "critical", 1)
    details = finding.details
    assert details["origin"]["op"] == "aten.sqrt.default"  # type: ignore[index]  # a dictionary
    assert details["origin"]["samples"] == [3]  # type: ignore[index]  # as above
    assert str(details["explanation"]).startswith("The gradients are not finite: their norm is NaN. ")
    assert details["remedy"]
    assert math.isnan(details["norm"])  # type: ignore[arg-type]  # a number
    assert details["capsule"] == "step-1-nan_or_inf.trc"
    assert names(tmp_path) == ["step-1-nan_or_inf.trc"]


def test_a_fault_at_every_step_is_told_once_and_kept_once(training: Make, events: list[Any], tmp_path: Path) -> None:
    one = training()
    for _ in range(20):
        one.step(BAD)
    one.recorder.stop()

    assert len(events) == 1
    assert len(names(tmp_path)) == 1
    assert one.recorder.stats()["anomalies"] == {"nan_or_inf": 20}


def test_faults_that_come_and_go_leave_one_capsule_and_one_diagnosis_in_a_hundred_steps(
    training: Make, events: list[Any], tmp_path: Path
) -> None:
    one = training(on_anomaly="skip")
    for step in range(130):
        one.step(BAD if step % 10 == 0 else GOOD)
    one.recorder.stop()

    assert len(events) == 13
    assert [event.step for event in events if "origin" in event.details] == [0, 100]
    assert len(names(tmp_path)) == 1
    assert one.recorder.stats()["given_up"] == 12


def test_with_no_capsules_there_are_reports_only(training: Make, events: list[Any], tmp_path: Path) -> None:
    one = training(max_capsules=0, diagnose=False)
    one.step(BAD)

    assert (events[0].details["capsule"], "origin" in events[0].details, names(tmp_path)) == (None, False, [])


def test_capsules_stop_at_the_disk_limit(training: Make, events: list[Any], tmp_path: Path) -> None:
    one = training(disk_mb=0)
    one.step(BAD)

    assert (events[0].details["capsule"], names(tmp_path), one.recorder.stats()["given_up"]) == (None, [], 1)


def test_training_goes_on_by_default(training: Make) -> None:
    one = training()
    one.step(BAD)

    assert all(math.isnan(weight) for weight in one.weights)


def test_a_bad_step_is_skipped_on_demand(training: Make) -> None:
    one = training(on_anomaly="skip")
    before = one.weights
    one.step(BAD)
    assert one.weights == before
    one.step()
    assert one.weights != before


def test_training_is_stopped_on_demand_with_a_whole_capsule(training: Make, tmp_path: Path) -> None:
    one = training(on_anomaly="raise")
    before = one.weights

    with pytest.raises(TrainingAnomaly, match=r"nan or inf at step 0: .*aten\.sqrt") as raised:
        one.step(BAD)

    assert one.weights == before
    assert raised.value.capsule == str(tmp_path / "run" / "capsules" / "step-0-nan_or_inf.trc")
    assert Path(str(raised.value.capsule)).stat().st_size > 0
    assert raised.value.finding.kind == "nan_or_inf"  # type: ignore[attr-defined]  # a Finding


def test_a_function_may_choose(training: Make) -> None:
    seen: list[Finding] = []

    def choose(finding: Finding) -> str:
        seen.append(finding)
        return "skip"

    one = training(on_anomaly=choose)
    before = one.weights
    one.step(BAD)

    assert one.weights == before
    assert [finding.kind for finding in seen] == ["nan_or_inf"]


def test_a_function_that_fails_counts_as_go_on(training: Make) -> None:
    def choose(finding: Finding) -> str:
        raise KeyError(finding.kind)

    one = training(on_anomaly=choose)
    one.step(BAD)

    assert all(math.isnan(weight) for weight in one.weights)


def test_an_explosion_names_layers_and_rows(training: Make, events: list[Any]) -> None:
    one = training()
    for _ in range(40):
        one.step()
    one.heal()
    one.step(GOOD, factor=1e4)
    one.recorder.stop()

    [finding] = events
    assert (finding.kind, finding.severity, finding.step) == ("gradient_explosion", "high", 40)
    assert list(finding.details["layers"]) == ["scale"]
    assert finding.details["ratio"] > 1000
    assert "Clip the gradients" in finding.details["remedy"]


def test_a_loss_that_the_program_logged_is_judged_at_the_next_step(training: Make, events: list[Any]) -> None:
    logged = [1.0]
    one = training(loss=lambda: logged[0])
    for step in range(40):
        logged[0] = 1.0 + 0.01 * (step % 7)
        one.step()
    logged[0] = 50.0
    one.step()
    one.step()

    assert [(event.kind, event.step, event.details["loss"]) for event in events] == [("loss_spike", 40, None)]
    assert "that was logged last" in events[0].details["explanation"]


def test_the_watchers_norm_is_used_and_nothing_is_computed_twice(training: Make) -> None:
    one = training(norms=lambda: 7.5)
    one.step()

    assert [step.norm for step in one.recorder._ring] == [7.5]


def test_the_norm_of_the_users_clipping_comes_first(training: Make) -> None:
    one = training(norms=lambda: 7.5)
    one.model(GOOD).sum().backward()
    total = nn.utils.clip_grad_norm_(one.model.parameters(), 0.1)
    one.optimizer.step()

    [step] = one.recorder._ring
    assert step.norm == float(total)
    assert [(clip.kind, clip.parameters) for clip in step.clips] == [("norm", ("scale",))]


def test_step_numbers_are_those_of_the_run(training: Make, events: list[Any]) -> None:
    one = training(step_number=lambda: 4711, on_anomaly="skip")
    for x in (BAD, GOOD, GOOD, BAD):
        one.step(x)

    assert [event.step for event in events] == [4711, 4711]


def test_a_late_look_finds_the_fault_at_the_next_step(
    training: Make, events: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tracer.flight import sentinels

    # On the CPU the norm is a number at once; as a tensor it takes the way of a device.
    monkeypatch.setattr(sentinels, "gradient_norm", lambda gradients: torch.linalg.vector_norm(torch.cat(gradients)))
    one = training(check="delayed")
    one.step()
    one.step(BAD)
    assert events == []
    one.step()
    one.recorder.stop()

    [finding] = events
    assert (finding.kind, finding.step) == ("nan_or_inf", 1)
    assert one.recorder.check == "delayed"


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad])
@pytest.mark.parametrize("check", ["sync", "delayed"])
def test_guard_leaves_parameters_state_and_counter_alone(
    training: Make, events: list[Any], kind: type[torch.optim.Optimizer], check: str
) -> None:
    one = training(kind, fused=True, guard=True, check=check)
    one.step()
    before = one.weights
    state = {
        key: value.clone() for key, value in one.optimizer.state[one.model.scale].items() if isinstance(value, Tensor)
    }
    one.step(BAD)

    assert one.weights == before
    after = one.optimizer.state[one.model.scale]
    assert all(torch.equal(value, after[key]) for key, value in state.items())
    assert not hasattr(one.optimizer, "found_inf")
    one.step()
    assert one.weights != before
    assert [event.step for event in events] == [1]


# GradScaler.


def scaled_steps(one: Training, inputs: list[Tensor], scaler: GradScaler) -> None:
    for x in inputs:
        one.optimizer.zero_grad()
        scaler.scale(one.model(x).mean()).backward()
        scaler.step(one.optimizer)
        scaler.update()


@pytest.mark.parametrize("fused", [False, True])
def test_what_a_scaler_skips_is_no_anomaly(training: Make, events: list[Any], *, fused: bool) -> None:
    one = training(torch.optim.Adam, fused=fused)
    before = one.weights
    scaled_steps(one, [BAD], GradScaler("cpu", init_scale=1024.0))

    assert one.weights == before
    assert events == []
    assert one.recorder.stats()["skipped_steps"] == 1
    assert one.recorder._calls.step.calls == []


@pytest.mark.parametrize("fused", [False, True])
def test_many_skips_in_a_row_are_one_anomaly_with_an_origin(training: Make, events: list[Any], *, fused: bool) -> None:
    one = training(torch.optim.Adam, fused=fused, scaler_skips=3)
    scaled_steps(one, [BAD] * 5, GradScaler("cpu", init_scale=1024.0))

    assert [event.kind for event in events] == ["amp_skips"]
    assert "3 steps in a row, down to a scale of 256" in events[0].details["explanation"]
    assert events[0].details["origin"]["op"] == "aten.sqrt.default"


@pytest.mark.parametrize("fused", [False, True])
def test_the_norm_is_that_of_unscaled_gradients(training: Make, *, fused: bool) -> None:
    plain, one = training(torch.optim.Adam, fused=fused), training(torch.optim.Adam, fused=fused)
    plain.step()
    scaled_steps(one, [GOOD], GradScaler("cpu", init_scale=1024.0))

    [wanted], [step] = plain.recorder._ring, one.recorder._ring
    assert step.norm == pytest.approx(wanted.norm)
    assert (step.scale, step.still_scaled) == (1024.0, fused)
