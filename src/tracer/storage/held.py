"""Journal segments that are folded and still owed to somebody: kept until every lane has read them.

    journal/released.json      writer → the last segment that was given back though a lane had not passed it

So a lane that comes late knows that it has to send whole series. Standard library.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence

from tracer import cursors, runfile
from tracer.errors import StoreError
from tracer.storage.folder import write_json
from tracer.storage.liveness import is_finished
from tracer.storage.tails import Place, list_segments, read_header

#: Writer, number and path of a segment.
Segment = tuple[str, int, str]

#: What a run keeps for lanes that lag, unless its settings say otherwise.
SPOOL_BYTES = 1 << 30
_FILE = "released.json"


def released(journal: str) -> dict[str, int]:
    """Return which segments of a journal folder were given back too early: writer → the last of them."""
    try:
        with open(os.path.join(journal, _FILE), encoding="utf-8") as file:
            said = json.load(file)
    except (OSError, ValueError):
        return {}
    return {str(writer): number for writer, number in said.items() if isinstance(number, int)}


def release(folder: str, done: Sequence[Segment]) -> list[str]:
    """Give back those folded segments that nobody needs any more, and the seals of writers that have none left.

    When what is kept takes more than `spool_max_bytes` of the run's settings, the oldest go all the same.

    Args:
        folder: The run's folder.
        done: Segments that are folded to their end.
    """
    if not done:
        return []
    free = _free(folder, done)
    where = os.path.join(folder, "journal")
    for path in free:
        _remove(path)
    left = list_segments(where)
    for writer in {os.path.basename(path).partition(".")[0] for path in free} - left.keys():
        _remove(os.path.join(where, f"{writer}.seal"))
    return free


def folded(folder: str, places: Mapping[str, Place]) -> list[Segment]:
    """Return the segments of a run that are folded to their end, and into which nobody writes."""
    return [
        (writer, number, path)
        for writer, found in list_segments(os.path.join(folder, "journal")).items()
        for number, path in found
        if number < places.get(writer, Place(-1, 0)).segment and is_finished(path)
    ]


def unread(folder: str, places: Mapping[str, Place]) -> bool:
    """Tell whether a journal has segments that are not folded to their end."""
    return any(
        number >= places.get(writer, Place(-1, 0)).segment
        for writer, found in list_segments(os.path.join(folder, "journal")).items()
        for number, _ in found
    )


def _free(folder: str, done: Sequence[Segment]) -> list[str]:
    """Return what may go of some segments; what goes too early is noted before."""
    journal = os.path.join(folder, "journal")
    lanes = _lanes(folder)
    if not lanes:
        _remove(os.path.join(journal, _FILE))
        return [path for _, _, path in done]
    free = [path for writer, number, path in done if not _is_owed(lanes, writer, number)]
    kept = sorted((one for one in done if _is_owed(lanes, one[0], one[1])), key=_age)
    size, most = sum(_bytes(path) for *_, path in kept), _spool_bytes(folder)
    early: list[Segment] = []
    for one in kept:
        if size <= most:
            break
        size -= _bytes(one[2])
        early.append(one)
    if early and not _note(journal, early):
        return free  # a lane that is not told would miss them
    return free + [path for *_, path in early]


def _lanes(folder: str) -> list[dict[str, tuple[int, int]]]:
    """Return the places of the lanes that still read; one whose file makes no sense is taken to need everything."""
    try:
        return cursors.held(folder)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        return [{}]


def _note(journal: str, early: Sequence[Segment]) -> bool:
    """Note which segments go before every lane has read them; tell whether the disk took it."""
    known = released(journal)
    for writer, number, _ in early:
        known[writer] = max(known.get(writer, -1), number)
    try:
        write_json(os.path.join(journal, _FILE), known)
    except OSError:
        return False
    return True


def _is_owed(lanes: list[dict[str, tuple[int, int]]], writer: str, number: int) -> bool:
    """Tell whether a lane has not passed a segment: it goes on in it or before it."""
    return any(places.get(writer, (-1, 0))[0] <= number for places in lanes)


def _spool_bytes(folder: str) -> int:
    """Return how much a run keeps for its lanes."""
    try:
        settings = runfile.read(folder).get("settings")
    except (OSError, ValueError):
        return SPOOL_BYTES
    said = settings.get("spool_max_bytes") if isinstance(settings, dict) else None
    return int(said) if isinstance(said, (int, float)) and said >= 0 else SPOOL_BYTES


def _age(segment: Segment) -> tuple[int, int]:
    """Return what sorts segments from the oldest to the newest."""
    _, number, path = segment
    try:
        opened = read_header(path).identity.get("opened", 0)
    except (OSError, StoreError):
        opened = 0
    return opened if isinstance(opened, int) else 0, number


def _bytes(path: str) -> int:
    """Return what a segment takes on the disk."""
    try:
        return os.stat(path).st_blocks * 512
    except OSError:
        return 0


def _remove(path: str) -> None:
    """Remove a file that may be gone already."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


__all__ = ["SPOOL_BYTES", "folded", "release", "released", "unread"]
