"""Reading a run back from where it was sent, and comparing it series by series with what the store holds."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tracer.backends.base import BackendError, Limits, Source
from tracer.migration import facts, leftovers
from tracer.migration import losses as kinds
from tracer.migration.addresses import Address
from tracer.migration.calls import FAULTS, unforeseen
from tracer.migration.ledgers import Ledger
from tracer.migration.reports import Difference
from tracer.migration.tallies import Key, Tally
from tracer.transfer import FILE, TEXT, Event, File, RunInfo

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.transfer import Floats, Integers

_SHORTEST_ID = 4


class Proof:
    """Reads what stands at a target.

    Args:
        store: What it is compared with.
        target: Where the runs went.
    """

    def __init__(self, store: Store, target: Address) -> None:
        self._store, self._target = store, target
        self._backend = target.backend()
        self._limits: Limits = self._backend.limits
        #: What is read now: where it stands, what reads it, and the runs there.
        self._open: tuple[str, Source, list[RunInfo]] | None = None

    def of(self, info: RunInfo, ledger: Ledger, sent: Collection[Key]) -> tuple[int, list[Difference]]:
        """Compare one run; return how many series were compared, and what is not the same.

        Args:
            info: The run.
            ledger: What the target calls it.
            sent: The series that were sent.
        """
        try:
            return self._read_back(info, ledger, sent)
        except BackendError as error:
            why = str(error)
        except FAULTS as error:
            why = str(unforeseen(error))
        return 0, [Difference("run", info.name, "sent", f"cannot be read back: {why}")]

    def _read_back(self, info: RunInfo, ledger: Ledger, sent: Collection[Key]) -> tuple[int, list[Difference]]:
        """Compare one run with what can be read of it."""
        source, runs = self._standing(ledger)
        there = twin(runs, ledger.remote, info)
        if there is None:
            return 0, [Difference("run", info.name, "sent", f"not found among {len(runs)} runs")]
        found = self._facts(info, there)
        uid = info.uid
        ours = {key: said for key, said in self._store.digests(uid).items() if key in sent}
        differing: dict[Key, list[Difference]] = {}

        def look(name: str, rank: int, steps: Integers, values: Floats, digest: str) -> None:
            """Compare a series with ours while its values are at hand."""
            differing.pop((name, rank), None)
            if (name, rank) in ours and ours[name, rank][1] != digest:
                series = self._store.series(uid, name, rank=rank)
                differing[name, rank] = list(self._points((name, rank), series.step, series.value, steps, values))

        tally = Tally(look, _named(ours, ledger.names))
        notes: list[str] = []
        for event in unpacked(source.events(there), notes):
            tally.add(event)
        tally.end()
        found += [one for several in differing.values() for one in several]
        found += self._absent(uid, ours, tally.series)
        found += self._others(uid, tally)
        return len(ours), found

    def _standing(self, ledger: Ledger) -> tuple[Source, list[RunInfo]]:
        """Return what reads the run, and the runs that stand there: in a place of its own where it has one."""
        where = ledger.readable if os.path.exists(ledger.readable) else self._target.uri
        if self._open is None or self._open[0] != where:
            self.close()
            source = replace(self._target, uri=where).source()
            self._open = (where, source, list(source.runs()))
        return self._open[1], self._open[2]

    def close(self) -> None:
        """Let go of what was opened."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def _facts(self, here: RunInfo, there: RunInfo) -> list[Difference]:
        """Compare what is known of the run."""
        found = []
        for subject, one in facts.differences(here, there):
            found.append(replace(one, reason=kinds.reason(self._limits, {subject})))
        return found

    def _points(
        self, key: Key, steps: Integers, values: Floats, their_steps: Integers, their_values: Floats
    ) -> Iterable[Difference]:
        """Yield in what way a series differs, each kind of difference once."""
        common, ours, theirs = np.intersect1d(steps, their_steps, assume_unique=True, return_indices=True)
        more = len(their_steps) - len(common)
        here, there = values[ours], their_values[theirs]
        unequal = ~((here.view(np.int64) == there.view(np.int64)) | (np.isnan(here) & np.isnan(there)))
        missing = np.ones(len(steps), bool)
        missing[ours] = False
        for subject, which in _kinds_of(values[missing]).items():
            yield self._difference(key, subject, f"{which:,} values", "absent", steps[missing])
        if more:
            yield self._difference(key, kinds.STEP, f"{len(steps):,} steps", f"{more:,} more", their_steps)
        for subject, count in _kinds_of(here[unequal]).items():
            chosen = np.flatnonzero(unequal & _is_kind(here, subject))
            at = int(chosen[0])
            told = f"{float(there[at])!r} at step {common[at]}"
            yield self._difference(key, subject, f"{count:,} values, {float(here[at])!r}", told, common[chosen])

    def _difference(self, key: Key, subject: str, here: str, there: str, steps: Integers) -> Difference:
        """Return a difference with its reason, if the limits name one."""
        subjects = {subject}
        if len(steps) and bool(((steps < 0) | (np.abs(steps) > 1 << 53)).all()):
            subjects.add(kinds.STEP)
        if key[1]:
            subjects.add(kinds.RANK)
        return Difference("series", key[0], here, there, key[1], kinds.reason(self._limits, subjects))

    def _absent(
        self, uid: str, ours: Mapping[Key, tuple[int, str]], theirs: Mapping[Key, tuple[int, str]]
    ) -> Iterable[Difference]:
        """Yield the series that only one side has."""
        for (name, rank), (count, _) in ours.items():
            if (name, rank) not in theirs and count:
                why = self._absence(uid, name, rank)
                yield Difference("series", name, f"{count:,} values", "absent", rank, why)
        for (name, rank), (count, _) in theirs.items():
            if (name, rank) not in ours and count:
                told = kinds.reason(self._limits, {kinds.NAMES})
                yield Difference("series", name, "absent", f"{count:,} values", rank, told)

    def _absence(self, uid: str, name: str, rank: int) -> str | None:
        """Return why a whole series may be absent: none of its values can be held there."""
        found = _kinds_of(self._store.series(uid, name, rank=rank).value)
        subjects = set(found) - {kinds.PRECISION} if len(found) == 1 else set()
        return kinds.reason(self._limits, subjects | ({kinds.RANK} if rank else set()))

    def _others(self, uid: str, tally: Tally) -> Iterable[Difference]:
        """Compare texts and artifacts."""
        mine = Tally()
        for event in self._store.outgoing(uid, frozenset({TEXT, FILE})):
            mine.add(event)
        for (name, rank), texts in mine.texts.items():
            there = tally.texts.get((name, rank), [])
            if dict(texts) != dict(there):
                why = kinds.reason(self._limits, {TEXT})
                yield Difference("text", name, f"{len(texts)} texts", f"{len(there)} texts", rank, why)
        for name, parts in mine.files.items():
            seen = set(tally.files.get(name, {}).values()) or {
                digest for several in tally.files.values() for digest in several.values()
            }
            absent = [path for path, digest in parts.items() if digest not in seen]
            if absent:
                why = kinds.reason(self._limits, {FILE}) or (None if FILE in self._backend.kinds else "takes no files")
                told = f"{len(absent)} absent or changed: {absent[0]}"
                yield Difference("artifact", name, f"{len(parts)} files", told, 0, why)


