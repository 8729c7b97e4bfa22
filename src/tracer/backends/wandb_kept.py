"""What W&B already has of a run, told by its own files: so that a batch may come twice, and a crash doubles nothing."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable
from typing import Any

from tracer.backends import wandb_records as records
from tracer.backends.base import Unreachable
from tracer.backends.wandb_folders import log_files
from tracer.backends.wandb_lines import LINES, line_text
from tracer.backends.wandb_log import NotALog, RecordLog
from tracer.transfer import LogLine

_MOST_KEYS = 1_000_000
_MOST_LINES = 100_000
_PATIENCE_S = 20.0
_PAUSE_S = 0.004


class Kept:
    """Rows, artifacts and lines of one run that W&B's files in a folder hold.

    Args:
        folder: The folder that holds `wandb/`.
        run_id: W&B's id of the run.
    """

    def __init__(self, folder: str, run_id: str) -> None:
        #: The digests of keys, oldest first: a key is a metric's name, step, time and value.
        self._keys: dict[int, None] = {}
        self._files: set[tuple[str, str]] = set()
        self._lines: dict[int, None] = {}
        self._log: RecordLog | None = None
        self._seen = -1
        self._own_files: set[tuple[str, str]] = set()
        self._before: str | None = None
        self._stream: Any = None
        self.next_step = 0
        for path in log_files(os.path.join(folder, "wandb"), run_id):
            with contextlib.suppress(OSError, NotALog), RecordLog(path) as log:
                self._learn(log)
            output = os.path.join(os.path.dirname(path), "files", LINES)
            if os.path.isfile(output):
                self._before = output
        self._own_files.clear()
        self.next_step = self._seen + 1
        if self._before:
            with open(self._before, encoding="utf-8", errors="replace") as file:
                for line in file:
                    self._remember(self._lines, line.rstrip("\n"), _MOST_LINES)

    def follow(self, path: str, next_step: int) -> None:
        """Watch the file of the run that was started now."""
        self.next_step, self._path = next_step, path

    def is_new(self, key: tuple[object, ...]) -> bool:
        """Tell whether W&B does not have a value yet."""
        return hash(key) not in self._keys

    def is_new_file(self, name: str, version: str) -> bool:
        """Tell whether W&B does not have this version of an artifact yet."""
        return (name, version) not in self._files

    def add(self, keys: Iterable[tuple[object, ...]]) -> None:
        """Note that a row was logged."""
        for key in keys:
            self._remember(self._keys, key, _MOST_KEYS)
        self.next_step += 1

    def add_file(self, name: str, version: str) -> None:
        """Note that an artifact was logged."""
        self._files.add((name, version))
        self._own_files.add((name, version))

    def line(self, run: Any, event: LogLine) -> None:  # noqa: ANN401 -- their class
        """Append a line to the run's `output.log`, which W&B shows and uploads."""
        told = line_text(event)
        if hash(told) in self._lines:
            return
        if self._stream is None:
            self._stream = _output(run, self._before)
        self._stream.write(told + "\n")
        self._remember(self._lines, told, _MOST_LINES)

    def wait(self) -> None:
        """Return when the run's file holds all that was logged.

        Raises:
            Unreachable: W&B's process does not write.
        """
        if self._stream is not None:
            self._stream.flush()
        until = time.monotonic() + _PATIENCE_S
        missing = self._missing()
        while missing:
            if time.monotonic() > until:
                message = f"W&B's process has not written the run's file for {_PATIENCE_S:g} s. Is the disk full?"
                raise Unreachable(message)
            time.sleep(_PAUSE_S)
            missing = self._missing()

    def close(self) -> None:
        """Close the files."""
        for one in (self._log, self._stream):
            if one is not None:
                one.close()
        self._log = self._stream = None

    def _missing(self) -> bool:
        """Read on in the run's file; tell whether something is not there yet."""
        if self._seen >= self.next_step - 1 and not self._own_files:
            return False
        if self._log is None:
            if not os.path.isfile(self._path):
                return True
            self._log = RecordLog(self._path)
        for record in self._log.read():
            number, data = records.kind_of(record)
            if number == records.HISTORY:
                self._seen = max(self._seen, _step(data))
            elif number == records.ARTIFACT:
                self._own_files.discard(_artifact(data))
        return self._seen < self.next_step - 1 or bool(self._own_files)

    def _learn(self, log: RecordLog) -> None:
        """Take in what an earlier file of the run holds."""
        for record in log.read():
            with contextlib.suppress(records.Malformed):
                number, data = records.kind_of(record)
                if number == records.HISTORY:
                    row = records.history(data)
                    self._seen = max(self._seen, row.step)
                    for key in _keys(row):
                        self._remember(self._keys, key, _MOST_KEYS)
                elif number == records.ARTIFACT:
                    self._files.add(_artifact(data))

    @staticmethod
    def _remember(into: dict[int, None], key: object, most: int) -> None:
        """Keep a digest; the oldest makes room."""
        into[hash(key)] = None
        if len(into) > most:
            del into[next(iter(into))]


def _step(data: bytes) -> int:
    """Return W&B's own step of a history record."""
    for number, _, value in records.fields(data):
        if number == 2:  # noqa: PLR2004 -- as the schema counts
            for inner, _, step in records.fields(records.message(value)):
                if inner == 1:
                    return records.signed(step)
            return 0
    return -1


def _keys(row: records.Row) -> Iterable[tuple[object, ...]]:
    """Yield the keys of a row, as `number_rows` makes them."""
    try:
        step, moment = int(row.values.pop("tracer_step")), round(float(row.values.pop("_timestamp")) * 1e6)
    except (KeyError, ValueError, OverflowError):
        return
    for name, told in row.values.items():
        try:
            yield name, step, moment, float(told).hex()
        except ValueError:
            yield name, step, moment, None


def _artifact(data: bytes) -> tuple[str, str]:
    """Return name and version of an artifact of ours; empty ones for another's."""
    for number, _, value in records.fields(data):
        if number == 8:  # noqa: PLR2004 -- as the schema counts
            with contextlib.suppress(ValueError, RecursionError):
                metadata = json.loads(records.text(value))
                own = metadata.get("tracer") if isinstance(metadata, dict) else None
                if isinstance(own, dict):
                    return str(own.get("name")), str(own.get("version"))
    return "", ""


def _output(run: Any, before: str | None) -> Any:  # noqa: ANN401 -- their class
    """Open `output.log` of a run; what an earlier part of it said comes first, for the last file is the one kept."""
    os.makedirs(run.dir, exist_ok=True)
    path = os.path.join(run.dir, LINES)
    with open(path, "ab") as file:
        if before is not None and file.tell() == 0 and os.path.abspath(before) != os.path.abspath(path):
            with open(before, "rb") as old:
                while piece := old.read(1 << 20):
                    file.write(piece)
    run.save(path, base_path=run.dir, policy="live", glob=False)
    return open(path, "a", encoding="utf-8")


__all__ = ["Kept"]
