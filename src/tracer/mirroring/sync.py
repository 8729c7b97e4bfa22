"""What lanes still owe for runs that are over is sent: by `tracer sync`, and for back ends that are added later."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tracer import clock, cursors
from tracer.cursors import BEHIND, COMPLETE, STARTING, UNREACHABLE, Cursor
from tracer.mirroring.lag import lag
from tracer.mirroring.lane import Lane
from tracer.mirroring.locks import serving
from tracer.mirroring.making import make
from tracer.mirroring.options import plain
from tracer.mirroring.rules import Rule

if TYPE_CHECKING:
    from tracer.mirroring.starting import Wanted
    from tracer.storage.store import Store

    Sent = Callable[[str, str, int], None]

_COUNT_S = 5.0
_LOOK_S, _LEAVE_S = 0.05, 1.0
#: A peer that was reached may take so many times longer over one batch.
_SLOW = 6.0


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What became of one lane of one run.

    Args:
        uid: The run.
        name: The lane.
        outcome: `complete`, `owing` (see reason), `served` (somebody else serves it now), or `nothing owed`.
        reason: Why something is still owed, in a sentence.
        sent: Points and other events that were sent now.
        rejected: Those that the peer would not take.
        lag: What is still owed, as far as it can be counted; None where nothing is, or it cannot.
        url: Where a person sees it.
    """

    uid: str
    name: str
    outcome: str
    reason: str = ""
    sent: int = 0
    rejected: int = 0
    lag: int | None = None
    url: str | None = None


def sync(  # noqa: PLR0913 -- one keyword for each thing a person may say
    store: Store,
    uids: Iterable[str],
    *,
    progress: Sent | None = None,
    names: Sequence[str] | None = None,
    add: Sequence[Wanted] = (),
    options: Mapping[str, Mapping[str, object]] | None = None,
    rules: Iterable[Rule | Mapping[str, object]] = (),
    dry_run: bool = False,
    patience_s: float = 10.0,
) -> list[SyncReport]:
    """Send what lanes still owe for runs that are over, whether they finished or died.

    Args:
        store: The store.
        uids: The runs.
        progress: Gets run, lane and how much was sent so far.
        names: Only these lanes.
        add: Back ends that the runs shall go to now although they did not while they lived.
        options: Lane → options, for what is not kept: secrets. These win over the ones that are kept.
        rules: For the lanes that are added; the others keep theirs.
        dry_run: Send nothing, only count.
        patience_s: A lane whose peer does not answer for so long is left owing.
    """
    reports: list[SyncReport] = []
    told = [Rule.of(rule).as_dict() for rule in rules]
    for uid in uids:
        row = store.run(uid)
        folder = store.run_folder(row)
        if not row.is_live:
            for wanted in add:
                if wanted.name not in cursors.names(folder) and not dry_run:
                    _add(folder, wanted, told)
        for cursor in cursors.of_run(folder):
            if names is not None and cursor.name not in names and cursor.said.get("where") not in names:
                continue
            told_now = (options or {}).get(cursor.name) or (options or {}).get(str(cursor.said.get("where")), {})
            one = _One(store, row.uid, folder, cursor, told_now, patience_s)
            given = next((wanted for wanted in add if wanted.name == cursor.name), None)
            reports.append(one.report(is_live=row.is_live, dry_run=dry_run, given=given, progress=progress))
        if not dry_run and not row.is_live:
            store.release(row.uid)
    return reports


