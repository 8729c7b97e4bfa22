"""A callback in scikit-learn's own protocol, for the estimators that support it (scikit-learn 1.9 and later).

The protocol has the callback travel with the estimator, so it is for those who want that: `tracer run` hears every
estimator and changes none.
"""

# ruff: noqa: ANN401, ARG002 -- scikit-learn decides what it hands over

from __future__ import annotations

from typing import Any

from tracer import clock, events
from tracer.capture.patching import Hook
from tracer.capture.portrayal import of_class, parameters
from tracer.capture.sklearn_fits import ORIGIN, fits
from tracer.capture.sklearn_results import attributes, tell_results
from tracer.integrations.own_run import OwnRun

#: Tasks of one fit that are told; an iterative estimator may have thousands.
_MAX_TASKS = 1_000
_hook = Hook("sklearn.callback")


class SklearnCallback:
    """Records a fit and the tasks it consists of: iterations, folds, candidates, steps of a pipeline.

    The run begins and ends with the outermost `fit`; a run that the program began itself is joined and left open.
    Beside `tracer run` it adds nothing, since that hears each fit itself.

    Args:
        project: Project of the run.
        run_name: Name of the run; made from date and host when absent.
        max_propagation_depth: How many levels of estimators inside estimators are heard; None for all.
        **kwargs: Further arguments of `tracer.init`, such as `tags` or `storage_path`.

    Example:
        >>> from sklearn.linear_model import LogisticRegression
        >>> model = LogisticRegression().set_callbacks(SklearnCallback("my-project"))
        >>> model.fit(x, y)  # doctest: +SKIP
    """

    def __init__(
        self, project: str, run_name: str | None = None, *, max_propagation_depth: int | None = None, **kwargs: Any
    ) -> None:
        self._own = OwnRun(project, run_name, kwargs)
        self._depth = max_propagation_depth
        self._tasks, self._began = 0, 0.0

    @property
    def max_propagation_depth(self) -> int | None:
        """How deep scikit-learn hands the callback down."""
        return self._depth

    def setup(self, estimator: Any, context: Any) -> None:
        """Begin the run, with the parameters of the estimator."""
        self._own.begin()
        self._tasks, self._began = 0, clock.monotonic()
        if not fits.is_on:
            with _hook:
                said = parameters({of_class(estimator): estimator.get_params(deep=False)})
                _hook.emit(events.Training(ORIGIN, parameters=said))

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Do nothing: a task is told when it has ended."""

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        """Tell of a task; returning nothing lets the fit go on."""
        self._tasks += 1
        if fits.is_on or self._tasks > _MAX_TASKS:
            return
        with _hook:
            parent = context.parent
            fields: dict[str, object] = {"class": context.estimator_name, "task": context.task_name}
            fields |= {"number": context.task_id, "elapsed": round(clock.monotonic() - self._began, 6)}
            if parent is not None:
                fields["parent"] = f"{parent.estimator_name}.{parent.task_name}"
            body = f"{context.estimator_name}: {context.task_name} {context.task_id}"
            _hook.emit(events.Entry("event", body, name="sklearn.task", fields=fields))

    def teardown(self, estimator: Any, context: Any) -> None:
        """Tell what came of the fit, and end the run."""
        if not fits.is_on:
            with _hook:
                seconds = round(clock.monotonic() - self._began, 6)
                fields = {"class": of_class(estimator), "seconds": seconds, "tasks": self._tasks}
                fields |= attributes(estimator)
                body = f"{of_class(estimator)}.fit: {seconds:.3g} s"
                _hook.emit(events.Entry("event", body, name="sklearn.fit", fields=fields))
                tell_results(_hook.emit, estimator, is_outermost=True, is_step=True)
        self._own.end()


__all__ = ["SklearnCallback"]
