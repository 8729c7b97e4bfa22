"""Runs out of TensorBoard's event files: a folder that holds some is a run, and what belongs to it is one with it.

`SummaryWriter.add_scalars("loss", {"train": …})` writes the folder `loss_train` with the one tag `loss`, and
`add_hparams` a folder that is named after the moment. Both are parts of the run in the folder above.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from dataclasses import replace as changed
from typing import ClassVar

from tracer import events
from tracer.backends.base import Source
from tracer.backends.tensorboard_files import LogFolder, event_files
from tracer.transfer import Event, Histogram, Media, Points, RunInfo, Text

_MICROSECONDS = 1_000_000
_MOMENT = re.compile(r"\d{9,11}(\.\d+)?")
_RANK = re.compile(r"rank(\d{1,4})/(.+)", re.DOTALL)
_DEEPEST, _LAST_STEP = 64, 2**63 - 2


@dataclass(slots=True)
class _Found:
    """A run: its folder, and the folders above which others' series stand with the name they get."""

    folder: str
    main: LogFolder
    several: list[tuple[str, LogFolder]] = field(default_factory=list)
    sessions: list[LogFolder] = field(default_factory=list)


class TensorBoardSource(Source):
    """Runs under a log folder.

    Args:
        uri: The folder that `tensorboard --logdir` is given, or one event file; `runs` where it is empty.
        options: `project`, which the runs are given; the folder's name without it.
    """

    name: ClassVar[str] = "tensorboard"

    def __init__(self, uri: str, options: Mapping[str, object] | None = None) -> None:
        super().__init__(uri, options)
        self._root = os.path.abspath((uri or "runs").removeprefix("file://"))
        self._held: tuple[str, _Found] | None = None
        self._parts: dict[str, bool] = {}

    def runs(self) -> Iterator[RunInfo]:
        """Yield the runs; each is read when it is its turn, and kept until the next one."""
        for folder, inner in self._folders():
            found = self._found(folder, inner)
            info = self._info(found)
            self._held = (info.origin, found)
            yield info

    def events(self, run: RunInfo) -> Iterator[Event]:
        """Yield the scalars of a run, then its texts, pictures, sounds and histograms as they were written."""
        if self._held is None or self._held[0] != run.origin:
            folder = run.origin.removeprefix(f"{self.name}:")
            inner = next((inner for one, inner in self._folders() if one == folder), None)
            if inner is None:
                return
            self._held = (run.origin, self._found(folder, inner))
        found = self._held[1]
        ours = found.main.said.is_ours
        for prefix, part in [("", found.main), *found.several]:
            before = len(part.notes)
            for points in part.points():
                yield _ranked(changed(points, name=prefix or points.name), ours=ours)
            for event in part.others():
                yield _ranked_event(event, ours=ours)
            self.notes.extend(part.notes[before:])

    def _folders(self) -> Iterator[tuple[str, list[str]]]:
        """Yield the folders of runs, each with the folders below that may be parts of it."""
        if os.path.isfile(self._root):
            yield self._root, []
            return
        if not os.path.isdir(self._root):
            self.notes.append(f"{self._root} is no folder and no event file.")
            return
        known = {
            folder
            for folder, inside, files in os.walk(self._root)
            if any("tfevents" in name for name in files) and not self._is_too_deep(folder, inside)
        }
        for folder in sorted(known):
            above = os.path.dirname(folder)
            if above not in known or not self._is_part(folder):
                yield folder, [one for one in sorted(known) if os.path.dirname(one) == folder and self._is_part(one)]

    def _is_too_deep(self, folder: str, inside: list[str]) -> bool:
        """Tell whether a folder lies too deep, and go no further there."""
        too_deep = folder.count(os.sep) - self._root.count(os.sep) > _DEEPEST
        if too_deep:
            inside.clear()
            self.notes.append(f"{folder} lies more than {_DEEPEST} folders deep; it is left out.")
        return too_deep

    def _is_part(self, folder: str) -> bool:
        """Tell whether a folder below a run's was made by its writer, not by a program's own choice."""
        if folder not in self._parts:
            self._parts[folder] = _is_part(folder)
        return self._parts[folder]

    def _found(self, folder: str, inner: list[str]) -> _Found:
        """Read a run."""
        found = _Found(folder, LogFolder([folder] if os.path.isfile(folder) else event_files(folder)))
        for below in inner:
            part = LogFolder(event_files(below))
            if part.said.is_session:
                found.sessions.append(part)
            else:
                tag = part.names[0] if part.names else ""
                found.several.append((f"{tag}/{os.path.basename(below)[len(_flat(tag)) + 1 :]}", part))
        for part in (found.main, *(part for _, part in found.several), *found.sessions):
            self.notes.extend(part.notes)
        return found

    def _info(self, found: _Found) -> RunInfo:
        """Return what is known of a run."""
        parts = [found.main, *(part for _, part in found.several), *found.sessions]
        first = min((part.first for part in parts if part.first is not None), default=0.0)
        last = max((part.last for part in parts if part.last is not None), default=first)
        steps = min(max(part.last_step for part in parts), _LAST_STEP)
        params = {name: value for part in parts for name, value in part.said.params.items()}
        finals = {points.name: float(points.values[-1]) for part in found.sessions for points in part.points()}
        relative = os.path.relpath(found.folder, self._root)
        top = os.path.basename(self._root.rstrip(os.sep)) or "tensorboard"
        info = RunInfo(
            uid="", project=str(self.options.get("project") or top), name=top if relative == "." else relative,
            started=round(first * _MICROSECONDS), status=found.main.said.status or events.COMPLETED,
            ended=round(last * _MICROSECONDS), steps=max(steps + 1, 0), params=params, summary=finals,
            origin=f"{self.name}:{found.folder}",
        )  # fmt: skip
        return _with_facts(info, found.main.said.facts) if found.main.said.is_ours else info


