"""What the store answers with: frozen values, plain enough for `dataclasses.asdict` and `json.dumps`.

Every time is a whole number of microseconds since 1970 UTC. Arrays are numpy's; the modules that fill them import
numpy when they are called, this one does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tracer import clock, events

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Integers = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]
    SmallFloats = npt.NDArray[np.float32]

_US = 1_000_000


@dataclass(frozen=True, slots=True)
class RunRow:
    """One run, as a table shows it."""

    uid: str
    folder: str
    project: str
    name: str
    status: str
    reason: str | None
    started: int
    ended: int | None
    heartbeat: int | None
    steps: int
    checkpoints: int
    points: int
    group: str | None
    job_type: str | None
    notes: str | None
    tags: tuple[str, ...]
    config: Mapping[str, object]
    settings: Mapping[str, object]
    environment: Mapping[str, object]
    git: Mapping[str, object]
    host: str | None
    user: str | None
    world_size: int
    attempt: int
    bytes: int
    cost: Mapping[str, object]
    counters: Mapping[str, int]
    lost: int
    expires: int | None
    trashed: int | None
    exit_code: int | None = None
    goals: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    summary: Mapping[str, object] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_live(self) -> bool:
        """Tell whether the run's process still records."""
        return self.status == events.RUNNING

    @property
    def duration_s(self) -> float:
        """Return how long the run took, or takes so far."""
        end = self.ended
        if end is None:
            end = clock.now_us() if self.is_live else (self.heartbeat or self.started)
        return max(0, end - self.started) / _US


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """The summary of one metric of one rank; `min`, `max` and `mean` are over its finite values."""

    metric: str
    rank: int
    n: int
    first_step: int | None
    last_step: int | None
    last: float | None
    last_time: int | None
    min: float | None
    max: float | None
    mean: float | None
    nan: int
    inf: int
    unit: str | None = None
    goal: str | None = None
    is_text: bool = False


@dataclass(frozen=True, slots=True)
class FindingRow:
    """One anomaly that was found, with its evidence."""

    id: str
    run: str
    rank: int
    step: int
    last_step: int | None
    kind: str
    severity: str
    details: Mapping[str, object]
    source: str
    detected: int


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """What was current at a checkpoint: the last values, the system's figures, the file of samples."""

    step: int
    time: int
    metrics: Mapping[str, object]
    system: Mapping[str, object] | None
    samples: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Every kept value of one metric, sorted by step, one value per step."""

    metric: str
    rank: int
    step: Integers
    time: Integers
    value: Floats

    def __len__(self) -> int:
        return len(self.step)


@dataclass(frozen=True, slots=True, eq=False)
class Buckets:
    """A series in at most so many buckets; `min`, `max` and `mean` are NaN where a bucket has no finite value.

    `n` counts all values of a bucket, `nan` those of them that are not finite.
    """

    first_step: Integers
    last_step: Integers
    n: Integers
    nan: Integers
    min: Floats
    max: Floats
    mean: Floats

    def __len__(self) -> int:
        return len(self.n)


@dataclass(frozen=True, slots=True, eq=False)
class LayerMatrix:
    """One statistic of all layers over time: a row per step, a column per layer, NaN where nothing was measured."""

    statistic: str
    axis: str
    steps: Integers
    times: Integers
    layers: tuple[str, ...]
    values: SmallFloats


@dataclass(frozen=True, slots=True, eq=False)
class LayerOverview:
    """One statistic of all layers in buckets of steps: a row per layer, a column per bucket.

    `n` counts values, `bad` those of them that are NaN or infinite; `min`, `max` and `mean` are over the others, and
    NaN where there are none.
    """

    statistic: str
    axis: str
    rank: int
    layers: tuple[str, ...]
    first_step: Integers
    last_step: Integers
    n: Integers
    bad: Integers
    min: SmallFloats
    max: SmallFloats
    mean: SmallFloats


@dataclass(frozen=True, slots=True)
class LayerAxis:
    """What was measured of layers: `gradients`, `weights`, …, with its statistics, and the layers in model's order."""

    axis: str
    statistics: tuple[str, ...]
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class LayerHistograms:
    """The histograms of one layer: a row per step, a column per power of two from 2**lowest on, for either sign."""

    layer: str
    axis: str
    rank: int
    steps: Integers
    times: Integers
    lowest: int
    negative: Integers
    positive: Integers


@dataclass(frozen=True, slots=True)
class Table:
    """The answer to a question in SQL; `complete` is false when a limit cut it."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Update:
    """What a followed run recorded since the update before; `position` resumes after it."""

    position: str
    values: tuple[tuple[str, int, int, int, object], ...]
    """Metric, rank, step, time and value, in the order of the journal."""


@dataclass(frozen=True, slots=True)
class Expired:
    """A run whose time is up, or that is older than asked for; `applied` tells whether it went to the trash."""

    run: RunRow
    because: str
    bytes: int
    applied: bool


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export wrote."""

    path: str
    format: str
    runs: int
    points: int
    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class RebuildReport:
    """What a rebuild of the catalog found in the folders."""

    runs: int
    segments: int
    points: int
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in the store: where, what, and whether it was mended."""

    path: str
    fact: str
    remedy: str
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check of the store read and found."""

    runs: int
    files: int
    bytes: int
    problems: tuple[Problem, ...] = ()
    lost: int = 0

    @property
    def is_clean(self) -> bool:
        """Tell whether nothing is left to mend."""
        return all(problem.repaired for problem in self.problems)


__all__ = [
    "Buckets",
    "CheckReport",
    "CheckpointRow",
    "Expired",
    "ExportReport",
    "FindingRow",
    "LayerAxis",
    "LayerHistograms",
    "LayerMatrix",
    "LayerOverview",
    "Problem",
    "RebuildReport",
    "RunRow",
    "Series",
    "SeriesRow",
    "Table",
    "Update",
]
