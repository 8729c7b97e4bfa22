"""A logger of Lightning's that passes on what the loggers are told: numbers, at the steps that the user chose."""

# ruff: noqa: ANN401, ARG002 -- the framework decides what it hands over, and of what type

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

from tracer.capture.lightning_bases import as_sent, completed, loaded_bases
from tracer.capture.lightning_trainer import whole

#: Gets values and their step.
Tell = Callable[[Mapping[str, object], int | None], None]


class Nothing:
    """Takes every call and does nothing: what a program without a logger may find in the place of one."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Return a method that does nothing; not those that say what an object is."""
        if name.startswith("__"):
            raise AttributeError(name)
        return _ignore


def _ignore(*_: Any, **__: Any) -> None:
    """Do nothing."""


class MetricsOnce:
    """The metrics of a logger's calls, without the epoch that comes again with each: one row per name and step."""

    def __init__(self) -> None:
        self._epoch: tuple[object, object] | None = None

    def of(self, metrics: Mapping[str, Any], step: int | None) -> dict[str, object]:
        """Return what is new in the metrics of a call."""
        values = dict(metrics)
        if "epoch" in values:
            epoch = values["epoch"], step
            if epoch == self._epoch:
                del values["epoch"]
            self._epoch = epoch
        return values


class FollowingLogger:
    """Stands last among a trainer's loggers while a training goes on, and passes on what they are told.

    Where it is the only one, it behaves as if there were none: it is false, and has no folder of its own.
    """

    def __new__(cls, *_args: Any, **_kwargs: Any) -> Self:
        """Make an instance of this class and of the framework's `Logger`."""
        incomplete: Any = cls
        made: type[Self] = completed(incomplete, loaded_bases("loggers", "Logger"))
        return object.__new__(made)

    def __init__(
        self, tell: Tell | None = None, parameters: Callable[[Any], None] | None = None, folder: str | None = None
    ) -> None:
        self._tell, self._parameters, self._folder = tell, parameters, folder
        self._once = MetricsOnce()

    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Pass metrics on; evaluations bring empty ones at each of their batches."""
        step = whole(step)
        values = self._once.of(metrics, step)
        if values and self._tell is not None:
            self._tell(values, step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Pass hyper-parameters on."""
        if self._parameters is not None:
            self._parameters(params)

    @property
    def experiment(self) -> Nothing:
        """Nothing that a program could feed by accident."""
        return Nothing()

    @property
    def name(self) -> str:
        """No name: folders are made of it."""
        return ""

    @property
    def version(self) -> str:
        """No version: folders are made of it."""
        return ""

    @property
    def save_dir(self) -> str | None:
        """Where a trainer without loggers saves."""
        return self._folder

    def __bool__(self) -> bool:
        """Be false: `if self.logger:` means a logger of the program's own."""
        return False

    def __getattr__(self, name: str) -> Callable[..., None]:
        """Take calls that other loggers understand, such as `log_image`."""
        if name.startswith("_"):
            raise AttributeError(name)
        return _ignore

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel deaf: what is told elsewhere is not told here."""
        return as_sent(self, {"_tell": None, "_parameters": None, "_folder": self._folder, "_once": MetricsOnce()})


__all__ = ["FollowingLogger", "MetricsOnce", "Nothing", "Tell"]
