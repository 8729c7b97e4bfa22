"""LightGBM: `train` and `cv` get one callback more, wherever a module holds them.

Both are functions, so whoever wrote `from lightgbm import train` before capture began holds the original: every loaded
module that does is given the wrapper, and gets the original back at the end. Our callback comes before that of early
stopping, which raises and would keep the last round from us. Steps are boosting rounds, from 0, continued.
"""

# ruff: noqa: ANN401 -- LightGBM's objects, whose types are LightGBM's

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from tracer import clock, events
from tracer.capture.bindings import rebind
from tracer.capture.patching import Hook, Patch
from tracer.capture.portrayal import parameters
from tracer.capture.trainings import Training, trainings

_ORIGIN = "lightgbm"
#: Early stopping has 30, and what records for the program 20.
_ORDER = 25
train, cv = Hook("lightgbm.train"), Hook("lightgbm.cv")


class Rounds:
    """What one call of `train` or `cv` says, round by round: LightGBM calls it as a callback.

    Args:
        hook: Whose events these are.
        given: The parameters of the call.
    """

    def __init__(self, hook: Hook, given: Mapping[str, object]) -> None:
        self.order, self.before_iteration = _ORDER, False
        self._hook, self._given = hook, given
        self._training: Training | None = None
        self._first = self._rounds = 0
        self._began = clock.monotonic()

    def __call__(self, env: Any) -> None:
        """Hear the end of a round."""
        if self._hook.is_on:
            with self._hook:
                self._end_round(env)

    def begin(self) -> None:
        """Say that a training begins, with the parameters as the program gave them."""
        self._hook.emit(events.Training(_ORIGIN, parameters=parameters(self._given)))

    def end(self, result: Any) -> None:
        """Say how the training ended."""
        booster = result.get("cvbooster") if isinstance(result, dict) else result
        summary: dict[str, object] = {"rounds": self._rounds}
        best = getattr(booster, "best_iteration", 0) or 0
        if best > 0:
            summary["best_iteration"] = best
            scores = getattr(booster, "best_score", None)
            if isinstance(scores, Mapping):
                summary["best_score"] = parameters(scores)
        prefix = self._training.prefix if self._training is not None else ""
        if prefix is not None:
            self._hook.emit(events.Metadata({"summary": {prefix + name: value for name, value in summary.items()}}))
        seconds = round(clock.monotonic() - self._began, 6)
        fields = {**summary, "seconds": seconds, "training": (prefix or "").rstrip("/")}
        body = f"{self._rounds - self._first} rounds in {seconds:.3g} s"
        self._hook.emit(events.Entry("event", body, name=self._hook.name, fields=fields))

    def _end_round(self, env: Any) -> None:
        """Say what this round's evaluation brought."""
        self._first, self._rounds = env.begin_iteration, env.iteration + 1
        if env.evaluation_result_list:
            if self._training is None:
                self._training = trainings.begin(_ORIGIN, env.begin_iteration)
            self._training.end = self._rounds
            if self._training.prefix is not None:
                values = _named(self._training.prefix, env.evaluation_result_list)
                self._hook.emit(events.Scalars(values, env.iteration, origin=_ORIGIN))
        self._hook.emit(events.Steps(self._rounds, _ORIGIN))


def _named(prefix: str, results: Any) -> dict[str, object]:
    """Return the values under their names; a mean over folds comes with its deviation, named as `cv` names them."""
    values: dict[str, object] = {}
    for data, metric, value, _, *rest in results:  # the fifth came with 4.7 for `train`, and was there for `cv` before
        name = f"{prefix}{data}/{metric}"
        deviation = rest[0] if rest else None
        if deviation is None:
            values[name] = float(value)
        else:
            values[f"{name}-mean"], values[f"{name}-stdv"] = float(value), float(deviation)
    return values


def _listening(hook: Hook) -> Callable[[Any], Any]:
    """Return what makes the wrapper of `train` or `cv`."""

    def make(original: Any) -> Any:
        signature = inspect.signature(original)

        def call(*args: Any, **kwargs: Any) -> Any:
            if not hook.is_on:
                return original(*args, **kwargs)
            rounds: Rounds | None = None
            with hook:
                rounds, args, kwargs = _with_callback(hook, signature, args, kwargs)
            result = original(*args, **kwargs)
            if rounds is not None and hook.is_on:
                with hook:
                    rounds.end(result)
            return result

        return call

    return make


def _with_callback(
    hook: Hook, signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Rounds | None, tuple[Any, ...], dict[str, Any]]:
    """Return the call with our callback among the others; the program's own list is not touched."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError:  # the original says it better
        return None, args, kwargs
    called = bound.arguments
    callbacks = called.get("callbacks")
    if not isinstance(called["params"], Mapping) or not isinstance(callbacks, (list, tuple, set, type(None))):
        return None, args, kwargs
    rounds_wanted = called.get("num_boost_round", signature.parameters["num_boost_round"].default)
    rounds = Rounds(hook, {"num_boost_round": rounds_wanted, **called["params"]})
    # Before the others: LightGBM numbers those without an order from the end of the list, and goes on doing so.
    bound.arguments["callbacks"] = [rounds, *(callbacks or ())]
    rounds.begin()
    return rounds, bound.args, bound.kwargs


def _install(hook: Hook, name: str, known: tuple[str, ...]) -> Callable[[ModuleType], Callable[[], None]]:
    """Return what puts the wrapper into the engine and into all that hold the original."""

    def install(engine: ModuleType) -> Callable[[], None]:
        original = getattr(engine, name, None)
        undo = hook.wrap(engine, name, _listening(hook), parameters=known)
        wrapper = getattr(engine, name)
        if wrapper is not original:
            rebind([(original, wrapper)])

        def take_out() -> None:
            undo()
            # Where another tool wrapped the function since, ours stays inside its wrapper and is deaf.
            if getattr(engine, name, None) is original:
                rebind([(wrapper, original)])

        return take_out

    return install


_TRAIN = ("params", "train_set", "num_boost_round", "valid_sets")
_CV = ("params", "train_set", "num_boost_round", "folds")
PATCHES = tuple(
    Patch(
        hook,
        module="lightgbm.engine",
        attribute=name,
        package="lightgbm",
        tested=("4.7", "4.7"),
        install=_install(hook, name, known),
    )
    for hook, name, known in ((train, "train", _TRAIN), (cv, "cv", _CV))
)

__all__ = ["PATCHES", "Rounds"]
