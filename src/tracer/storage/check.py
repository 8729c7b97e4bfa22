"""Checking a store: everything is read and compared with its checksums; what can be mended is, if asked.

Damage is set aside, never deleted: journal bytes and files go to the run's `journal/lost/`, a catalog is renamed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tracer import clock
from tracer.errors import JournalCorrupt, StoreError
from tracer.storage import adoption, artifact_check, catalog, duck, index, rebuild, tails
from tracer.storage import folder as folders
from tracer.storage.contents import Contents
from tracer.storage.fold import fold_run, settle
from tracer.storage.liveness import is_finished
from tracer.storage.snapshot import files_of, places_of
from tracer.storage.tails import Place
from tracer.storage.values import CheckReport, Problem

if TYPE_CHECKING:
    from tracer.storage.catalog import Catalog
    from tracer.storage.ground import Ground, Progress

_REBUILD = "`tracer doctor --repair` builds it anew from the run folders."
_ASIDE = "`tracer doctor --repair` sets it aside; nothing else is touched."


def check(store: Ground, *, repair: bool, progress: Progress | None) -> CheckReport:
    """Read everything and say what is wrong; see `Store.check`."""
    problems: list[Problem] = list(_catalog_problems(store, repair=repair))
    try:
        store.refresh()
    except catalog.CatalogDamaged as error:
        if repair:
            raise
        return CheckReport(0, 0, 0, (*problems, Problem(store.folder, str(error), _REBUILD)))
    names = sorted(index.list_runs(store.base))
    files = size = 0
    for done, name in enumerate(names, start=1):
        found, read, total = _check_run(store, name)
        files, size = files + read, size + total
        if found and repair:
            found = _repair(store, name, found)
        problems += found
        if progress is not None:
            progress(done, len(names))
    lost = store.catalog.value("SELECT coalesce(sum(lost), 0) FROM run")
    return CheckReport(len(names), files, size, tuple(problems), int(lost or 0))


def _catalog_problems(store: Ground, *, repair: bool) -> Iterator[Problem]:
    """Check the catalog by itself."""
    path = os.path.join(store.folder, catalog.FILE)
    if os.path.exists(path) and not rebuild.is_sound(path):
        if repair:
            error = catalog.CatalogDamaged(f"The catalog {path} is damaged.")
            rebuild.replace_damaged(store, error)
        yield Problem(path, "the catalog is damaged", _REBUILD, repaired=repair)


def _check_run(store: Ground, name: str) -> tuple[list[Problem], int, int]:
    """Check one run: `run.json`, journal, files, and what the catalog says of them; also files and bytes read."""
    folder = os.path.join(store.base, "runs", name)
    problems: list[Problem] = []
    try:
        facts = folders.read_facts(folder)
    except StoreError as error:
        # A process that died while it made its run leaves nothing, or half a file under a hidden name.
        if any(not name.startswith(".") for _, _, names in os.walk(folder) for name in names):
            problems.append(
                Problem(os.path.join(folder, "run.json"), str(error), "Mend it by hand, or delete the folder.")
            )
        return problems, 1, 0
    row = store.catalog.row("SELECT id, settled FROM run WHERE folder = ? AND uid = ?", (name, facts["id"]))
    if row is None:
        problems.append(Problem(folder, "the catalog does not know the run", _REBUILD))
        return problems, 1, 0
    problems += _journal_problems(store.catalog, folder, row[0])
    there = adoption.files_in(folder)
    contents = Contents(list(there.values()))
    problems += [Problem(path, f"it cannot be read: {fact}", _ASIDE) for path, fact in contents.problems.items()]
    for path in contents.footers:
        fact = contents.read(path).damage
        if fact:
            problems.append(Problem(path, fact, _ASIDE))
    problems += _registration_problems(store.catalog, store.base, name, row[0], set(contents.footers))
    problems += artifact_check.problems_of(store, facts["id"], folder)
    size = sum(os.stat(path).st_size for path in there.values() if os.path.exists(path))
    return problems, 1 + len(there), size


def _journal_problems(found: Catalog, folder: str, run: int) -> Iterator[Problem]:
    """Check the journal of a run beyond what was folded."""
    where = os.path.join(folder, "journal")
    places = places_of(found, run)
    for writer, listed in tails.list_segments(where).items():
        blocks = tails.sealed_blocks(where, writer)
        place = places.get(writer, Place(-1, 0))
        for number, path in listed:
            if number < place.segment:
                continue
            try:
                tail = tails.load(
                    path, place if number == place.segment else Place(number, 0), blocks, clock.boot_id(), whole=True
                )
            except JournalCorrupt as error:
                if is_finished(path):
                    yield Problem(path, str(error), _ASIDE)
                continue
            except (FileNotFoundError, StoreError):
                continue
            for _ in tails.walk(tail):
                pass
            for lost in tail.lost:
                yield Problem(
                    path, f"{lost.stop - lost.start} bytes from {lost.start} on are lost: {lost.reason}", _ASIDE
                )


def _registration_problems(found: Catalog, base: str, name: str, run: int, there: set[str]) -> Iterator[Problem]:
    """Compare what the catalog says of a run's files with the files."""
    files = files_of(found, base, run)
    for file in files:
        if file.path not in there:
            if not os.path.exists(file.path):
                yield Problem(file.path, "the catalog names it, but it is not there", _REBUILD)
        elif duck.crc_of(file.path) != file.crc:
            yield Problem(file.path, "its checksum is not the one the catalog has", _REBUILD)
    points = sum(file.rows for file in files if file.family == "points")
    series = found.value("SELECT coalesce(sum(n), 0) FROM series WHERE run = ?", (run,))
    if points != series:
        yield Problem(
            os.path.join(base, "runs", name), f"the catalog sums up {series} points, the files hold {points}", _REBUILD
        )
    known = {os.path.join(base, path) for (path,) in found.rows("SELECT path FROM segment")}
    for path in sorted(there - known):
        yield Problem(path, "the catalog does not know this file", _REBUILD)


def _repair(store: Ground, name: str, problems: list[Problem]) -> list[Problem]:
    """Mend what is wrong with one run, and say what was."""
    uid = store.catalog.value("SELECT uid FROM run WHERE folder = ?", (name,))
    if uid is None:
        return problems
    with store.writing() as writer:
        artifact_check.mend(os.path.join(store.base, "runs", name), problems)
        adoption.register_run(writer, store.base, uid)
        fold_run(store, uid)
        settle(store, [uid])
    left = {(problem.path, problem.fact) for problem in _check_run(store, name)[0]}
    return [
        Problem(problem.path, problem.fact, problem.remedy, repaired=(problem.path, problem.fact) not in left)
        for problem in problems
    ]


__all__ = ["check"]
