"""Read offline sessions of ClearML: a zip, the folder it was made of, or a folder with many of either.

Everything in them is treated as somebody else's: no path of theirs is followed out of the session, sizes and counts
are bounded before anything is unpacked, and what cannot be read is left out with a note.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from tracer.backends import clearml_events
from tracer.backends.base import Source
from tracer.backends.clearml_opening import Opened, info, mapping, opened, sessions, time_of, whole, within
from tracer.backends.clearml_session import CONSOLE, DATA, METRICS
from tracer.backends.names import unescaped
from tracer.transfer import Event, File, Media, Part, Points, RunInfo, sha256

_CHUNK = 100_000
#: Whole numbers and series beyond these are left out.
_MOST, _SERIES = 2**63, 500_000
_SUFFIXES = {
    "image": ".png .jpg .jpeg .gif .bmp .webp .tif .tiff .svg",
    "audio": ".wav .mp3 .flac .ogg .m4a",
    "video": ".mp4 .webm .avi .mov .mkv",
    "html": ".html .htm",
    "text": ".txt .md",
}


class ClearMLSource(Source):
    """Offline sessions of ClearML.

    Args:
        uri: A zip, a session's folder, or a folder with sessions; an empty one is where the client keeps them.
        options: None.
    """

    name: ClassVar[str] = "clearml"

    def __init__(self, uri: str, options: Mapping[str, object] | None = None) -> None:
        super().__init__(uri, options)
        cache = os.environ.get("CLEARML_CACHE_DIR") or os.path.expanduser("~/.clearml/cache")
        self._where = os.path.abspath(uri or os.path.join(cache, "offline"))

    def runs(self) -> Iterator[RunInfo]:
        """Yield the sessions, the oldest first."""
        found = []
        for path in sessions(self._where):
            with opened(path, self.notes, files=False) as session:
                if session is not None:
                    found.append(info(session))
        yield from sorted(found, key=lambda one: (one.started, one.origin))

    def events(self, run: RunInfo) -> Iterator[Event]:
        """Yield what a session holds: points, then the console and texts, then samples, then artifacts."""
        wanted = run.origin.partition(":")[2]
        # The one that is called like it first: most often the only one that has to be opened.
        for path in sorted(sessions(self._where), key=lambda one: wanted not in os.path.basename(one)):
            with opened(path, [], files=False) as session:
                if session is None or session.id != wanted:
                    continue
            with opened(path, self.notes, files=True) as session:
                if session is not None:
                    yield from self._series(session)
                    yield from self._console(session)
                    yield from self._seen(session)
                    yield from self._files(session)
            return

    def _series(self, session: Opened) -> Iterator[Event]:
        """Yield points series by series: scalars, and what our notes say was not finite."""
        found: dict[tuple[str, int], tuple[array[int], array[int], array[float]]] = {}
        bad = 0
        for event in session.events(METRICS):
            if event.get("type") != clearml_events.SCALAR:
                continue
            try:
                step, time, value = int(event["iter"]), time_of(event), float(event["value"])
                place = _place(session, event)
                if not (-_MOST <= step < _MOST and -_MOST <= time < _MOST and len(found) < _SERIES):
                    bad += 1
                    continue
            except (KeyError, TypeError, ValueError, OverflowError):
                bad += 1
                continue
            steps, times, values = found.setdefault(place, (array("q"), array("q"), array("d")))
            steps.append(step)
            times.append(time)
            values.append(value)
        if bad:
            self.notes.append(f"{bad} scalars in {session.shown!r} are damaged and left out.")
        for points in self._unfinite(session):
            place = points.name, points.rank
            steps, times, values = found.setdefault(place, (array("q"), array("q"), array("d")))
            steps.extend(points.steps.tolist())
            times.extend(points.times.tolist())
            values.extend(points.values.tolist())
        for (name, rank), (all_steps, all_times, all_values) in found.items():
            steps_, times_ = np.array(all_steps, np.int64), np.array(all_times, np.int64)
            values_ = np.array(all_values, np.float64)
            order = np.lexsort((times_, steps_))
            # A server keeps one value of a step, too: the last.
            order = order[np.append(steps_[order][1:] != steps_[order][:-1], np.ones(min(len(order), 1), bool))]
            for start in range(0, len(order), _CHUNK):
                cut = order[start : start + _CHUNK]
                yield Points(name, steps_[cut], times_[cut], values_[cut], rank)

    def _unfinite(self, session: Opened) -> Iterator[Points]:
        """Yield what our notes in the console say of values that are not finite."""
        for told in self._notes(session, clearml_events.VALUES):
            try:
                points = clearml_events.read_values(told)
            except (KeyError, TypeError, ValueError, OverflowError):
                self.notes.append(f"A note of values in {session.shown!r} is damaged and left out.")
                continue
            if len({len(points.steps), len(points.times), len(points.values)}) == 1:
                yield points

    def _notes(self, session: Opened, what: str) -> Iterator[dict[str, Any]]:
        """Yield our notes of one kind."""
        if not session.ours:
            return
        for event in session.events(CONSOLE, quiet=True):
            told = clearml_events.noted(str(event.get("msg", "")))
            if told is not None and told[0] == what:
                yield told[1]

    def _console(self, session: Opened) -> Iterator[Event]:
        """Yield the console: lines, and texts that stand in it."""
        for event in session.events(CONSOLE):
            told = clearml_events.noted(str(event.get("msg", ""))) if session.ours else None
            try:
                if told is None:
                    yield from clearml_events.read_line(event, ours=bool(session.ours))
                elif told[0] == clearml_events.TEXT:
                    yield clearml_events.read_text(told[1])
            except (KeyError, TypeError, ValueError, OverflowError):
                self.notes.append(f"A line of the console of {session.shown!r} is damaged and left out.")

    def _seen(self, session: Opened) -> Iterator[Event]:
        """Yield samples and plots."""
        told = {str(one.get("key")): one for one in self._notes(session, clearml_events.SAMPLES)}
        plots = 0
        for event in session.events(METRICS, quiet=True):
            try:
                if event.get("type") == clearml_events.PLOT:
                    name, rank = _place(session, event)
                    made = clearml_events.read_histogram(event, name, rank)
                    plots += made is None
                    if made is not None:
                        yield made
                elif event.get("type") == clearml_events.SAMPLE:
                    yield from self._sample(session, event, told)
            except (KeyError, TypeError, ValueError, OverflowError):
                self.notes.append(f"A plot or sample of {session.shown!r} is damaged and left out.")
        if plots:
            self.notes.append(f"{plots} plots of {session.shown!r} are no histograms of ours and are left out.")

    def _sample(
        self, session: Opened, event: Mapping[str, Any], told: Mapping[str, Mapping[str, Any]]
    ) -> Iterator[Media]:
        """Yield one sample, if its file is in the session."""
        key = str(event.get("key"))
        local = within(session.folder, f"{DATA}/{key}")
        if local is None or not os.path.isfile(local):
            self.notes.append(f"The sample {key!r} is not in {session.shown!r}.")
            return
        name, rank = _place(session, event)
        more = told.get(key, {})
        suffix = str(more.get("suffix", os.path.splitext(key)[1]))
        plain = bool(more.get("plain"))
        with open(local, "rb") as opened:
            data = opened.read()
        fields = mapping(more.get("fields"))
        caption = more.get("caption")
        yield Media(
            str(more.get("name", name)), str(more.get("kind", _kind(suffix))), int(event.get("iter") or 0),
            int(more.get("time", time_of(event))), None, None if plain else data, suffix,
            None if caption is None else str(caption), fields, int(more.get("rank", rank)),
        )  # fmt: skip

    def _files(self, session: Opened) -> Iterator[Event]:
        """Yield artifacts whose files are in the session."""
        execution = mapping(session.task.get("execution"))
        grouped: dict[tuple[str, str], tuple[dict[str, str], list[Part]]] = {}
        listed = execution.get("artifacts")
        for one in listed if isinstance(listed, list) else []:
            if not isinstance(one, dict):
                continue
            key, uri = str(one.get("key", "")), str(one.get("uri", ""))
            local = within(session.folder, f"{DATA}/{uri.rpartition(f'/{DATA}/')[2]}")
            inside = f"/{DATA}/" in uri and local is not None and os.path.isfile(local)
            if not inside or local is None:
                self.notes.append(f"The file of the artifact {key!r} is not in {session.shown!r}.")
                continue
            told = {str(row[0]): str(row[1]) for row in one.get("display_data") or [] if _is_pair(row)}
            more = told if session.ours else {}
            path = more.get("part", os.path.basename(local))
            part = Part(path, local, os.path.getsize(local), more.get("digest") or sha256(local))
            of = (more.get("artifact", key), more.get("version", "v0"))
            grouped.setdefault(of, ({**more, "of": str(one.get("timestamp", 0))}, []))[1].append(part)
        for (name, version), (more, parts) in grouped.items():
            step, aliases = whole(more.get("step")), _loaded(more.get("aliases"))
            yield File(
                name, more.get("type", "file"), version, tuple(parts),
                whole(more.get("time")) or (whole(more["of"]) or 0) * 1_000_000, step,
                tuple(str(alias) for alias in aliases) if isinstance(aliases, list) else (),
                mapping(_loaded(more.get("metadata"))),
            )  # fmt: skip


def _place(session: Opened, event: Mapping[str, Any]) -> tuple[str, int]:
    """Return the name and the rank of an event; of a session of ours as they were."""
    sent = clearml_events.joined(str(event["metric"]), str(event["variant"]))
    if not session.ours:
        return sent, 0
    name = mapping(session.facts().get("names")).get(sent)
    if name == sent:
        return sent, 0
    name = str(name or unescaped(sent))
    rank = clearml_events.RANK.match(name)
    return (name[rank.end() :], int(rank[1])) if rank else (name, 0)


def _kind(suffix: str) -> str:
    """Return what kind of media a file is by its name."""
    for kind, suffixes in _SUFFIXES.items():
        if suffix.lower() in suffixes.split():
            return kind
    return "image"


def _is_pair(row: object) -> bool:
    """Tell whether it is a name and a value."""
    return isinstance(row, list) and len(row) == 2  # noqa: PLR2004 (a pair)


def _loaded(told: object) -> object:
    """Return what JSON says, or None."""
    try:
        return json.loads(str(told))
    except (ValueError, RecursionError):
        return None
