"""Runs beside each other: what was set differently, which did better, and where their curves part.

`compare` reads the store and answers with one frozen value; `render` and the command line only show it.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from tracer.analysis import curves, goals
from tracer.analysis.curves import Aligned, Ending, Parting
from tracer.analysis.differences import (
    CodeDifference,
    Difference,
    code_difference,
    differing,
    environment_differences,
    git_differences,
)
from tracer.analysis.statistics import Values
from tracer.events import BESIDE

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.storage.values import RunRow, Series

#: Two endings this many standard errors apart are different.
_SURE = 2.0
_FEWEST_RUNS = 2


@dataclass(frozen=True, slots=True)
class MetricOfRun:
    """One metric of one run, measured against the first run.

    `difference` is final value minus the first run's, `relative` its share of the size of that value; `better` says
    whether it beats the first run beyond both runs' noise: None when it is within the noise or no direction is known.
    """

    points: int
    final: float | None
    best: float | None
    best_step: int | None
    difference: float | None
    relative: float | None
    better: bool | None
    within_noise: bool | None
    first_difference: int | None
    parting: Parting | None
    overlap: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """One metric over all runs; `goal` is `min`, `max` or None, and `best_run` is the index of the run that won."""

    metric: str
    goal: str | None
    runs: tuple[MetricOfRun, ...]
    best_run: int | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """What differs between runs; the first run is what the others are measured against."""

    runs: tuple[RunRow, ...]
    config: tuple[Difference, ...]
    environment: tuple[Difference, ...]
    git: tuple[Difference, ...]
    code: tuple[CodeDifference | None, ...]
    metrics: tuple[MetricComparison, ...]
    missing: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Tell whether anything at all was found to differ, beyond noise."""
        changed = bool(self.config or self.environment or self.git or any(self.code) or self.missing)
        return changed or any(run.parting or run.within_noise is False for row in self.metrics for run in row.runs)


def compare(store: Store, runs: Sequence[RunRow], metrics: Sequence[str] = (), *, rank: int = 0) -> Comparison:
    """Compare two runs or more.

    Args:
        store: Where their values are.
        runs: The runs; the others are measured against the first.
        metrics: Names or patterns such as `val/*`; without any, every numeric metric that all of them have.
        rank: Whose values count in a run of several processes.

    Returns:
        The differences in parameters, environment and code, and each metric with the step at which the curves part.

    Raises:
        ValueError: Fewer than two runs were given.

    Example:
        >>> from tracer.storage import Store  # doctest: +SKIP
        >>> store = Store.open(".tracer")  # doctest: +SKIP
        >>> compare(store, [store.run("first"), store.run("second")], ["loss"]).metrics[0].best_run  # doctest: +SKIP
        1
    """
    if len(runs) < _FEWEST_RUNS:
        message = f"Comparing takes two runs or more; {len(runs)} was given."
        raise ValueError(message)
    known = [{row.metric for row in store.metrics(run.uid) if row.rank == rank and not row.is_text} for run in runs]
    chosen, missing = _chosen(known, metrics)
    declared = {name: goal for run in reversed(runs) for name, goal in run.goals.items()}
    return Comparison(
        runs=tuple(runs),
        config=tuple(differing([run.config for run in runs])),
        environment=tuple(environment_differences([run.environment for run in runs])),
        git=tuple(git_differences([run.git for run in runs])),
        code=tuple(code_difference(runs[0].git, run.git) for run in runs),
        metrics=tuple(
            compare_metric([store.series(run.uid, name, rank=rank) for run in runs], goals.goal(name, declared))
            for name in chosen
        ),
        missing=missing,
    )


def compare_metric(series: Sequence[Series], goal: str | None) -> MetricComparison:
    """Compare one metric of several runs.

    Args:
        series: The metric of each run; the first is what the others are measured against.
        goal: `min`, `max`, or None when nobody knows which is better.

    Returns:
        Final and best values, differences, and where each curve parts from the first.
    """
    first = series[0]
    first_end = curves.ending(first.value)
    first_final = _final(first.value)
    found = []
    for index, one in enumerate(series):
        both = curves.align(first.step, first.value, one.step, one.value)
        found.append(_measured(one, goal, both, (first_final, first_end), is_first=index == 0))
    return MetricComparison(first.metric, goal, tuple(found), _winner(series, goal))


