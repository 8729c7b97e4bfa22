"""A callback for `fit` and `evaluate` of Keras 3, whatever its backend."""

# ruff: noqa: ANN401 -- Keras decides what it hands over

from __future__ import annotations

from typing import Any

from tracer.capture.keras import KerasListener
from tracer.capture.patching import Hook
from tracer.integrations.own_run import OwnRun
from tracer.plugins import needs

with needs("keras", extra="", purpose="KerasCallback"):
    from keras.callbacks import Callback  # type: ignore[import-untyped]  # Keras ships no types


class KerasCallback(KerasListener, Callback):  # type: ignore[misc]  # which is anything
    """Records what Keras trains: every batch, every epoch with its validation, and the parameters.

    The run begins and ends with `fit()`; a run that the program began itself is joined and left open. An `evaluate()`
    that is given the callback goes to the same run. Beside `tracer run` it changes nothing: each value is kept once.

    Args:
        project: Project of the run.
        run_name: Name of the run; made from date and host when absent.
        **kwargs: Further arguments of `tracer.init`, such as `tags` or `storage_path`.

    Raises:
        MissingDependency: Keras is not installed.

    Example:
        >>> model.fit(x, y, epochs=3, callbacks=[KerasCallback(project="my-project")])  # doctest: +SKIP
    """

    hook = Hook("keras.callback")

    def __init__(self, project: str, run_name: str | None = None, **kwargs: Any) -> None:
        super().__init__()
        self._own = OwnRun(project, run_name, kwargs)

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin the run."""
        self._own.begin()
        super().on_train_begin(logs)

    def on_train_end(self, logs: Any = None) -> None:
        """Finish the run."""
        super().on_train_end(logs)
        self._own.end()

    def on_test_end(self, logs: Any = None) -> None:
        """Record an evaluation."""
        with self._own.reopened():
            super().on_test_end(logs)


__all__ = ["KerasCallback"]