class _One:
    """One lane of one run."""

    def __init__(
        self,
        store: Store,
        uid: str,
        folder: str,
        cursor: Cursor,
        options: Mapping[str, object],
        patience_s: float,
    ) -> None:
        self._store, self._uid, self._folder, self._cursor = store, uid, folder, cursor
        self._options, self._patience_s = options, patience_s

    def report(self, *, is_live: bool, dry_run: bool, given: Wanted | None, progress: Sent | None) -> SyncReport:
        """Send what is owed, and say what became of it."""
        if is_live:
            return self._told("served", "The run still records; its own process mirrors it.")
        if self._cursor.state == COMPLETE:
            return self._told("nothing owed")
        if self._cursor.said.get("object") and (given is None or given.make is None):
            reason = "It was an object of the program, which cannot be made again from here."
            return self._told("owing", reason, is_owing=True)
        if dry_run:
            return self._told("owing", str(self._cursor.said.get("reason") or ""), is_owing=True)
        with serving(self._folder, self._cursor.name) as is_ours:
            if not is_ours:
                return self._told("served", "A mirror process serves it now.")
            return self._send(given, progress)

    def _send(self, given: Wanted | None, progress: Sent | None) -> SyncReport:
        """Serve the lane until everything was sent or nothing moves any more."""
        cursor = Cursor(self._folder, self._cursor.name)
        said = cursor.said
        before = int(said.get("sent", 0)), int(said.get("rejected", 0))
        told = {**(said.get("options") or {}), **(given.options if given is not None else {}), **self._options}
        where = str(said.get("where") or "")
        cursor.change({"options": plain(told), "state": STARTING})
        maker = given.make if given is not None and given.make else partial(make, cursor.name, where, told)
        rules = [Rule.of(rule) for rule in said.get("rules", ())]
        lane = Lane(self._folder, cursor, maker, rules=rules, store_path=os.fspath(self._store.path))
        ending = threading.Event()
        ending.set()
        thread = threading.Thread(target=lane.serve, args=(ending,), name=f"tracer-sync-{lane.name}", daemon=True)
        thread.start()
        self._watch(lane, thread, before[0], progress)
        self._cursor = Cursor(self._folder, cursor.name)
        sent = int(self._cursor.said.get("sent", 0)) - before[0]
        rejected = int(self._cursor.said.get("rejected", 0)) - before[1]
        if self._cursor.state == COMPLETE:
            return self._told("complete", str(self._cursor.said.get("reason") or ""), sent=sent, rejected=rejected)
        reason = str(self._cursor.said.get("reason") or "The peer does not answer.")
        return self._told("owing", reason, is_owing=True, sent=sent, rejected=rejected)

    def _watch(self, lane: Lane, thread: threading.Thread, sent_before: int, progress: Sent | None) -> None:
        """Wait for the lane; one that gets no answer is told to leave."""
        mark: tuple[object, ...] = ()
        moved = clock.monotonic()
        while thread.is_alive():
            thread.join(_LOOK_S)
            said, now = lane.cursor.said, clock.monotonic()
            is_away = lane.cursor.state == UNREACHABLE
            found = (said.get("sent"), said.get("rejected"), None if is_away else said.get("updated"))
            if found != mark:
                mark, moved = found, now
                if progress is not None:
                    progress(self._uid, lane.name, int(said.get("sent", 0)) - sent_before)
            if now - moved > (self._patience_s if is_away else _SLOW * self._patience_s):
                lane.leaving.set()
                thread.join(_LEAVE_S)
                return

    def _told(
        self, outcome: str, reason: str = "", *, is_owing: bool = False, sent: int = 0, rejected: int = 0
    ) -> SyncReport:
        """Return the report."""
        owed = lag(self._folder, self._cursor, budget_s=_COUNT_S) if is_owing else None
        count = owed.points if owed is not None and (owed.is_exact or owed.points) else None
        url = self._cursor.said.get("url")
        return SyncReport(self._uid, self._cursor.name, outcome, reason, sent, rejected, count, url)


def _add(folder: str, wanted: Wanted, rules: list[dict[str, object]]) -> None:
    """Make a lane for a run that is over: what it gets comes from the store, for the journal may be gone."""
    told = {"where": wanted.where, "options": plain(wanted.options), "rules": rules, "behind": True, "state": BEHIND}
    Cursor(folder, wanted.name).change(told)


__all__ = ["SyncReport", "sync"]