def _is_part(folder: str) -> bool:
    """Tell whether a folder looks like one that `add_scalars` or `add_hparams` makes."""
    name = os.path.basename(folder)
    if not _MOMENT.fullmatch(name) and "_" not in name:
        return False
    part = LogFolder(event_files(folder)[:1])
    if _MOMENT.fullmatch(name) and part.said.is_session:
        return True
    return len(part.names) == 1 and name.startswith(f"{_flat(part.names[0])}_") and not part.has_others


def _with_facts(info: RunInfo, facts: Mapping[str, object]) -> RunInfo:
    """Return a run that Tracer wrote, as it was."""

    def mapping(name: str) -> dict[str, object]:
        found = facts.get(name)
        return found if isinstance(found, dict) else {}

    def text(name: str) -> str | None:
        found = facts.get(name)
        return found if isinstance(found, str) else None

    def whole(name: str) -> int | None:
        found = facts.get(name)
        return found if isinstance(found, int) and not isinstance(found, bool) else None

    tags, status = facts.get("tags"), text("status")
    started = whole("started")
    return changed(
        info,
        name=text("name") or info.name, project=text("project") or info.project,
        started=info.started if started is None else started, ended=whole("ended"),
        status=status if status in events.STATUSES else info.status,
        group=text("group"), job_type=text("job_type"), notes=text("notes"), steps=whole("steps") or info.steps,
        tags=tuple(str(tag) for tag in tags) if isinstance(tags, list) else (),
        labels={name: str(value) for name, value in mapping("labels").items()},
        params=mapping("params") or info.params, summary=mapping("summary"),
        environment=mapping("environment"), git=mapping("git"),
    )  # fmt: skip


def _flat(tag: str) -> str:
    """Return a tag as `add_scalars` puts it into a folder's name."""
    return tag.replace("/", "_")


def _ranked(points: Points, *, ours: bool) -> Points:
    """Return points with the rank that stands in their name, where it was Tracer that put it there."""
    found = _RANK.fullmatch(points.name) if ours else None
    return points if found is None else changed(points, name=found[2], rank=int(found[1]))


def _ranked_event(event: Event, *, ours: bool) -> Event:
    """Return anything else likewise."""
    if not ours or not isinstance(event, (Text, Media, Histogram)):
        return event
    found = _RANK.fullmatch(event.name)
    return event if found is None else changed(event, name=found[2], rank=int(found[1]))


__all__ = ["TensorBoardSource"]
