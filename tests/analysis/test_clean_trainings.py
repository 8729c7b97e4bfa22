"""Real trainings: healthy ones raise no grave alarm, and a planted fault is found at its step and in its layer."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tracer.analysis.anomaly_detection import detect
from tracer.events import Finding
from tracer.storage.store import Store

pytest.importorskip("torch", reason="needs torch")
pytestmark = pytest.mark.torch


def load() -> ModuleType:
    """Return the module beside this one."""
    spec = importlib.util.spec_from_file_location("trainings", Path(__file__).with_name("trainings.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["trainings"] = module
    spec.loader.exec_module(module)
    return module


trainings = load()


@pytest.fixture
def found() -> Iterator[Callable[[], list[Finding]]]:
    """Search the one run that was recorded."""

    def search() -> list[Finding]:
        with Store.open(".tracer") as store:
            [run] = store.runs()
            return detect(store, run.uid)

    return search


@pytest.mark.parametrize("training", trainings.CLEAN, ids=lambda one: str(one.__name__))
def test_a_healthy_training_raises_no_grave_alarm(
    training: Callable[[int], None], found: Callable[[], list[Finding]]
) -> None:
    training(0)

    findings = found()
    print(f"{training.__name__}: {len(findings)} findings of any severity")  # noqa: T201 (shown with -s)

    assert [one.details["explanation"] for one in findings if one.severity in ("high", "critical")] == []
    assert len(findings) <= 2


#: Training, kind, the steps between which it has to begin, what it has to name, and a word of its first cause.
PLANTED = [
    ("rate_leap", "update_ratio", (118, 122), "weight", "learning rate rose"),
    ("rate_leap", "loss_spike", (121, 121), "loss", "update of"),
    ("rate_leap", "nan_or_inf", (122, 130), "loss", "gradient norm of"),
    ("bad_batch", "loss_spike", (120, 120), "loss", "look at the batch of step 120"),
    ("bad_batch", "gradient_explosion", (120, 120), "weight", "loss jumped"),
    ("not_a_number", "nan_or_inf", (120, 120), "loss", ""),
    ("sigmoid_stack", "vanishing_gradient", (0, 16), "0.weight", ""),
    ("dead_units", "dead_relu", (100, 101), "3", ""),
    ("dead_units", "vanishing_gradient", (100, 101), "0.weight", "units of 3 are zero"),
    ("exploding_recurrence", "gradient_explosion", (100, 101), "rnn.weight_hh_l0", "loss jumped"),
    ("still_layer", "unchanged_tensor", (0, 16), "0.weight", ""),
    ("memorised", "overfitting", (5, 200), "val/loss", ""),
    ("too_fast", "loss_divergence", (200, 260), "loss", "rose 20.2 times at step 200"),
    ("nothing_learnt", "loss_plateau", (0, 0), "loss", "lr is 0"),
    ("saturated", "saturated_activation", (0, 1), "1", ""),
    ("equal_weights", "poor_weight_initialization", (0, 1), "2.weight", ""),
]


def named(found: Finding) -> list[str]:
    """Return what a finding is about."""
    return [str(found.details.get("metric")), *map(str, found.details.get("layers") or ())]


@pytest.mark.parametrize("name", sorted({name for name, *_ in PLANTED}))
def test_a_planted_fault_is_found_where_it_is(name: str, found: Callable[[], list[Finding]]) -> None:
    getattr(trainings, name)()

    findings = found()

    for _, kind, (first, last), subject, cause in [row for row in PLANTED if row[0] == name]:
        # A loss that is not finite and the layers that are not are two findings, each with its own evidence.
        of_kind = [one for one in findings if one.kind == kind and any(subject in text for text in named(one))]
        assert len(of_kind) == 1, (kind, [(one.kind, one.step, named(one)) for one in findings])
        [one] = of_kind
        assert first <= one.step <= last, (kind, one.step)
        assert cause in " ".join(map(str, one.details["cause"])), (kind, one.details["cause"])
        assert one.details["explanation"]
        assert one.details["remedy"]
