"""The step again with one change: does the anomaly vanish, and how much does the change move what was right?"""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tracer.capture import randomness
from tracer.flight.anomaly import EXPLOSION, appears, has_nonfinite, is_nonfinite
from tracer.flight.changes import KINDS, Change, changed, sensible
from tracer.flight.contents import Contents
from tracer.flight.replay import MODEL_ERRORS, as_recorded
from tracer.flight.rerun import Rerun, rerun
from tracer.flight.steps import Clip, Output, Step
from tracer.flight.travel import Travel
from tracer.flight.undisturbed import undisturbed, unwrapped

_SPREAD = "clipping cannot repair NaN: it spreads it to all gradients, and helps against explosions only"
_KEPT_WEIGHT = "with a mean loss the remaining samples keep their old weight 1/N"
_NORMALISED = "batch normalisation sees other statistics"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one change did."""

    change: str  # as it is typed: `drop-samples=3`
    vanishes: bool | None  # None where the step could not be run so
    moved: float | None  # relative norm of the difference that it made to gradients that were finite
    notes: tuple[str, ...] = ()
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as a document."""
        return {
            "change": self.change,
            "vanishes": self.vanishes,
            "moved": self.moved,
            "notes": list(self.notes),
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class WhatIfResult:
    """What changes did, those first that make the anomaly vanish and move the gradients least.

    Args:
        appears: Whether the anomaly appears without any change; if not, nothing can be said.
        outcomes: What each change did.
        notes: What to know about all of them.
    """

    appears: bool | None
    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> Outcome | None:
        """The change to try first, if one helps."""
        return next((one for one in self.outcomes if one.vanishes), None)

    @property
    def text(self) -> str:
        """Say it in lines."""
        lines = [f"{one.change:<24} {_answer(one)}" for one in self.outcomes]
        return "\n".join([*lines, *self.notes])

    def __str__(self) -> str:
        return self.text

    def to_json(self) -> dict[str, Any]:
        """Return the result as a document."""
        return {
            "appears": self.appears,
            "outcomes": [one.to_json() for one in self.outcomes],
            "notes": list(self.notes),
        }


def try_changes(
    model: nn.Module,
    contents: Contents,
    step: Step,
    changes: Mapping[str, Any],
    travel: Callable[[], Travel],
    samples: Sequence[int] = (),
) -> WhatIfResult:
    """Run a step once as it is and once with each change.

    Args:
        model: The capsule's model.
        contents: The capsule.
        step: Its step.
        changes: Values, or lists of values, by kind; empty for those that make sense.
        travel: Makes what runs several steps, for `lr`.
        samples: Which are suspected; left out when no change is named.

    Returns:
        The outcomes, ranked.

    Raises:
        ValueError: There is no such change, or not with that value.
    """
    asked = [Change.of(kind, value) for kind, values in changes.items() for value in _several(kind, values)]
    manifest = contents.manifest
    if manifest.get("kind") == EXPLOSION:
        step = replace(step, clips=[])  # the norm that was too high is that before clipping
    with as_recorded(manifest), undisturbed(model):
        try:
            base = rerun(model, step)
        except MODEL_ERRORS as error:
            base = Rerun(notes=[f"{type(error).__name__}: {error}"])
        there = _shows(manifest, base)
        tried = asked or sensible(step, samples, has_travel="snapshot/state.json" in contents.archive)
        step, notes = _without_bad_upstream(step, base)
        laboratory = _Laboratory(model, manifest, step, base, travel)
        outcomes = [laboratory.outcome(change) for change in tried]
    if there is False:
        notes.append("The anomaly does not appear without a change either.")
    return WhatIfResult(there, tuple(sorted(outcomes, key=_rank)), tuple(notes))


def rank_changes(model: nn.Module, contents: Contents, step: Step, travel: Callable[[], Travel]) -> WhatIfResult:
    """Try the changes that make sense for a capsule; see `try_changes`."""
    return try_changes(model, contents, step, {}, travel)


class _Laboratory:
    """Runs the step under changes."""

    def __init__(
        self, model: nn.Module, manifest: Mapping[str, Any], step: Step, base: Rerun, travel: Callable[[], Travel]
    ) -> None:
        self._model, self._manifest, self._step, self._base, self._travel = model, manifest, step, base, travel

    def outcome(self, change: Change) -> Outcome:
        """Return what one change does."""
        try:
            done = self._run(change)
        except MODEL_ERRORS as error:
            return Outcome(change.text, None, None, self._notes(change), f"{type(error).__name__}: {error}")
        shows = _shows(self._manifest, done)
        return Outcome(
            change.text,
            None if shows is None else not shows,
            _moved(self._base.gradients, done.gradients),
            (*self._notes(change), *done.notes),
        )

    def _run(self, change: Change) -> Rerun:  # noqa: PLR0911 -- one for each kind
        """Run the step under a change."""
        match change.kind:
            case "threads":
                with as_recorded(self._manifest, threads=change.value):
                    return rerun(self._model, self._step)
            case "deterministic":
                with as_recorded(self._manifest, deterministic=change.value):
                    return rerun(self._model, self._step)
            case "lr":
                return self._travel().with_rates(change.value)
            case "dtype":
                return rerun(_with_type(self._model, change.value), changed(self._step, change))
            case "seed":
                return rerun(self._model, _with_seed(self._step, change.value))
            case "clip":
                names = tuple(name for name, _ in unwrapped(self._model).named_parameters())
                clip = Clip("norm", change.value, 2.0, names, None)
                return rerun(self._model, replace(self._step, clips=[*self._step.clips, clip]))
            case _:
                return rerun(self._model, changed(self._step, change))

    def _notes(self, change: Change) -> tuple[str, ...]:
        """Return what to know about a change."""
        notes = []
        if change.kind == "clip" and is_nonfinite(self._manifest):
            notes.append(_SPREAD)
        if change.kind == "drop_samples":
            notes.append(_KEPT_WEIGHT)
            if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self._model.modules()):  # noqa: SLF001 -- the common base
                notes.append(_NORMALISED)
        return tuple(notes)


