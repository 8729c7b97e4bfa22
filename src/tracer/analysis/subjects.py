"""What a metric is to the rules, told by its name. Standard library only."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

import itertools

from tracer.analysis.goals import is_gradient_norm, is_loss, words

_VALIDATION = frozenset({"val", "valid", "validation", "eval", "evaluation", "test", "dev", "holdout"})
_TRAINING = frozenset({"train", "training", "trainer"})
_STEP_TIMES = frozenset({"time/step", "step_time", "time_per_step", "seconds_per_step", "time/iteration"})
_DATA_TIMES = frozenset({"time/data", "data_time", "data_loading_time", "time/data_loading"})
_GPU_MEMORY = frozenset({"memory_util", "memory_percent", "memory_utilization"})
_MEMORY_USE = frozenset({"process_rss_gb", "tree_rss_gb", "memory_allocated_gb"})
_SYSTEM = "system/"


def is_validation(metric: str) -> bool:
    """Tell whether a metric is measured on data that are not trained on.

    Example:
        >>> is_validation("val/loss"), is_validation("train/loss")
        (True, False)
    """
    return bool(_VALIDATION.intersection(words(metric)))


def is_learning_rate(metric: str) -> bool:
    """Tell whether a name is that of a learning rate.

    Example:
        >>> is_learning_rate("lr"), is_learning_rate("optim/learning_rate"), is_learning_rate("lr_loss")
        (True, True, False)
    """
    found = words(metric)
    is_rate = "lr" in found or ("learning", "rate") in itertools.pairwise(found)
    return is_rate and not is_loss(metric)


def is_step_time(metric: str) -> bool:
    """Tell whether a metric is how long a step took, in seconds."""
    return _tail(metric) in _STEP_TIMES or metric in _STEP_TIMES


def is_data_time(metric: str) -> bool:
    """Tell whether a metric is how long a step waited for its batch, in seconds."""
    return _tail(metric) in _DATA_TIMES or metric in _DATA_TIMES


def is_memory_use(metric: str) -> bool:
    """Tell whether a metric is what the process, or a GPU, holds in GB."""
    return metric.startswith(_SYSTEM) and metric.rsplit("/", 1)[-1] in _MEMORY_USE


def is_memory_share(metric: str) -> bool:
    """Tell whether a metric is how full the machine's memory, or a GPU's, is in per cent.

    Example:
        >>> is_memory_share("system/memory/percent"), is_memory_share("system/gpu/0/memory_util")
        (True, True)
    """
    parts = metric.split("/")
    if parts[0] != _SYSTEM.rstrip("/"):
        return False
    return ("gpu" in parts and parts[-1] in _GPU_MEMORY) or parts[1:] == ["memory", "percent"]


def training_of(validation: str, metrics: Iterable[str]) -> str | None:
    """Return the training loss that belongs to a validation loss.

    Args:
        validation: The name of the validation loss.
        metrics: The names of all metrics.

    Returns:
        The loss with the same words but for those of training and validation; where there is none, the only training
        loss there is; else None.

    Example:
        >>> training_of("val/cls_loss", ["train/cls_loss", "train/box_loss", "val/cls_loss"])
        'train/cls_loss'
    """
    wanted = [word for word in words(validation) if word not in _VALIDATION]
    losses = [name for name in metrics if is_loss(name) and not is_validation(name)]
    same = [name for name in losses if [word for word in words(name) if word not in _TRAINING] == wanted]
    if same:
        return same[0]
    return losses[0] if len(losses) == 1 else None


def _tail(metric: str) -> str:
    """Return a name without the part that tells training from evaluation."""
    head, _, tail = metric.partition("/")
    return tail if head in _TRAINING else metric


__all__ = [
    "is_data_time", "is_gradient_norm", "is_learning_rate", "is_loss", "is_memory_share", "is_memory_use",
    "is_step_time", "is_validation", "training_of",
]  # fmt: skip
