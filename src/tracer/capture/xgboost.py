"""XGBoost: one more callback in every container, so `train`, `cv` and the scikit-learn classes are heard alike.

    Booster.__init__            the parameters as the program gave them
    CallbackContainer.__init__  our callback, as the last one: it sees what the program's own callbacks add

Steps are boosting rounds, from 0; a training that continues a model goes on counting where that one ended.
"""

# ruff: noqa: ANN401, ARG002 -- XGBoost's objects and signatures

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from functools import cache
from types import ModuleType
from typing import Any

from tracer import clock, events
from tracer.capture.patching import Hook, Patch
from tracer.capture.portrayal import parameters
from tracer.capture.trainings import Training, trainings

_ORIGIN = "xgboost"
containers = Hook("xgboost.callbacks")
boosters = Hook("xgboost.parameters")
#: Booster → what it was made with; the booster itself does not say it in the program's words.
_given: weakref.WeakKeyDictionary[Any, Mapping[str, object]] = weakref.WeakKeyDictionary()


class Rounds:
    """What one call of `train` or `cv` says, round by round.

    Args:
        history: The container's own: data set → metric → values.
    """

    def __init__(self, history: Mapping[str, Mapping[str, list[Any]]]) -> None:
        self._history = history
        self._told: dict[tuple[str, str], int] = {}
        self._start = self._rounds = 0
        self._training: Training | None = None
        self._began = clock.monotonic()

    def begin(self, model: Any) -> None:
        """Say that a training begins, with what parameters, and after how many rounds."""
        folds = getattr(model, "cvfolds", None)
        booster = folds[0].bst if folds else model
        self._start = 0 if folds else int(model.num_boosted_rounds())
        said = parameters({"booster": "gbtree", **_given.get(booster, {})})
        containers.emit(events.Training(_ORIGIN, parameters=said, step=self._start))

    def end_round(self, epoch: int) -> None:
        """Say what this round's evaluation brought."""
        self._rounds = epoch + 1
        self._tell()
        containers.emit(events.Steps(self._start + self._rounds, _ORIGIN))

    def end(self, model: Any) -> None:
        """Say the rest: the round that made the training stop early is told to no callback that comes after."""
        self._tell()
        summary: dict[str, object] = {"rounds": self._start + self._rounds}
        for name in ("best_iteration", "best_score"):
            said = model.attr(name)  # None where nothing stopped early; the property would raise
            if said is not None:
                summary[name] = int(said) if name == "best_iteration" else float(said)
        prefix = self._training.prefix if self._training is not None else ""
        if prefix is not None:
            containers.emit(events.Metadata({"summary": {prefix + name: value for name, value in summary.items()}}))
        seconds = round(clock.monotonic() - self._began, 6)
        fields = {**summary, "seconds": seconds, "training": (prefix or "").rstrip("/")}
        body = f"{self._rounds} rounds in {seconds:.3g} s"
        containers.emit(events.Entry("event", body, name="xgboost.train", fields=fields))

    def _tell(self) -> None:
        """Emit what the history holds and was not told yet, one event per round."""
        fresh: dict[int, dict[str, object]] = {}
        for data, metrics in self._history.items():
            for metric, values in metrics.items():
                told = self._told.get((data, metric), 0)
                for number in range(told, len(values)):
                    fresh.setdefault(number, {}).update(_named(data, metric, values[number]))
                self._told[data, metric] = len(values)
        if not fresh:
            return
        if self._training is None:
            self._training = trainings.begin(_ORIGIN, self._start)
        prefix = self._training.prefix
        self._training.end = self._start + max(fresh) + 1
        if prefix is None:
            return
        for number, said in fresh.items():
            named = {prefix + name: value for name, value in said.items()}
            containers.emit(events.Scalars(named, self._start + number, origin=_ORIGIN))


def _named(data: str, metric: str, value: Any) -> dict[str, object]:
    """Return a value under its name; a mean over folds comes with its deviation, named as XGBoost's own table does."""
    if isinstance(value, tuple):
        return {f"{data}/{metric}-mean": float(value[0]), f"{data}/{metric}-std": float(value[1])}
    return {f"{data}/{metric}": float(value)}


@cache
def _listener(base: Any) -> Any:
    """Return a callback class below XGBoost's own, which its container insists on."""

    class TracerRounds(base):  # type: ignore[misc]  # known when XGBoost is there
        """Listens to one training, and changes nothing."""

        def __init__(self, rounds: Rounds) -> None:
            super().__init__()
            self._rounds = rounds

        def before_training(self, model: Any) -> Any:
            with containers:
                self._rounds.begin(model)
            return model

        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            if containers.is_on:
                with containers:
                    self._rounds.end_round(epoch)
            return False

        def after_training(self, model: Any) -> Any:
            if containers.is_on:
                with containers:
                    self._rounds.end(model)
            return model

    return TracerRounds


def _listen(module: ModuleType) -> Callable[[], None]:
    """Append our callback to each container."""

    def make(original: Any) -> Any:
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            if containers.is_on:
                with containers:
                    self.callbacks.append(_listener(module.TrainingCallback)(Rounds(self.history)))

        return init

    return containers.wrap(module.CallbackContainer, "__init__", make, parameters=("self", "callbacks", "metric"))


def _note(module: ModuleType) -> Callable[[], None]:
    """Note what each booster is made with."""

    def make(original: Any) -> Any:
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            given = args[0] if args else kwargs.get("params")
            if boosters.is_on and given:
                with boosters:
                    _given[self] = dict(given)

        return init

    return boosters.wrap(module.Booster, "__init__", make, parameters=("self", "params", "cache"))


_TESTED = ("3.2", "3.2")
PATCHES = (
    Patch(
        containers,
        module="xgboost.callback",
        attribute="CallbackContainer.__init__",
        package="xgboost",
        tested=_TESTED,
        install=_listen,
    ),
    Patch(
        boosters,
        module="xgboost.callback",
        attribute="Booster.__init__",
        package="xgboost",
        tested=_TESTED,
        install=_note,
    ),
)

__all__ = ["PATCHES", "Rounds"]
