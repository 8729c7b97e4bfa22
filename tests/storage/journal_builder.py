"""Builds run folders and journals byte by byte, so that storage is tested without the recorder."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tracer import clock, journal, runfile

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class Matrix(Protocol):
    """What of an array is needed to write it as float32."""

    def astype(self, dtype: str, /) -> Matrix:
        """Return it in another type."""

    def tobytes(self) -> bytes:
        """Return its bytes."""


class JournalBuilder:
    """One writer of a run: a chain of segments whose bytes are under the test's control."""

    def __init__(
        self, folder: Path, *, rank: int = 0, role: str = "main", boot: str | None = None, number: int = 0
    ) -> None:
        self.folder = Path(folder) / "journal"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.writer = os.urandom(16)
        self.identity = {
            "run": "", "folder": Path(folder).name, "host": os.uname().nodename, "pid": os.getpid(),
            "process_started": clock.process_started(), "boot": boot or clock.boot_id(), "rank": rank, "role": role,
            "attempt": 1, "opened": clock.now_us(), "mode": "mapped",
        }  # fmt: skip
        self.number, self.generation = number, 1
        self._blocks = 0
        self._begin()

    @property
    def path(self) -> Path:
        """The segment that is being filled."""
        return self.folder / journal.segment_name(self.writer, self.number)

    @property
    def seal_path(self) -> Path:
        """The writer's seals."""
        return self.folder / journal.seal_name(self.writer)

    def row(self, values: Mapping[str, float], step: int, time: float = 1.7e9) -> int:
        """Append a row; return its offset."""
        keys = tuple(values)
        if keys not in self.schemas:
            self.schemas[keys] = journal.FIRST_ROW_SCHEMA + len(self.schemas)
            self.record(journal.Kind.SCHEMA, journal.schema_payload(self.schemas[keys], keys))
        payload = struct.pack(f"<{len(keys)}d", *values.values())
        return self.record(self.schemas[keys], payload, step, time)

    def rows(
        self, keys: Sequence[str], steps: npt.ArrayLike, times: npt.ArrayLike, values: npt.NDArray[np.floating[Any]]
    ) -> None:
        """Append many rows of one schema at once; `values` is rows by keys."""
        import numpy as np

        names = tuple(keys)
        if names not in self.schemas:
            self.schemas[names] = journal.FIRST_ROW_SCHEMA + len(self.schemas)
            self.record(journal.Kind.SCHEMA, journal.schema_payload(self.schemas[names], names))
        count, width = np.asarray(values).shape
        kind = np.dtype(
            [("length", "<u4"), ("schema", "<u4"), ("step", "<i8"), ("time", "<f8"), ("values", "<f8", (width,)),
             ("sequence", "<u4"), ("commit", "<u4")]
        )  # fmt: skip
        table = np.zeros(count, kind)
        sequence = (np.arange(self.sequence, self.sequence + count) & 0xFFFFFFFF).astype(np.uint32)
        table["length"], table["schema"], table["step"], table["time"] = (
            kind.itemsize,
            self.schemas[names],
            steps,
            times,
        )
        table["values"] = values
        table["sequence"], table["commit"] = sequence, sequence ^ np.uint32(journal.commit_key(self.generation))
        self.data += table.tobytes()
        self.sequence += count

    def record(self, kind: int, payload: bytes | Mapping[str, object], step: int = 0, time: float = 1.7e9) -> int:
        """Append any record; return its offset."""
        offset = len(self.data)
        text = payload if isinstance(payload, bytes) else journal.json_payload(payload)
        self.data += journal.record_bytes(kind, text, step, time, self.sequence, journal.commit_key(self.generation))
        self.sequence += 1
        return offset

    def layers(
        self, what: str, names: Sequence[str], statistics: Sequence[str], matrix: Matrix, step: int, time: float = 1.7e9
    ) -> None:
        """Append layer values, their axis before its first use."""
        key = (what, tuple(names), tuple(statistics))
        if key not in self.axes:
            self.axes[key] = len(self.axes)
            self.record(journal.Kind.AXIS, journal.axis_payload(self.axes[key], what, names, statistics, ()))
        self.record(
            journal.Kind.LAYERS, journal.layers_payload(self.axes[key], matrix.astype("<f4").tobytes()), step, time
        )

    def histograms(
        self, what: str, names: Sequence[str], lowest: int, counts: npt.NDArray[Any], step: int, time: float = 1.7e9
    ) -> None:
        """Append histograms, signs by layers by bins, their axis before its first use."""
        key = (what, tuple(names), ())
        if key not in self.axes:
            self.axes[key] = len(self.axes)
            self.record(journal.Kind.AXIS, journal.axis_payload(self.axes[key], what, names, (), ()))
        table = counts.astype("<u4")
        payload = journal.histogram_payload(self.axes[key], lowest, table.shape[2], table.tobytes())
        self.record(journal.Kind.HISTOGRAM, payload, step, time)

    def seal(self) -> None:
        """Vouch for what was appended since the last seal."""
        start, stop = self.sealed, len(self.data)
        if start == stop:
            return
        self._blocks += 1
        crc = zlib.crc32(self.data[start:stop])
        block = journal.Block(self.writer, self.number, self.generation, self._blocks, start, stop - start, crc)
        with self.seal_path.open("ab") as file:
            file.write(block.pack())
        self.sealed = stop

    def write(self, *, closed: bool = False, room: int = 0, steps: int = 0) -> Path:
        """Write the segment as it is; `room` is preallocated space behind its records."""
        head = bytearray(self.data[: journal.HEADER_SIZE])
        journal.stamp(head, closed=closed, end=len(self.data) if closed else 0, steps=steps)
        self.data[: journal.HEADER_SIZE] = head
        self.path.write_bytes(bytes(self.data) + bytes(room))
        return self.path

    def next_segment(self) -> None:
        """Close this segment and begin the next one."""
        self.write(closed=True)
        self.number += 1
        self._begin()

    def _begin(self) -> None:
        """Begin an empty segment."""
        size = 0 if self.identity["role"] == "command" else 1 << 24
        header = journal.Header(self.writer, self.number, self.generation, size, self.identity)
        self.data = bytearray(header.pack())
        self.sequence = 0
        self.sealed = journal.HEADER_SIZE
        self.schemas: dict[tuple[str, ...], int] = {}
        self.axes: dict[tuple[Any, ...], int] = {}


def make_store(path: Path) -> Path:
    """Make an empty store."""
    runfile.prepare_store(str(path))
    return path


def make_run(store: Path, uid: str = "run-1", **facts: object) -> Path:
    """Make the folder of a run that is finished unless the facts say otherwise."""
    folder = store / "runs" / runfile.folder_name(uid)
    folder.mkdir(parents=True)
    said = {
        "format": 1, "id": uid, "project": "demo", "name": uid, "status": "completed", "reason": None,
        "started": 1_700_000_000_000_000, "ended": 1_700_000_100_000_000, "steps": 10, "checkpoints": 0, "config": {},
        "settings": {}, "tags": [], "notes": None, "group": None, "job_type": None, "attempt": 1, "world_size": 1,
        "host": os.uname().nodename, "user": "me", "pid": os.getpid(), "process_started": clock.process_started(),
        "boot": clock.boot_id(), "environment": {}, "git": {}, "goals": {}, "units": {}, "cost": {}, "counters": {},
        "expires": None, "exit_code": 0, **facts,
    }  # fmt: skip
    runfile.replace(str(folder), said)
    return folder
