"""Read runs out of W&B's own files: offline runs, and the local copies that online runs leave.

Needs no client of W&B. The files are taken for hostile: sizes, depths and counts are limited, checksums are checked,
and a path that stands in them is opened only inside the run's folder, or where size and MD5 fit what the file says.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import ClassVar

from tracer.backends import wandb_facts as facts
from tracer.backends import wandb_records as records
from tracer.backends.base import Source
from tracer.backends.wandb_folders import log_files
from tracer.backends.wandb_lines import LINES, read_lines
from tracer.backends.wandb_log import NotALog, RecordLog
from tracer.backends.wandb_media import files_of, media_of
from tracer.backends.wandb_series import numbers, system
from tracer.errors import ConfigError
from tracer.transfer import Event, RunInfo, Text


class WandbSource(Source):
    """The runs below a folder, or of one `.wandb` file.

    Args:
        uri: A `.wandb` file, a run's folder, a `wandb/` folder or one that holds it; empty means this folder. `#` and
            an id behind a folder means one run.
        options: `system` false leaves the machine's figures out, `files_only` everything but artifacts.
    """

    name: ClassVar[str] = "wandb"

    def __init__(self, uri: str, options: Mapping[str, object] | None = None) -> None:
        super().__init__(uri, options)
        self._known: dict[str, facts.Known] = {}

    def runs(self) -> Iterator[RunInfo]:
        """Yield the runs, those that were resumed in several files as one.

        Raises:
            ConfigError: There is nothing of W&B's there.
        """
        place, _, run_id = (self.uri, "", "") if os.path.exists(self.uri) else self.uri.partition("#")
        paths = log_files(os.path.abspath(place or "."), run_id or None)
        if not paths:
            message = f"{self.uri or '.'!r} holds no .wandb file. Name a run's folder, or the wandb folder."
            raise ConfigError(message)
        parts: dict[str, list[tuple[str, facts.Known]]] = {}
        for path in paths:
            known = self._facts(path)
            if known is not None:
                parts.setdefault(known.origin(), []).append((path, known))
        if not parts and os.path.isfile(self.uri):
            message = f"{self.uri!r} is no .wandb file, or holds no run."
            raise ConfigError(message)
        for origin, found in parts.items():
            whole = facts.merged([known for _, known in found], [path for path, _ in found])
            self._known[origin] = whole
            yield whole.info(origin)

    def events(self, run: RunInfo) -> Iterator[Event]:
        """Yield what happened in a run that `runs` told of."""
        known = self._known[run.origin]
        if not self.options.get("files_only"):
            yield from self._happened(run, known)
        seen: set[str] = set()
        for path in known.paths:
            for number, data in self._records(path):
                if number == records.ARTIFACT:
                    yield from files_of(data, seen, self.notes)

    def _happened(self, run: RunInfo, known: facts.Known) -> Iterator[Event]:
        """Yield everything but artifacts."""
        if known.step_metrics:
            shown = ", ".join(sorted(known.step_metrics)[:5])
            self.notes.append(f"{run.origin}: charts there run over {shown}; W&B's own step is kept.")
        yield from numbers(lambda: self._rows(known), known)
        if self.options.get("system", True):
            yield from system(known.paths, self._records)
        if known.has_texts:
            yield from self._texts(known)
        last = known.started or 0
        for path in known.line_files:
            yield from read_lines(path, last)
        for folder, row in self._rows(known) if known.has_media else ():
            yield from media_of(folder, row, known, self.notes)

    def _facts(self, path: str) -> facts.Known | None:
        """Return what one file says of its run; none where it says nothing."""
        known = facts.Known(paths=[path])
        try:
            with RecordLog(path) as log:
                for record in log.read():
                    try:
                        facts.learn(known, *records.kind_of(record))
                    except (records.Malformed, RecursionError):
                        known.malformed += 1
                self._report(path, log, known.malformed)
        except NotALog as error:
            self.notes.append(f"{os.path.basename(path)}: {error}")
            return None
        except OSError as error:
            self.notes.append(f"{os.path.basename(path)} cannot be read: {error.strerror}.")
            return None
        if not known.run_id:
            self.notes.append(f"{os.path.basename(path)} names no run; it was left out.")
            return None
        folder = os.path.join(os.path.dirname(path), "files")
        lines = os.path.join(folder, LINES)
        if os.path.isfile(lines) and not os.path.islink(lines):
            known.line_files.append(lines)
        facts.learn_metadata(known, folder)
        return known

    def _report(self, path: str, log: RecordLog, malformed: int) -> None:
        """Note what of a file could not be read."""
        name = os.path.basename(path)
        if log.damaged:
            self.notes.append(f"{name}: {log.damaged} damaged places were skipped; what stood there is missing.")
        if log.torn:
            self.notes.append(f"{name} ends within a record, as after a crash; everything before it was read.")
        if malformed:
            self.notes.append(f"{name}: {malformed} records are no messages of W&B's; they were skipped.")

    @staticmethod
    def _records(path: str) -> Iterator[tuple[int, bytes]]:
        """Yield kind and message of each record that is of use."""
        with contextlib.suppress(OSError, NotALog), RecordLog(path) as log:
            for record in log.read():
                with contextlib.suppress(records.Malformed):
                    number, data = records.kind_of(record)
                    if number:
                        yield number, data

    def _rows(self, known: facts.Known) -> Iterator[tuple[str, records.Row]]:
        """Yield the rows of a run, each with the folder of its files."""
        for path in known.paths:
            folder = os.path.join(os.path.dirname(path), "files")
            for number, data in self._records(path):
                if number == records.HISTORY:
                    with contextlib.suppress(records.Malformed, RecursionError):
                        yield folder, records.history(data)

    def _texts(self, known: facts.Known) -> Iterator[Event]:
        """Yield what was logged as text."""
        for _, row in self._rows(known):
            if not any(value.startswith('"') for value in row.values.values()):
                continue
            at = known.place(row)
            for name, told in row.values.items():
                if told.startswith('"') and not name.startswith("_"):
                    body = records.parsed(told)
                    if isinstance(body, str):
                        yield Text(known.original(name, at.rank), at.step, at.time, body, at.rank)


__all__ = ["WandbSource"]
