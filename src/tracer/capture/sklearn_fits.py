"""What becomes of one call of `fit`, `score` or `cross_validate` while scikit-learn is listened to.

Calls lie in each other: a search fits pipelines, a pipeline fits its steps. The outermost one begins a training and
gives the run its parameters and results; those inside are told with the name of the one they lie in, and beyond a
thousand of a kind are only counted. Never told: X and y.

A class of the program's own is sent to worker processes with its methods, so the wrappers hold nothing but the original
and find `heard` and `scored` by name over there.
"""

# ruff: noqa: ANN401 -- estimators and what they return

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from tracer import events
from tracer.capture.patching import Hook
from tracer.capture.portrayal import of_class, parameters
from tracer.capture.sklearn_calls import Call, enter, is_inside, is_worker, leave, parent, top
from tracer.capture.sklearn_results import attributes, tell_results

ORIGIN = "sklearn"
#: Calls of one kind inside one call; further ones are counted.
MAX_CALLS = 1_000
_UNKNOWN = object()

fits, scores, validations = Hook("sklearn.fit"), Hook("sklearn.score"), Hook("sklearn.validation")
for _hook in (fits, scores, validations):
    _hook.is_on = False  # a worker process that only unpickles a wrapper does not listen


def heard(function: Callable[..., Any], estimator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a method that fits, and tell what it did."""
    if not fits.is_on or is_inside(estimator):
        return function(estimator, *args, **kwargs)
    call = Call(estimator, f"{of_class(estimator)}.{function.__name__}", parent())
    token = enter(call)
    try:
        if call.parent is None:
            with fits:
                _begin(estimator)
        result = function(estimator, *args, **kwargs)
        call.is_done = True
        return result
    finally:
        leave(call, token)
        if fits.is_on:
            with fits:
                _end(call, function.__name__, args, kwargs)


def scored(function: Callable[..., Any], estimator: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call `score`, and tell the value unless it is part of something larger."""
    if not scores.is_on or parent() is not None or is_worker():
        return function(estimator, *args, **kwargs)
    call = Call(estimator, f"{of_class(estimator)}.score", None)
    token = enter(call)
    try:
        result = function(estimator, *args, **kwargs)
    finally:
        leave(call, token)
    with scores:
        _tell_score(call, result, args, kwargs)
    return result


def validated(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call a function that fits an estimator several times, such as `cross_validate`."""
    estimator = args[0] if args else kwargs.get("estimator")
    call = Call(None, function.__name__, parent())
    token = enter(call)
    try:
        if call.parent is None:
            with validations:
                _begin(estimator)
        result = function(*args, **kwargs)
    finally:
        leave(call, token)
    with validations:
        _tell_validation(call, estimator, result)
    return result


def _begin(estimator: Any) -> None:
    """Say that a training begins, with its parameters; those of a class are said once in a run."""
    if is_worker() or type(estimator) in top().said:
        return
    given = estimator.get_params(deep=False) if hasattr(estimator, "get_params") else {}
    fits.emit(events.Training(ORIGIN, parameters=parameters({of_class(estimator): given})))
    top().said.add(type(estimator))  # asked for anew: the event may have begun a run


def _end(call: Call, method: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Tell of a fit that has ended, well or not."""
    count, seconds = call.count_in()
    if count > MAX_CALLS:
        _tell_count(call, method, count)
        return
    rows, features = _size(args, kwargs)
    fields: dict[str, object] = {"class": of_class(call.subject), "rows": rows, "features": features}
    fields |= {"seconds": round(seconds, 6), **call.place(), **_failure(call)}
    if changed := _changed(call.subject):
        fields["parameters"] = changed
    if call.is_done:
        fields |= attributes(call.subject)
    if call.inner:
        fields["inner"] = call.inner_counts()
    body = f"{call.name}: {_shape(rows, features)} in {seconds:.3g} s"
    fits.emit(events.Entry("event", body, name=f"sklearn.{method}", fields=fields))
    if call.is_done and not is_worker():
        tell_results(fits.emit, call.subject, is_outermost=call.parent is None, is_step=_is_step(call))


def _tell_count(call: Call, method: str, count: int) -> None:
    """Tell from time to time how many calls there were; inside another call that one tells it."""
    if call.parent is None and count % MAX_CALLS == 0:
        fields = {"class": of_class(call.subject), **top().inner_counts()[call.name]}
        body = f"{call.name}: {count:,} calls so far; they are counted now, not told one by one"
        fits.emit(events.Entry("event", body, name=f"sklearn.{method}", fields=fields))


def _failure(call: Call) -> dict[str, object]:
    """Return the exception that ended the call."""
    error = sys.exc_info()[1]
    return {} if call.is_done or error is None else {"error": type(error).__name__}


def _is_step(call: Call) -> bool:
    """Tell whether the call belongs to the one fit of its estimator: it lies in pipelines only."""
    above = call.parent
    while above is not None:
        if not hasattr(above.subject, "steps"):
            return False
        above = above.parent
    return True


def _tell_score(call: Call, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Tell a score that the program asked for."""
    number = float(value)
    rows, _ = _size(args, kwargs)
    name = of_class(call.subject)
    fields = {"class": name, "value": number, "rows": rows}
    scores.emit(events.Entry("event", f"{name}.score: {number:.6g}", name="sklearn.score", fields=fields))
    scores.emit(events.Metadata({"summary": {f"{name}/score": number}}))


def _tell_validation(call: Call, estimator: Any, result: Any) -> None:
    """Tell the scores of each fold, and their mean."""
    count, seconds = call.count_in()
    if count > MAX_CALLS or is_worker():
        return
    fields: dict[str, object] = {"class": of_class(estimator), "seconds": round(seconds, 6), **call.place()}
    summary: dict[str, object] = {}
    if isinstance(result, Mapping):
        found = {name: list(map(float, result[name])) for name in result if name.startswith(("test_", "train_"))}
        fields |= found
        for name, values in found.items():
            mean = sum(values) / len(values)
            spread = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
            summary |= {f"{of_class(estimator)}/{name}": mean, f"{of_class(estimator)}/{name}_std": spread}
    if call.inner:
        fields["inner"] = call.inner_counts()
    said = ", ".join(f"{name.rpartition('/')[2]} {value:.6g}" for name, value in summary.items())
    body = f"{call.name} of {of_class(estimator)}: {said or f'{seconds:.3g} s'}"
    validations.emit(events.Entry("event", body, name=f"sklearn.{call.name}", fields=fields))
    if summary and call.parent is None:
        validations.emit(events.Metadata({"summary": summary}))


def _size(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the rows and features of X; the data itself is not touched."""
    data: Any = args[0] if args else kwargs.get("X")
    shape = getattr(data, "shape", None)
    if shape:
        return int(shape[0]), int(shape[1]) if len(shape) > 1 else None
    return (len(data) if hasattr(data, "__len__") else None), None


def _shape(rows: int | None, features: int | None) -> str:
    """Return the size of the data as people say it."""
    return " x ".join(
        f"{count:,} {what}" for count, what in ((rows, "rows"), (features, "features")) if count is not None
    )


def _changed(estimator: Any) -> dict[str, object]:
    """Return the parameters that are not the defaults of the class."""
    kind: Any = type(estimator)
    defaults = _defaults(kind)
    if getattr(getattr(kind, "get_params", None), "__module__", "") == "sklearn.base":
        held = vars(estimator)  # what `get_params` would look up, after 25 µs of asking for the signature
        given = {name: held[name] for name in defaults if name in held}
    else:
        given = estimator.get_params(deep=False) if hasattr(kind, "get_params") else {}
    changed = {name: value for name, value in given.items() if not _is_same(value, defaults.get(name, _UNKNOWN))}
    return parameters(changed) if changed else changed


@cache
def _defaults(kind: type) -> dict[str, object]:
    """Return the defaults that a class has for its parameters."""
    try:
        signature = inspect.signature(kind)
    except (TypeError, ValueError):
        return {}
    return {name: one.default for name, one in signature.parameters.items()}


def _is_same(value: Any, default: Any) -> bool:
    """Tell whether a plain value is the default; others count as changed, since comparing may cost or mislead."""
    return value is default or (
        type(value) is type(default) and isinstance(value, (int, float, str)) and value == default
    )


__all__ = ["MAX_CALLS", "ORIGIN", "fits", "heard", "scored", "scores", "validated", "validations"]
