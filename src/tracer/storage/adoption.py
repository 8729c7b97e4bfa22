"""Files that lie in a run's folder and in no catalog: taken in, or out of the way.

all files of a fold are there and begin exactly at the positions    adopted, as if the fold had committed
a fold that is not whole, or whose part of the journal is folded    removed: the journal or other files have it
a compaction's output beside the files it replaces                  removed: it is made again
files the catalog counts on are missing                             the run is registered anew from its folder
anything else                                                       set aside in `journal/lost/`
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tracer.storage import folder as folders
from tracer.storage import layer_parts, register, segments
from tracer.storage.contents import Content, Contents
from tracer.storage.maintainer import Busy
from tracer.storage.points import summarise
from tracer.storage.segments import Footer
from tracer.storage.snapshot import places_of
from tracer.storage.tails import Place

if TYPE_CHECKING:
    from tracer.storage.catalog import Catalog
    from tracer.storage.ground import Ground

_PATHS = "SELECT s.path FROM segment_run r JOIN segment s ON s.id = r.segment WHERE r.run = ? AND s.dead IS NULL"
_ORDERED = ("points", "layers", "histograms", "logs", "rollup")
logger = logging.getLogger("tracer")


def files_in(folder: str, *, tidy: bool = False) -> dict[str, str]:
    """Return the Parquet files of a run folder: name within the folder → path.

    Args:
        folder: The run's folder.
        tidy: Remove half-written files; only the maintainer knows that nobody is writing them.
    """
    found: dict[str, str] = {}
    for family in _ORDERED:
        where = os.path.join(folder, family)
        try:
            names = os.listdir(where)
        except OSError:
            continue
        for name in names:
            path = os.path.join(where, name)
            if tidy and name.startswith(".") and name.endswith(".part"):
                segments.remove(path)
            elif name.endswith(".parquet") and not name.startswith("."):
                found[f"{family}/{name}"] = path
    return found


def needs_registering(catalog: Catalog, base: str, run: int, name: str) -> bool:
    """Tell whether a file that the catalog counts on is missing."""
    there = files_in(os.path.join(base, "runs", name))
    before = len(f"runs/{name}/")
    return any(path[before:] not in there for (path,) in catalog.rows(_PATHS, (run,)))


def adopt(catalog: Catalog, base: str, uid: str) -> None:
    """Deal with the files of a run that the catalog does not know."""
    row = catalog.row("SELECT id, folder FROM run WHERE uid = ?", (uid,))
    if row is None:
        return
    run, name = row
    folder = os.path.join(base, "runs", name)
    before = len(f"runs/{name}/")
    known = {
        path[before:]
        for (path,) in catalog.rows(
            "SELECT path FROM segment WHERE path > ? AND path < ?", (f"runs/{name}/", f"runs/{name}0")
        )
    }
    unknown = {inside: path for inside, path in files_in(folder, tidy=True).items() if inside not in known}
    if not unknown:
        return
    contents = Contents(list(unknown.values()))
    for path, problem in contents.problems.items():
        _aside(folder, path, problem)
    for _, paths in sorted(_by_fold(contents.footers).items()):
        _adopt_fold(catalog, base, run, uid, folder, paths, contents)


def register_run(
    catalog: Catalog, base: str, uid: str, *, is_ours: bool = True, contents: Contents | None = None
) -> list[str]:
    """Register a run from its folder alone: files, positions, summaries, everything; return what was wrong.

    Args:
        catalog: The catalog, open for writing.
        base: The store's folder.
        uid: The run.
        is_ours: This machine maintains the run: what is in the way is removed or set aside.
        contents: The run's files among others, when many runs are read together.
    """
    row = catalog.row("SELECT id, folder FROM run WHERE uid = ?", (uid,))
    if row is None:
        return []
    run, name = row
    folder = os.path.join(base, "runs", name)
    there = files_in(folder, tidy=is_ours)
    contents = contents or Contents(list(there.values()))
    footers = {path: contents.footers[path] for path in there.values() if path in contents.footers}
    problems = {path: contents.problems[path] for path in there.values() if path in contents.problems}
    said = [f"{path}: {problem}" for path, problem in problems.items()]
    done = [footer for footer in footers.values() if _is_done(footer, there)]
    whole = {
        path: footer
        for path, footer in footers.items()
        if _is_done(footer, there) and not _is_covered(footer.family, footer, done)
    }
    whole = {path: footer for path, footer in whole.items() if _is_whole(footer, there, whole.values())}
    if is_ours:
        for path, problem in problems.items():
            _aside(folder, path, problem)
        for path in footers.keys() - whole.keys():
            logger.info("%s is removed: another file or the journal has its content.", path)
            segments.remove(path)
    with catalog.transaction():
        _forget(catalog, run, name)
        places: dict[str, Place] = {}
        changes: list[list[Any]] = []
        for path, footer in sorted(whole.items(), key=lambda item: (item[1].order, _ORDERED.index(item[1].family))):
            content = contents.read(path)
            if content.damage:
                said.append(f"{path}: {content.damage}")
                if is_ours:
                    _aside(folder, path, content.damage)
                continue
            changes += _take_in(catalog, base, run, uid, path, footer, content)
            for writer, (_, end) in footer.consumed.items():
                place = Place(end[0], end[1])
                places[writer] = max(places.get(writer, place), place, key=lambda one: (one.segment, one.offset))
        register.set_places(catalog, run, places, {})
        catalog.execute("UPDATE run SET stale = 0, settled = 0 WHERE id = ?", (run,))
        register.update_run(catalog, base, run, name, changes)
    return said


def register_theirs(store: Ground, uid: str) -> None:
    """Register what another machine folded: on a network file system each has a catalog of its own."""
    row = store.catalog.row("SELECT id, folder, stale FROM run WHERE uid = ? AND trashed IS NULL", (uid,))
    if row is None:
        return
    run, name, stale = row
    before = len(f"runs/{name}/")
    known = {path[before:] for (path,) in store.catalog.rows(_PATHS, (run,))}
    if not stale and known == files_in(os.path.join(store.base, "runs", name)).keys():
        return
    with contextlib.suppress(Busy), store.writing(wait_s=0.0) as catalog:
        register_run(catalog, store.base, uid, is_ours=False)


def _by_fold(footers: dict[str, Footer]) -> dict[tuple[int, int, int], list[str]]:
    """Return files by the fold they belong to; each output of a compaction stands alone."""
    folds: dict[tuple[int, int, int], list[str]] = {}
    for at, (path, footer) in enumerate(sorted(footers.items())):
        folds.setdefault((*footer.order, 0 if footer.level == 0 else at + 1), []).append(path)
    return folds


def _adopt_fold(
    catalog: Catalog, base: str, run: int, uid: str, folder: str, paths: list[str], contents: Contents
) -> None:
    """Take in the files of one fold, or put them out of the way."""
    footers = {path: contents.footers[path] for path in paths}
    first = footers[paths[0]]
    there = {f"{footer.family}/{os.path.basename(path)}" for path, footer in footers.items()}
    at = {writer: (place.segment, place.offset) for writer, place in places_of(catalog, run).items()}
    begins = {writer: tuple(part[0]) for writer, part in first.consumed.items()}
    ends = {writer: Place(part[1][0], part[1][1]) for writer, part in first.consumed.items()}
    if any(footer.level for footer in footers.values()) or not set(first.siblings) <= there:
        _drop(paths, "a compaction or fold that was not finished; its content is elsewhere")
    elif all(begin == at.get(writer, (begin[0], 0)) for writer, begin in begins.items()):
        found = {path: contents.read(path) for path in sorted(paths)}
        damaged = {path: content.damage for path, content in found.items() if content.damage}
        for path, problem in damaged.items():
            _aside(folder, path, problem)
        if damaged:
            _drop(
                [path for path in paths if path not in damaged],
                "another file of its fold is damaged; it is folded again",
            )
            return
        with catalog.transaction():
            changes: list[list[Any]] = []
            for path, content in found.items():
                changes += _take_in(catalog, base, run, uid, path, footers[path], content)
            register.set_places(catalog, run, ends, {})
            register.update_run(catalog, base, run, os.path.basename(folder), changes)
    elif all(writer in at and end[:2] <= at[writer] for writer, end in ends.items()):
        _drop(paths, "other files have its content")
    else:
        for path in paths:
            _aside(folder, path, "it holds a part of the journal that does not follow what is known")


def _drop(paths: list[str], reason: str) -> None:
    """Remove files whose content is elsewhere."""
    for path in paths:
        logger.info("%s is removed: %s.", path, reason)
        segments.remove(path)


def _take_in(
    catalog: Catalog, base: str, run: int, uid: str, path: str, footer: Footer, content: Content
) -> list[list[Any]]:
    """Register one file and everything that the catalog says of its content; return changes to the run."""
    changes: list[list[Any]] = []
    if content.points is not None:
        overviews = register.new_overviews(catalog, run, content.points)
        register.upsert_series(catalog, run, content.points, summarise(content.points), overviews)
    elif footer.family == "logs":
        changes = register.apply_logs(catalog, run, uid, content.logs, footer.order[1])
    elif footer.axes:
        register.apply_axes(catalog, run, footer.axes)
    file = segments.written(path, footer, content.steps, content.times)
    segment = register.insert_file(catalog, run, base, file)
    if content.layers:
        layer_parts.insert(catalog, segment, content.layers, layer_parts.extents(catalog, run))
    return changes


def _is_covered(family: str, footer: Footer, others: Iterable[Footer]) -> bool:
    """Tell whether a compaction's output of a family holds the folds of a file: only neighbours are ever merged."""
    return any(
        other.family == family and other.level > footer.level
        and other.order[0] <= footer.order[0] and footer.order[1] <= other.order[1]
        for other in others
    )  # fmt: skip


