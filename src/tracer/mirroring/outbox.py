"""What a lane has to send next: what changed of the run's facts, the journal from its place on, new artifacts, the end.

Nothing is taken out of the run: the place moves on when the lane says that a parcel has arrived.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from tracer import clock, cursors, events, runfile
from tracer.mirroring.parcels import Parcel, parcels
from tracer.mirroring.routing import Route, size_of
from tracer.mirroring.tally import Tally
from tracer.mirroring.thinning import Thinner
from tracer.storage.feed import Feed
from tracer.storage.liveness import is_finished, look, process_is_alive
from tracer.storage.tails import list_segments
from tracer.transfer import FACTS, FILE, Event, File, Part, Points, RunInfo, run_info

if TYPE_CHECKING:
    from tracer.backends.base import Backend
    from tracer.cursors import Cursor

_FACTS_S = 2.0
_FILES_S = 5.0
#: So long the other ranks of a run that is over are waited for.
_OTHERS_S = 30.0
#: A pass through the store takes a while: at most one part in so many of the time is spent with it.
_STORE_S, _STORE_SHARE = 15.0, 20.0


class Outbox:
    """The run, as one back end still has to get it.

    Args:
        folder: The run's folder.
        store: The store's folder.
        cursor: The lane's file; read here, written by the lane.
        route: The rules of this back end.
        backend: For its limits.
    """

    def __init__(self, folder: str, store: str, cursor: Cursor, route: Route, backend: Backend) -> None:
        self.tally = Tally(folder, cursor.name)
        self._folder, self._store, self._cursor, self._route = folder, store, cursor, route
        self._kinds, self._limit = backend.kinds, max(backend.limits.batch, 1)
        self._thinner = Thinner(cursor.said.get("thinning"))
        self._feed: Feed | None = None
        self._later: Iterator[Event] | None = None
        self._stamp: tuple[int, ...] = ()
        self._facts: Mapping[str, object] = {}
        self._facts_due = self._files_due = self._store_due = self._pass_began = clock.monotonic()
        self._asked: float | None = None
        self._is_last_pass = self._has_caught_up = False

    def next(self, *, is_last: bool) -> list[Parcel]:
        """Return what comes next; nothing when there is nothing new.

        Args:
            is_last: The run is over: what is looked for only now and then is looked for now.

        Raises:
            StoreError: The run cannot be read.
            OSError: As above.
        """
        found = self._changed_facts(is_last=is_last)
        if self._cursor.said.get("behind"):
            found += self._from_store(is_last=is_last)
        elif not self._has_caught_up:
            found += self._from_journal()
        if not found:
            found = self._files(is_last=is_last)
        return found

    def rest(self, renamed: Mapping[str, str]) -> list[Parcel]:
        """Return what is sent when everything else was: points that were held back, the last facts, changed names.

        Args:
            renamed: Our names and the peer's, where they differ.
        """
        found = parcels(self._thinner.rest(), self._limit, {"thinning": {}}) if self._thinner.waiting else []
        found += self._changed_facts(is_last=True)
        names = {**self._names_before(), **renamed}
        if names != self._names_before():
            about: list[Event] = [self._names_file(names)] if FILE in self._kinds else []
            found.append(Parcel(about, {"names": names}))
        return found

    def info(self) -> RunInfo:
        """Return what is known of the run now; one whose trainer died without a word has crashed."""
        self._facts = runfile.read(self._folder)
        return run_info(self._facts)

    def goes_on(self) -> bool:
        """Tell whether somebody still records: another rank, for a while, or who resumed the run meanwhile."""
        self._facts = runfile.read(self._folder)
        if self._facts.get("status") == events.RUNNING:
            return process_is_alive(self._facts) is True  # where the first rank died, nobody is waited for
        if self._feed is not None:  # what it has open would count as somebody's
            self._feed.close()
            self._feed = None
        now = clock.monotonic()
        self._asked = now if self._asked is None else self._asked
        listed = list_segments(os.path.join(self._folder, "journal")).values()
        return now - self._asked < _OTHERS_S and not all(is_finished(found[-1][1]) for found in listed)

    def ended(self) -> RunInfo:
        """Return what is known of the run that is over."""
        info = self.info()
        if info.status != events.RUNNING:
            return info
        return replace(info, status=events.CRASHED, ended=look(self._folder, self._facts).heartbeat)

    def close(self) -> None:
        """Close what is open."""
        self.tally.save(now=True)
        if self._feed is not None:
            self._feed.close()
            self._feed = None

    # Where it comes from.

    def _changed_facts(self, *, is_last: bool) -> list[Parcel]:
        """Return what is known of the run, if that changed since it was told."""
        now = clock.monotonic()
        if FACTS not in self._kinds or (now < self._facts_due and not is_last):
            return []
        self._facts_due = now + _FACTS_S
        try:
            stat = os.stat(os.path.join(self._folder, runfile.NAME))
        except OSError:
            return []
        stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size, is_last)
        if stamp == self._stamp:
            return []
        self._stamp = stamp
        info = self.ended() if is_last else self.info()
        told = fingerprint(info)
        return [] if told == self._cursor.said.get("facts") else [Parcel([info], {"facts": told})]

    def _from_journal(self) -> list[Parcel]:
        """Return the next batch of the journal."""
        if self._feed is None:
            self._feed = Feed(self._folder, self._cursor.places, kinds=self._route.kinds)
        batch = self._feed.read(self._limit)
        if self._feed.gap:
            return [Parcel([], {"behind": True})]
        places = {writer: list(place) for writer, place in batch.places.items()}
        if not batch.events and places == self._cursor.said.get("places"):
            return []
        return self._sorted(batch.events, {"places": places})

    def _from_store(self, *, is_last: bool) -> list[Parcel]:
        """Return the next batch of what the store has and the peer has not; while the run lives, now and then."""
        from tracer.mirroring.catching_up import owed

        if is_last and not self._is_last_pass:
            self._later, self._is_last_pass = None, True
        if self._later is None:
            if clock.monotonic() < self._store_due and not is_last:
                return []
            self._pass_began = clock.monotonic()
            sent = self.tally.now()
            self._later = owed(self._store, self.info().uid, self._route.kinds, sent, is_last=is_last)
        found: list[Event] = []
        size = 0
        for event in self._later:
            found.append(event)
            size += size_of(event)
            if size >= self._limit:
                return self._sorted(found, {})
        self._later = None
        now = clock.monotonic()
        self._store_due = now + max(_STORE_S, _STORE_SHARE * (now - self._pass_began))
        if is_last:
            self._has_caught_up = True
            return self._sorted(found, {"behind": False, "places": {}})
        return self._sorted(found, {}) if found else []

    def _sorted(self, found: list[Event], after: Mapping[str, object]) -> list[Parcel]:
        """Return what the rules let through, thinned."""
        origins = self._facts.get("origins")
        going: list[Event] = []
        for event, thin in self._route.through(found, origins if isinstance(origins, dict) else {}):
            if thin is None or not isinstance(event, Points):
                going.append(event)
            elif (left := self._thinner.take(event, thin)) is not None:
                going.append(left)
        if self._thinner.waiting:
            after = {**after, "thinning": self._thinner.waiting}
        return parcels(going, self._limit, after)

    def _files(self, *, is_last: bool) -> list[Parcel]:
        """Return the next artifact that the peer has not."""
        now = clock.monotonic()
        if FILE not in self._route.kinds or (now < self._files_due and not is_last):
            return []
        from tracer.storage import outgoing

        sent = list(self._cursor.said.get("artifacts", ()))
        for file in outgoing.files(self._folder, self._store):
            key = f"{file.name}:{file.version}"
            if key not in sent:
                found = [event for event, _ in self._route.through([file], {})]
                return [Parcel(found, {"artifacts": [*sent, key]})]
        self._files_due = now + _FILES_S
        return []

    def _names_before(self) -> dict[str, str]:
        """Return the names that the peer was told of already."""
        return dict(self._cursor.said.get("names") or {})

    def _names_file(self, names: Mapping[str, str]) -> File:
        """Return the artifact that says which names were changed."""
        path = os.path.join(self._folder, cursors.FOLDER, f"{self._cursor.name}.names")
        text = json.dumps(names, indent=1, ensure_ascii=False).encode()
        with open(path, "wb") as file:
            file.write(text)
        digest = hashlib.sha256(text).hexdigest()
        return File("tracer", "names", digest[:12], (Part("names.json", path, len(text), f"sha256:{digest}"),))


def fingerprint(info: RunInfo) -> str:
    """Return what changes when there is something new to tell; the steps alone are not, while it runs."""
    plain = asdict(replace(info, steps=0) if info.status == events.RUNNING else info)
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]


__all__ = ["Outbox", "fingerprint"]