def _without_bad_upstream(step: Step, base: Rerun) -> tuple[Step, list[str]]:
    """Return the step to change, and what to know of it.

    What reached the outputs came from the loss, which is not run again. Where bad outputs made it bad, it says nothing
    of a run with good outputs: there it counts as zero. Where it was bad although all outputs were good, it stays.
    """
    recorded = [g for call in step.calls for one in call.differentiable for _, g in one.upstream]
    if all(bool(gradient.isfinite().all()) for gradient in recorded):
        return step, []
    if not has_nonfinite(Rerun(outputs=base.outputs)):
        return step, ["The fault comes from the loss, outside of the model: only leaving samples out can help."]
    calls = [
        replace(
            call,
            differentiable=[
                Output(one.index, [(n, g.nan_to_num(0.0, 0.0, 0.0)) for n, g in one.upstream])
                for one in call.differentiable
            ],
        )
        for call in step.calls
    ]
    note = "The loss is not run again: where what it sent back was not finite, it counts as zero."
    return replace(step, calls=calls), [note]


def _with_type(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy of a model with parameters and buffers of another type; it runs in eager mode."""
    return copy.deepcopy(unwrapped(model)).to(dtype)


def _with_seed(step: Step, seed: int) -> Step:
    """Return a step whose calls begin with generators of another seed."""
    before = randomness.capture()
    calls = []
    try:
        for number, call in enumerate(step.calls):
            torch.manual_seed(seed + number)
            random.seed(seed + number)
            numpy = sys.modules.get("numpy")
            if numpy is not None:
                numpy.random.seed((seed + number) % 2**32)
            calls.append(replace(call, states=randomness.capture()))
    finally:
        randomness.restore(before)
    return replace(step, calls=calls)


def _shows(manifest: Mapping[str, Any], done: Rerun) -> bool | None:
    """Tell whether the anomaly appears; of a capsule of no anomaly, whether anything is not finite."""
    found = appears(manifest, done, None)
    return has_nonfinite(done) if found is None else found


def _moved(base: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float | None:
    """Return the relative norm of the difference, over all that is finite in both; None where nothing is."""
    difference = size = 0.0
    seen = False
    for name, gradient in base.items():
        if name not in other or other[name].shape != gradient.shape:
            continue
        a, b = (
            one.detach().to_dense() if one.layout is not torch.strided else one.detach()
            for one in (gradient, other[name])
        )
        finite = a.isfinite() & b.isfinite()
        if bool(finite.any()):
            seen = True
            a, b = a[finite].to(torch.float64), b[finite].to(torch.float64)
            difference += float((a - b).square().sum())
            size += float(a.square().sum())
    if not seen:
        return None
    return 0.0 if difference == 0 else (difference / size) ** 0.5 if size else float("inf")


def _several(kind: str, values: Any) -> Sequence[Any]:  # noqa: ANN401 -- what the user wrote
    """Return the values to try: a list is several, but for samples it is one."""
    if kind.replace("-", "_") == "drop_samples":
        nested = isinstance(values, (list, tuple)) and values and isinstance(values[0], (list, tuple, str))
        return values if nested else [values]
    return values if isinstance(values, (list, tuple)) else [values]


def _rank(one: Outcome) -> tuple[int, float]:
    """Return where an outcome stands: those that help first, those that could not be tried last."""
    return {True: 0, False: 1, None: 2}[one.vanishes], float("inf") if one.moved is None else one.moved


def _answer(one: Outcome) -> str:
    """Return what one change did, in words."""
    if one.error is not None:
        return f"cannot be run: {one.error}"
    said = {True: "the anomaly vanishes", False: "it stays", None: "nothing can be said"}[one.vanishes]
    moved = "" if one.moved is None else f", finite gradients move by {100 * one.moved:.3g}%"
    notes = f" ({'; '.join(one.notes)})" if one.notes else ""
    return f"{said}{moved}{notes}"


__all__ = ["KINDS", "Outcome", "WhatIfResult", "rank_changes", "try_changes"]
