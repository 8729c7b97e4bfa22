"""The vocabulary: what can be recorded, and what is counted when it could not be.

Producers make one of these values and hand it to `sink.emit`; they never see a run or a file.
Loaded by `import tracer`, so: slotted classes, no dataclasses, no typing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Buffer

#: The states a run can be in; there is no fifth.
RUNNING, COMPLETED, FAILED, CRASHED = "running", "completed", "failed", "crashed"
STATUSES = (RUNNING, COMPLETED, FAILED, CRASHED)

#: The statistics of one tensor, in the order in which they are stored.
TENSOR_STATISTICS = ("norm", "mean", "std", "max", "min", "zeros", "nans", "infs")

#: The Tracer documents' names for the last three; `StorageBackend` and `GradientHook` speak them.
DOCUMENTED_STATISTICS = ("norm", "mean", "std", "max", "min", "num_zeros", "num_nans", "num_infs")

#: What is counted when it goes wrong: name → what the reader of a summary is told.
COUNTERS = {
    "records_lost": "records that could not be kept",
    "records_in_memory": "records held in memory because the disk does not take them",
    "segments_late": "journal segments that were not ready when needed",
    "sync_failures": "syncs that the disk refused",
    "blocks_bad": "journal blocks that failed their check",
    "bytes_set_aside": "bytes set aside because they failed a check",
    "device_values_lost": "values that never arrived from the device",
    "internal_errors": "errors inside Tracer that were kept from the program",
}


#: Counted for `run.json` and `tracer doctor`; nothing was lost, so the summary does not speak of it.
HARMLESS = frozenset({"segments_late"})

#: What is recorded beside what the program logs: the machine, and what recording itself cost.
BESIDE = ("system/", "tracer/")


#: Who says what an event tells: the program itself, or the framework that was listened to.
USER = "user"


class Scalars:
    """Values of metrics at one step; without a step it is the run's own counter.

    `BEGINS`, here and below: whether such an event is reason enough to begin a run where capture waits for the first.
    """

    __slots__ = ("origin", "step", "time", "values")
    BEGINS = True

    def __init__(
        self, values: Mapping[str, object], step: int | None = None, time: float | None = None, origin: str = USER
    ) -> None:
        self.values, self.step, self.time, self.origin = values, step, time, origin

    def __eq__(self, other: object) -> bool:
        """Compare by value, for tests."""
        return isinstance(other, Scalars) and (self.values, self.step) == (other.values, other.step)

    def __hash__(self) -> int:
        """Hash by the names that were logged."""
        return hash((tuple(self.values), self.step))

    def __repr__(self) -> str:
        """Show what would rebuild it."""
        return f"Scalars({dict(self.values)!r}, step={self.step!r})"


class Axis:
    """The layers of one family of statistics, in order; declared once, then referred to."""

    __slots__ = ("layers", "shapes", "statistics", "what")

    def __init__(
        self, what: str, layers: Sequence[str], statistics: Sequence[str], shapes: Sequence[Sequence[int]] = ()
    ) -> None:
        self.what, self.layers, self.statistics = what, tuple(layers), tuple(statistics)
        self.shapes = tuple(tuple(shape) for shape in shapes)


class LayerValues:
    """One statistic per row, one layer per column, as float32 bytes in row order."""

    __slots__ = ("axis", "matrix", "step", "time")

    def __init__(self, axis: Axis, matrix: Buffer, step: int | None = None, time: float | None = None) -> None:
        self.axis, self.matrix, self.step, self.time = axis, matrix, step, time


class Histograms:
    """How many values of each layer fall between two powers of two; exact, and sums of them are histograms again.

    Bin `k` of `counts` holds the magnitudes from 2**(lowest + k) up to, not including, the next power; zeros and values
    that are not finite are counted in the statistics. One row of 32-bit counts per sign (negative first) and layer.
    """

    __slots__ = ("axis", "bins", "counts", "lowest", "step", "time")

    def __init__(
        self, axis: Axis, lowest: int, bins: int, counts: Buffer, step: int | None = None, time: float | None = None
    ) -> None:
        self.axis, self.lowest, self.bins, self.counts, self.step, self.time = axis, lowest, bins, counts, step, time


class Metadata:
    """A change to what is known of a run: config, tags, notes, name, environment; merged as JSON."""

    __slots__ = ("changes",)

    def __init__(self, changes: Mapping[str, object]) -> None:
        self.changes = changes


class Checkpoint:
    """A marker: the values, system figures and samples that were current at a step."""

    __slots__ = ("samples", "step", "system", "time", "values")

    def __init__(
        self,
        step: int,
        values: Mapping[str, object],
        system: Mapping[str, object] | None = None,
        samples: str | None = None,
        time: float | None = None,
    ) -> None:
        self.step, self.values, self.system, self.samples, self.time = step, values, system, samples, time


class Samples:
    """Rows of a batch that the user chose to keep: inputs, targets, predictions, loss per sample."""

    __slots__ = ("columns", "count", "step")

    def __init__(self, step: int, count: int, columns: Mapping[str, Sequence[object]]) -> None:
        self.step, self.count, self.columns = step, count, columns


class Finding:
    """An anomaly with its evidence."""

    __slots__ = ("details", "kind", "last_step", "severity", "step")

    def __init__(
        self, kind: str, severity: str, step: int, details: Mapping[str, object], last_step: int | None = None
    ) -> None:
        self.kind, self.severity, self.step, self.details, self.last_step = kind, severity, step, details, last_step


#: What media can be: the first row is shown as it is, the second is data about curves, models and points.
MEDIA = (
    "image", "video", "audio", "text", "html", "table",
    "histogram", "pr_curve", "tensor", "mesh", "graph", "layout", "embedding",
)  # fmt: skip


class Media:
    """Something to look at or to listen to, at one step: encoded bytes as they came, or a small JSON object.

    `data` is kept once per content, as a file of the run named by its digest; `fields` holds what is small: the buckets
    of a histogram, the sample rate of a sound, the size of a picture.
    """

    __slots__ = ("caption", "data", "fields", "kind", "name", "origin", "step", "suffix", "time")
    BEGINS = True

    def __init__(  # noqa: PLR0913 -- a record has as many fields as it has
        self,
        name: str,
        kind: str,
        *,
        data: bytes | None = None,
        suffix: str = "",
        step: int | None = None,
        time: float | None = None,
        caption: str | None = None,
        fields: Mapping[str, object] | None = None,
        origin: str = USER,
    ) -> None:
        self.name, self.kind, self.data, self.suffix = name, kind, data, suffix
        self.step, self.time, self.caption, self.fields, self.origin = step, time, caption, fields or {}, origin


class Entry:
    """Something with a time and a body: a line of output, a log record, an event with a name."""

    __slots__ = ("body", "fields", "kind", "level", "name", "step", "time")
    BEGINS = False

    def __init__(
        self,
        kind: str,
        body: str | None = None,
        *,
        name: str | None = None,
        level: str | None = None,
        fields: Mapping[str, object] | None = None,
        step: int | None = None,
        time: float | None = None,
    ) -> None:
        self.kind, self.body, self.name, self.level = kind, body, name, level  # kind: `line`, `log` or `event`
        self.fields, self.step, self.time = fields, step, time


class Parameters:
    """Hyper-parameters that a framework or a parser knows; what the program itself said of the same name wins."""

    __slots__ = ("origin", "values")
    BEGINS = False

    def __init__(self, values: Mapping[str, object], origin: str) -> None:
        self.values, self.origin = values, origin


class Artifact:
    """A file or folder that the program wrote and that belongs to the run: a checkpoint, a model, a report."""

    __slots__ = ("aliases", "metadata", "name", "origin", "path", "step", "type")
    BEGINS = True

    def __init__(
        self,
        path: str,
        *,
        name: str,
        type: str = "file",  # noqa: A002 -- what users call it
        step: int | None = None,
        metadata: Mapping[str, object] | None = None,
        aliases: Sequence[str] = (),
        origin: str = USER,
    ) -> None:
        self.path, self.name, self.type, self.step = path, name, type, step
        self.metadata, self.aliases, self.origin = metadata or {}, tuple(aliases), origin


class Training:
    """A training that a framework begins, or continues at a step: its model is watched from now on."""

    __slots__ = ("model", "optimizer", "origin", "parameters", "step")
    BEGINS = True

    def __init__(
        self,
        origin: str,
        model: object = None,
        optimizer: object = None,
        *,
        parameters: Mapping[str, object] | None = None,
        step: int = 0,
    ) -> None:
        self.origin, self.model, self.optimizer = origin, model, optimizer
        self.parameters, self.step = parameters or {}, step


class Steps:
    """How far a framework's training is: the run's own counter follows."""

    __slots__ = ("origin", "step")
    BEGINS = False

    def __init__(self, step: int, origin: str) -> None:
        self.step, self.origin = step, origin


class Counters:
    """How often each kind of trouble happened; one table for summary, doctor and dashboard."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts = dict.fromkeys(COUNTERS, 0)

    def add(self, name: str, amount: int = 1) -> None:
        """Count some more of what `COUNTERS` names."""
        self._counts[name] += amount

    def set(self, name: str, amount: int) -> None:
        """Replace a count that describes the present, such as records held in memory."""
        self._counts[name] = amount

    def nonzero(self) -> dict[str, int]:
        """Return only what happened."""
        return {name: count for name, count in self._counts.items() if count}