def _measured(
    one: Series, goal: str | None, both: Aligned, base: tuple[float | None, Ending | None], *, is_first: bool
) -> MetricOfRun:
    """Return one run's figures for a metric."""
    final, end = _final(one.value), curves.ending(one.value)
    best, best_step = _best(one, goal)
    base_final, base_end = base
    difference = relative = None
    if not is_first and final is not None and base_final is not None:
        difference, relative = final - base_final, curves.relative_difference(base_final, final)
    within = None if is_first else _within_noise(base_end, end)
    better = None
    if not is_first and _is_finite(final) != _is_finite(base_final):
        # A curve that ended in NaN or infinity is no match for one that did not, whatever came before.
        within, better = False, _is_finite(final)
    elif not is_first and not _is_finite(final):
        within = None
    elif within is False and goal is not None and end is not None and base_end is not None:
        better = end.mean < base_end.mean if goal == goals.MINIMISE else end.mean > base_end.mean
    return MetricOfRun(
        points=len(one.step),
        final=final,
        best=best,
        best_step=best_step,
        difference=difference,
        relative=relative,
        better=better,
        within_noise=within,
        first_difference=None if is_first else curves.first_difference(both),
        parting=None if is_first else curves.parting(both),
        overlap=(int(both.steps[0]), int(both.steps[-1])) if len(both.steps) else None,
    )


def _chosen(known: Sequence[set[str]], wanted: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Return the metrics to compare, and those asked for, or in some runs only, that not all runs have."""
    everywhere = set.intersection(*known)
    anywhere = set.union(*known)
    if not wanted:
        # What the machine did is compared when asked for: it fills the page and is never the same.
        common = {name for name in everywhere if not name.startswith(BESIDE)}
        return sorted(common), tuple(sorted(name for name in anywhere - everywhere if not name.startswith(BESIDE)))
    chosen: list[str] = []
    missing: list[str] = []
    for pattern in wanted:
        matching = [pattern] if pattern in anywhere else sorted(fnmatch.filter(anywhere, pattern))
        chosen += [name for name in matching if name in everywhere and name not in chosen]
        missing += [name for name in matching or [pattern] if name not in everywhere and name not in missing]
    return chosen, tuple(missing)


def _final(values: Values) -> float | None:
    """Return the last value, be it NaN."""
    return float(values[-1]) if len(values) else None


def _best(one: Series, goal: str | None) -> tuple[float | None, int | None]:
    """Return the best finite value and its step; nothing when no direction is known."""
    known = np.isfinite(one.value)
    if goal is None or not known.any():
        return None, None
    values, steps = one.value[known], one.step[known]
    index = int(np.argmin(values) if goal == goals.MINIMISE else np.argmax(values))
    return float(values[index]), int(steps[index])


def _within_noise(base: Ending | None, end: Ending | None) -> bool | None:
    """Tell whether two endings cannot be told apart; None when one has no finite value."""
    if base is None or end is None:
        return None
    return bool(abs(end.mean - base.mean) <= _SURE * np.hypot(base.error, end.error))


def _winner(series: Sequence[Series], goal: str | None) -> int | None:
    """Return the index of the run with the best ending, if it beats every other beyond noise."""
    ends = [curves.ending(one.value) if _ends_finite(one.value) else None for one in series]
    ranked = [(end.mean, index) for index, end in enumerate(ends) if end is not None]
    if goal is None or not ranked or len(series) < _FEWEST_RUNS:
        return None
    ranked.sort(reverse=goal == goals.MAXIMISE)
    winner = ranked[0][1]
    beaten = (_within_noise(ends[winner], end) is False for index, end in enumerate(ends) if end and index != winner)
    return winner if all(beaten) else None


def _is_finite(value: float | None) -> bool:
    """Tell whether there is a value, and a finite one."""
    return value is not None and bool(np.isfinite(value))


def _ends_finite(values: Values) -> bool:
    """Tell whether a curve did not end in NaN or infinity."""
    return len(values) > 0 and bool(np.isfinite(values[-1]))


__all__ = ["Comparison", "MetricComparison", "MetricOfRun", "compare", "compare_metric"]
