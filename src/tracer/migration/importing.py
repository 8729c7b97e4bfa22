"""Runs of another tracker into the store: listed, taken in, compared with what the source said."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from tracer import runfile
from tracer.backends.base import BackendError, Refused, Source, Throttled, Unreachable
from tracer.backends.table import entry
from tracer.errors import RunNotFound, StoreError
from tracer.migration import facts
from tracer.migration.addresses import Address, address
from tracer.migration.calls import FAULTS, unforeseen
from tracer.migration.ledgers import Pass
from tracer.migration.proof import unpacked
from tracer.migration.reports import CREATED, FAILED, PLANNED, UNCHANGED, UPDATED, Difference, Moved, Report
from tracer.migration.tallies import Key, Tally
from tracer.transfer import FILE, TEXT, RunInfo

if TYPE_CHECKING:
    from tracer.storage.store import Store

#: What people change in the store, and an import does not change back.
_EDITABLE = frozenset({"project", "name", "notes", "tags", "group", "job_type"})
#: What recording itself cost does not travel.
_OWN = "tracer/"
#: Called with how many runs are done and how many there are, or 0 where nobody counted them.
Progress = Callable[[int, int], None]


@dataclass
class Importing:
    """An import: the runs of a source, by its own listing.

    Args:
        where: What is read.
        project: Put the runs into this project, whatever the source says.
        pattern: Only runs whose name, id, or project and name match; as in a shell.
    """

    where: Address
    project: str | None = None
    pattern: str | None = None
    given: Source | None = field(default=None, repr=False)

    @cached_property
    def source(self) -> Source:
        """What reads the runs."""
        return self.given if self.given is not None else self.where.source()

    @cached_property
    def runs(self) -> list[RunInfo]:
        """The runs that are meant; a source may have to read all of them for this."""
        return [run for run in self.source.runs() if self._is_meant(run)]

    @property
    def total(self) -> int:
        """How many runs there are, where they were listed; else 0."""
        return len(self.__dict__.get("runs", ()))

    def listed(self) -> Iterator[RunInfo]:
        """Yield the runs that are meant; one after the other, so that a source reads each once."""
        known: list[RunInfo] | None = self.__dict__.get("runs")
        yield from known if known is not None else (run for run in self.source.runs() if self._is_meant(run))

    def plan(self, store: Store | None) -> list[Moved]:
        """Say what would be taken in; without a store everything is new."""
        return [self.told(run, PLANNED, uid="" if store is None else _present(store, run)) for run in self.runs]

    def take(self, store: Store, run: RunInfo, *, verify: bool = False) -> Moved:
        """Take one run in."""
        notes: list[str] = []
        tally = Tally()
        info = replace(run, project=self.project) if self.project else run
        taken = store.take_in(info, tally.watch(unpacked(self.source.events(run), notes)))
        outcome = CREATED if taken.created else UPDATED if taken.changed else UNCHANGED
        if taken.superseded:
            notes.append(f"{taken.superseded:,} values came again for a step; the last of each counts.")
        notes += taken.notes
        moved = self.told(
            info,
            outcome,
            uid=taken.uid,
            points=tally.points,
            sent=taken.points if outcome != UNCHANGED else 0,
            series=len(tally.series),
            artifacts=tally.counts[FILE],
            notes=tuple(notes),
        )
        if not verify:
            return moved
        differences = tuple(compared(store, taken.uid, info, tally, is_new=taken.created))
        return replace(moved, verified=True, compared=len(tally.series), differences=differences)

    def told(self, run: RunInfo, outcome: str, **more: object) -> Moved:
        """Return what is told of a run."""
        said = Moved(run.name, self.project or run.project, outcome, there=run.origin)
        return replace(said, **more)  # type: ignore[arg-type]  # fields of `Moved`

    def report(
        self, runs: list[Moved], *, dry_run: bool = False, stopped: str | None = None, notes: tuple[str, ...] = ()
    ) -> Report:
        """End the import, and return its report."""
        told = (*dict.fromkeys(self.source.notes), *notes)
        self.source.close()
        shown = entry(self.where.name).shown if self.given is None else self.source.name
        return Report("import", shown, self.where.shown, tuple(runs), (), told, dry_run, stopped)

    def _is_meant(self, run: RunInfo) -> bool:
        """Tell whether the pattern means a run."""
        if self.pattern is None:
            return True
        known = (run.name, run.uid, run.origin.partition(":")[2], f"{run.project}/{run.name}")
        return any(fnmatch.fnmatchcase(one, self.pattern) for one in known)


def import_runs(
    store: Store,
    source: str | Address | Source,
    *,
    options: Mapping[str, object] | None = None,
    project: str | None = None,
    pattern: str | None = None,
    verify: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Take runs of another tracker into the store; a run that is there already is updated, never doubled.

    Args:
        store: Where to.
        source: What is read: `mlflow:sqlite:///ml.db`, `wandb:./wandb`, `tensorboard:runs`, a path, or a source.
        options: More, by name, as the page of that tracker lists them.
        project: Put the runs into this project, whatever the source says.
        pattern: Only runs whose name, id, or project and name match; as in a shell.
        verify: Compare what the store holds afterwards with what the source said.
        dry_run: Only say what would be done.
        progress: Called with how many runs are done.

    Returns:
        What was done, run by run.

    Raises:
        ConfigError: The source is not known, or holds nothing that is.

    Example:
        >>> import_runs(store, "tensorboard:runs", project="vision").is_good  # doctest: +SKIP
        True
    """
    importing = importing_of(source, options=options, project=project, pattern=pattern)
    if dry_run:
        return importing.report(importing.plan(store), dry_run=True)
    return taken_in(importing, store, verify=verify, progress=progress)


