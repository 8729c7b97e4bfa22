"""`Window`: the arrays that a detector looks at, from the store or from the last steps of a run under way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tracer.analysis.statistics import Steps, Values

Matrix = NDArray[np.float32] | NDArray[np.float64]

#: Subjects that are one value per step: `Window.values`.
LOSS, METRIC, NORM = "loss", "metric", "gradient_norm"
STEP_TIME, DATA_TIME, TIMES = "step_time", "data_time", "times"
MEMORY, MEMORY_USE = "memory", "memory_use"
LEARNING_RATE = "learning_rate"
#: A validation loss, with the training loss as `partners["training"]`.
PAIR = "pair"
#: Subjects that are one value per step and layer: `Window.tables`, by the names of the statistics.
GRADIENTS, WEIGHTS, UPDATES, ACTIVATIONS = "gradients", "weights", "updates", "activations"
#: One metric of all ranks: `tables["value"]`, a column per rank; `RANK_TIMES` is that of the step time.
RANKS, RANK_TIMES = "ranks", "rank_times"


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Consecutive recorded steps of one subject; a detector takes one and returns findings.

    Args:
        subject: What it is about, one of the names above.
        name: The metric; for layers the axis.
        steps: The steps, ascending.
        values: A value per step; empty where there are tables.
        layers: The names of the columns of the tables.
        tables: Statistic → matrix, a row per step, a column per layer; NaN where nothing was measured.
        times: When each value was recorded, in seconds since 1970; may be None.
        rank: Whose values they are.
        partners: Other windows that a detector of this subject compares with, by role: `training` for a validation
            loss, `gradients` for weights and updates, `step_time` for data times.
        is_last: Whether the run ended with this window, so that what lasts to its end lasts for good.

    Example:
        >>> window = Window("loss", "train/loss", np.arange(3), np.array([3.0, 2.0, 1.0]))
        >>> len(window), window.has("norm")
        (3, False)
    """

    subject: str
    name: str
    steps: Steps
    values: Values = field(default_factory=lambda: np.empty(0))
    layers: tuple[str, ...] = ()
    tables: Mapping[str, Matrix] = field(default_factory=dict)
    times: Values | None = None
    rank: int = 0
    partners: Mapping[str, Window] = field(default_factory=dict)
    is_last: bool = True

    def __len__(self) -> int:
        return len(self.steps)

    def has(self, *statistics: str) -> bool:
        """Tell whether all these statistics were measured."""
        return all(name in self.tables for name in statistics)


__all__ = [
    "ACTIVATIONS", "DATA_TIME", "GRADIENTS", "LEARNING_RATE", "LOSS", "MEMORY", "MEMORY_USE", "METRIC", "NORM", "PAIR",
    "RANKS", "RANK_TIMES", "STEP_TIME", "TIMES", "UPDATES", "WEIGHTS", "Matrix", "Window",
]  # fmt: skip