def _is_done(footer: Footer, there: dict[str, str]) -> bool:
    """Tell whether a compaction came to its end; one that did not has all that it replaces still beside it."""
    if not footer.level or all(sibling in there for sibling in footer.siblings):
        return True
    return not all(replaced in there for replaced in footer.replaces)


def _is_whole(footer: Footer, there: dict[str, str], others: Iterable[Footer]) -> bool:
    """Tell whether all files of a fold are there, or went into a compaction."""
    others = list(others)
    return footer.level > 0 or all(
        sibling in there or _is_covered(sibling.partition("/")[0], footer, others) for sibling in footer.siblings
    )


def _forget(catalog: Catalog, run: int, name: str) -> None:
    """Drop everything that the catalog says of a run's content."""
    for table in (
        "series",
        "text_series",
        "segment_run",
        "writer",
        "checkpoint",
        "axis",
        "finding",
        "tombstone",
        "media",
    ):
        catalog.execute(f"DELETE FROM {table} WHERE run = ?", (run,))  # noqa: S608 -- our own names
    catalog.execute("DELETE FROM segment WHERE path > ? AND path < ?", (f"runs/{name}/", f"runs/{name}0"))


def _aside(folder: str, path: str, problem: str) -> None:
    """Move a file that cannot be used to where nothing is deleted."""
    where = os.path.join(folder, "journal", "lost")
    os.makedirs(where, exist_ok=True)
    os.rename(path, os.path.join(where, os.path.basename(path)))
    folders.sync_folder(where)
    logger.warning("%s is set aside in %s: %s", path, where, problem)


__all__ = [
    "adopt",
    "files_in",
    "needs_registering",
    "register_run",
    "register_theirs",
]