def importing_of(
    source: str | Address | Source,
    *,
    options: Mapping[str, object] | None = None,
    project: str | None = None,
    pattern: str | None = None,
) -> Importing:
    """Return an import of a source that is given in any of three ways."""
    if isinstance(source, Source):
        where = Address(source.name, source.uri, options=source.options)
        return Importing(where, project, pattern, source)
    return Importing(source if isinstance(source, Address) else address(source, options), project, pattern)


def taken_in(importing: Importing, store: Store, *, verify: bool = False, progress: Progress | None = None) -> Report:
    """Take all runs of an import in; one that was interrupted goes on with the runs it has not done."""
    runs: list[Moved] = []
    stopped = None
    for done, (moved, why) in enumerate(each(importing, store, verify=verify), start=1):
        runs.append(moved)
        stopped = stopped or why
        if progress is not None:
            progress(done, importing.total)
    return importing.report(runs, stopped=stopped)


def each(importing: Importing, store: Store, *, verify: bool = False) -> Iterator[tuple[Moved, str | None]]:
    """Take the runs in one after the other; yield what became of each, and why no other should be tried."""
    under_way = Pass(store.base, importing.where.digest)
    before = dict(under_way.done)
    for run in importing.listed():
        uid, count = before.get(run.origin, ("", None))
        if uid and (count is not None or not verify) and _is_there(store, uid):
            said = {"uid": uid, "verified": count is not None, "compared": count or 0}
            notes = ("It was taken in before the interruption.",)
            yield importing.told(run, UNCHANGED, notes=notes, **said), None
            continue
        ours = _recorded_here(store, run)
        if ours:
            yield importing.told(run, UNCHANGED, uid=ours, notes=("It was recorded here and sent there.",)), None
            continue
        try:
            moved = importing.take(store, run, verify=verify)
        except (BackendError, StoreError) as error:
            why = str(error) if isinstance(error, (Unreachable, Refused, Throttled)) else None
            yield importing.told(run, FAILED, notes=(str(error),)), why
            if why is not None:
                return
            continue
        except FAULTS as error:
            yield importing.told(run, FAILED, notes=(str(unforeseen(error)),)), None
            continue
        if moved.is_good:
            under_way.add(run.origin, moved.uid, moved.compared if moved.verified else None)
        yield moved, None
    under_way.end()


def compared(store: Store, uid: str, info: RunInfo, tally: Tally, *, is_new: bool = True) -> Iterator[Difference]:
    """Yield what the store does not hold as the source said it: every series by its digest, facts, texts, files."""
    yield from _series(store.digests(uid), tally)
    for _, one in facts.differences(info, store.info(uid)):
        edited = not is_new and (one.name in _EDITABLE or one.what == "labels")
        yield replace(one, reason="changed here since; an import leaves that alone") if edited else one
    mine = Tally()
    for event in store.outgoing(uid, frozenset({TEXT, FILE})):
        mine.add(event)
    for key, texts in tally.texts.items():
        if dict(texts) != dict(mine.texts.get(key, [])):
            told = f"{len(mine.texts.get(key, []))} texts"
            yield Difference("text", key[0], f"{len(texts)} texts", told, key[1])
    digests = {digest for parts in mine.files.values() for digest in parts.values()}
    for name, parts in tally.files.items():
        absent = [path for path, digest in parts.items() if digest and digest not in digests]
        if absent:
            yield Difference("artifact", name, f"{len(parts)} files", f"{len(absent)} absent: {absent[0]}")


def _series(held: Mapping[Key, tuple[int, str]], tally: Tally) -> Iterator[Difference]:
    """Yield the series that differ."""
    for (name, rank), (count, digest) in tally.series.items():
        there = held.get((name, rank))
        if (name, rank) in tally.unknown:
            why = "the source parted the series, and it is too large to be put together twice"
            yield Difference("series", name, "not compared", "", rank, why)
        elif count and not name.startswith(_OWN) and (there is None or there[1] != digest):
            yield Difference("series", name, f"{count:,} values", f"{there[0]:,} values" if there else "absent", rank)
    for name, rank in sorted(held.keys() - tally.series.keys()):
        yield Difference("series", name, "absent", f"{held[name, rank][0]:,} values", rank)


def _present(store: Store, run: RunInfo) -> str:
    """Return the id of a run that is in the store already; empty where it is not."""
    uid = runfile.shared_id("origin", run.origin)
    return uid if _is_there(store, uid) else ""


def _recorded_here(store: Store, run: RunInfo) -> str:
    """Return the id of the run of this store that was sent to the source; empty where it is another's."""
    kind, _, uid = run.origin.partition(":")
    return uid if kind == "tracer" and uid and _is_there(store, uid) else ""


def _is_there(store: Store, uid: str) -> bool:
    """Tell whether the store has a run."""
    try:
        return store.run(uid).uid == uid
    except RunNotFound:
        return False


__all__ = ["Importing", "Progress", "compared", "each", "import_runs", "importing_of", "taken_in"]
