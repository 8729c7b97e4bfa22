"""What a fitted estimator has to say: numbers for the summary, curves as series, a search's table.

Only what lies in the object itself is read: a property could compute, warn or fail.
"""

# ruff: noqa: ANN401 -- estimators

from __future__ import annotations

import json
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tracer import events
from tracer.capture.portrayal import of_class, parameters, portrait
from tracer.capture.trainings import trainings

#: What is kept of a fit where the estimator has it.
_ATTRIBUTES = (
    "n_iter_", "best_score_", "best_params_", "best_index_", "n_splits_", "refit_time_", "converged_", "inertia_",
    "loss_", "best_loss_", "best_validation_score_", "lower_bound_", "oob_score_", "n_estimators_", "alpha_", "C_",
    "l1_ratio_", "reconstruction_err_", "kl_divergence_", "stress_", "n_components_", "n_clusters_",
)  # fmt: skip
#: What grows by one value with each iteration → the name of its series.
_CURVES = {
    "loss_curve_": "loss",
    "validation_scores_": "validation_score",
    "train_score_": "train_score",
    "validation_score_": "validation_score",
    "oob_improvement_": "oob_improvement",
}
_MAX_ROWS = 10_000
#: Estimator → curve → how many values were told, and the last of them: a warm start adds to the same curve.
_told: weakref.WeakKeyDictionary[Any, dict[str, tuple[int, float]]] = weakref.WeakKeyDictionary()


def attributes(estimator: Any) -> dict[str, object]:
    """Return the numbers that a fitted estimator holds, without the underscore at their end."""
    held = getattr(estimator, "__dict__", {})
    found = {name.rstrip("_"): held[name] for name in _ATTRIBUTES if name in held}
    return parameters(found) if found else found


def tell_results(emit: Callable[[object], None], estimator: Any, *, is_outermost: bool, is_step: bool) -> None:
    """Tell the results of a fit.

    Args:
        emit: Takes the events.
        estimator: What was fitted.
        is_outermost: It is the program's own fit.
        is_step: It is that, or a step of a pipeline whose fit that is.
    """
    if is_step:
        for event in _curves(estimator):
            emit(event)
    if is_outermost:
        summary = {f"{of_class(estimator)}/{name}": value for name, value in attributes(estimator).items()}
        if summary:
            emit(events.Metadata({"summary": summary}))
        table = getattr(estimator, "__dict__", {}).get("cv_results_")
        if isinstance(table, Mapping):
            emit(_table(f"{of_class(estimator)}/cv_results", table))


def _curves(estimator: Any) -> Iterator[events.Scalars]:
    """Yield what the curves of an estimator have that was not told yet; the first iteration is step 0."""
    held = getattr(estimator, "__dict__", {})
    curves = {name: list(map(float, held[name])) for name in _CURVES if name in held and _is_curve(held[name])}
    if not curves:
        return
    told = _told.get(estimator, {})
    goes_on = all(
        name in curves and len(curves[name]) >= count and (count == 0 or curves[name][count - 1] == last)
        for name, (count, last) in told.items()
    )
    begun = {name: told.get(name, (0, 0.0))[0] if goes_on else 0 for name in curves}
    training = trainings.begin("sklearn", min(begun.values()), estimator)
    _told[estimator] = {name: (len(values), values[-1]) for name, values in curves.items()}
    training.end = min(map(len, curves.values()))
    if training.prefix is None:
        return
    for step in range(min(begun.values()), max(map(len, curves.values()))):
        values: dict[str, object] = {
            f"{training.prefix}{of_class(estimator)}/{_CURVES[name]}": curve[step]
            for name, curve in curves.items()
            if begun[name] <= step < len(curve)
        }
        if values:
            yield events.Scalars(values, step, origin="sklearn")


def _is_curve(value: Any) -> bool:
    """Tell whether something is a row of numbers."""
    if hasattr(value, "shape"):
        return len(value.shape) == 1 and value.shape[0] > 0
    return isinstance(value, list) and bool(value) and all(isinstance(item, (int, float)) for item in value)


def _table(name: str, columns: Mapping[str, Any]) -> events.Media:
    """Return the table of a search: a column per parameter, score and time, a row per candidate."""
    names = [column for column in columns if column != "params"]
    listed = [list(columns[column]) for column in names]
    rows = [[_cell(value) for value in row] for row in zip(*listed, strict=True)]
    data = json.dumps({"columns": names, "rows": rows[:_MAX_ROWS]}).encode()
    return events.Media(name, "table", data=data, suffix=".json", fields={"rows": len(rows)}, origin="sklearn")


def _cell(value: Any) -> object:
    """Return a cell as JSON holds it; what a candidate does not have is masked, and empty."""
    if of_class(value) == "MaskedConstant":
        return None
    said = parameters({"value": portrait(value)})["value"]
    return said if isinstance(said, (str, int, float, bool, type(None))) else json.dumps(said)


__all__ = ["attributes", "tell_results"]