def twin(runs: Sequence[RunInfo], remote: Mapping[str, str], info: RunInfo) -> RunInfo | None:
    """Return the run there that is the one we sent: by what the peer calls it, else by its name."""
    ids = [value for value in remote.values() if len(value) >= _SHORTEST_ID]
    found = [one for one in runs if any(value in one.origin or value == one.uid for value in ids)]
    if len(found) != 1:
        found = [one for one in (found or runs) if one.origin == info.origin] or found
    if len(found) != 1:
        named = [one for one in (found or runs) if one.name == info.name]
        found = [one for one in named if one.project == info.project] or named or found
    return found[0] if found else None


def unpacked(events: Iterable[Event], notes: list[str]) -> Iterable[Event]:
    """Yield events, with those that an artifact of ours holds in its place."""
    for event in events:
        if isinstance(event, File) and leftovers.is_leftover(event):
            yield from leftovers.events(event, notes)
        else:
            yield event


def _named(ours: Mapping[Key, object], sent: Mapping[str, str]) -> Callable[[Key], Key]:
    """Return what turns their name of a series into ours: `rank1/loss` is rank 1's `loss`."""
    back = {there: here for here, there in sent.items()}

    def name(key: Key) -> Key:
        if key in ours:
            return key
        told = back.get(key[0], key[0])
        if (told, key[1]) in ours:
            return told, key[1]
        first, slash, rest = told.partition("/")
        if slash and first.startswith("rank") and first[4:].isdigit():
            return back.get(rest, rest), int(first[4:])
        return told, key[1]

    return name


def _kinds_of(values: Floats) -> dict[str, int]:
    """Return which kinds of values there are, by the word that the limits have for them."""
    found = {subject: int(_is_kind(values, subject).sum()) for subject in _KINDS}
    return {subject: count for subject, count in found.items() if count}


def _is_kind(values: Floats, subject: str) -> npt.NDArray[np.bool_]:
    """Tell which values are of a kind; `PRECISION` is every other."""
    found: npt.NDArray[np.bool_] = _KINDS[subject](values)
    return found


_KINDS: Mapping[str, Callable[[Any], Any]] = {
    kinds.NAN: np.isnan,
    kinds.INFINITE: np.isinf,
    kinds.NEGATIVE_ZERO: lambda values: (values == 0) & np.signbit(values),
    kinds.PRECISION: lambda values: np.isfinite(values) & ~((values == 0) & np.signbit(values)),
}

__all__ = ["Proof", "twin", "unpacked"]
