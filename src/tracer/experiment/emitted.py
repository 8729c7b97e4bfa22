"""What an experiment does with a metric that a router or a plugin emits."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tracer.experiment.experiments import Experiment

from tracer import events
from tracer.routing import MetricData, MetricType

_NUMBERS = frozenset({MetricType.SCALAR, MetricType.SYSTEM, MetricType.CUSTOM, MetricType.TENSOR})
_PARAMETERS = frozenset({MetricType.PARAMETER, MetricType.HPARAMS})


def record_metric(experiment: Experiment, metric: MetricData) -> None:
    """Record a metric by its type.

    Args:
        experiment: The experiment.
        metric: Numbers become metrics, parameters become parameters, text becomes an entry of the log.

    Raises:
        TypeError: The value does not fit the type.
    """
    if metric.type in _PARAMETERS:
        values = metric.value if isinstance(metric.value, dict) else {metric.name: metric.value}
        experiment.log_params(values)
    elif metric.type in _NUMBERS:
        step = experiment.iteration if metric.iteration is None else metric.iteration
        if isinstance(metric.value, (int, float)):
            experiment.run.take(events.Scalars({metric.name: metric.value}, step, metric.timestamp))
        else:  # a tensor or array: read as `log` reads it, and never waited for
            experiment.run.log({metric.name: metric.value}, step=step)
    elif metric.type is MetricType.TEXT:
        entry = events.Entry("event", str(metric.value), name=metric.name, step=metric.iteration, time=metric.timestamp)
        experiment.run.take(entry)
    elif metric.type is MetricType.ARTIFACT:
        experiment.log_file_artifact(str(metric.value), metric.name)
    else:
        message = (
            f"A metric of the type {metric.type.value} cannot be emitted as a value: {metric.name!r} is "
            f"{type(metric.value).__name__}. Write it with a SummaryWriter, which is listened to, or log an artifact."
        )
        raise TypeError(message)


__all__ = ["record_metric"]
