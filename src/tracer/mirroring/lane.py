"""One back end of one run: hands over what its outbox has, in order, and survives whatever the peer does.

What `log` returned from is in the journal, so a lane holds nothing but the batch that is on its way. Its place in the
journal is saved after the peer has taken a batch: kill it at any time, and at most that batch is sent twice.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from tracer import clock
from tracer.backends.base import Backend, BackendError, Refused, Rejected, Throttled, Unreachable
from tracer.capture.origins import feeding
from tracer.cursors import ACTIVE, BEHIND, COMPLETE, REFUSED, STARTING, UNREACHABLE
from tracer.errors import TracerError
from tracer.mirroring.outbox import Outbox, fingerprint
from tracer.mirroring.parcels import Parcel
from tracer.mirroring.patience import Patience
from tracer.mirroring.routing import Route
from tracer.routing import Attempt

if TYPE_CHECKING:
    from tracer.cursors import Cursor
    from tracer.mirroring.rules import Rule

_POLL_S = 0.5
#: How often it is asked whether the other processes of the run have ended.
_ENDING_S = 0.25
#: A peer that asks to wait longer is asked again after this.
_LONGEST_WAIT_S = 600.0
#: So many times a batch that was refused is parted, to find the point that is to blame.
_SPLITS = 64
#: So often opening may fail for a reason that no contract names.
_OPENINGS = 5


class _Unforeseen(Rejected):
    """The back end raised what no contract names."""


class Lane:
    """Serves one back end.

    Args:
        folder: The run's folder.
        cursor: The lane's file.
        make: Makes the back end, its client imported.
        rules: What goes where.
        store_path: The store's folder.
        patience: When a peer that fails is tried again.
        poll_s: How often the journal is looked at when nothing comes.
    """

    def __init__(
        self,
        folder: str,
        cursor: Cursor,
        make: Callable[[], Backend],
        *,
        rules: Iterable[Rule] = (),
        store_path: str = "",
        patience: Patience | None = None,
        poll_s: float = _POLL_S,
    ) -> None:
        self.name, self.folder, self.cursor = cursor.name, folder, cursor
        #: Set from outside to have the lane leave at once; what it owes stays owed.
        self.leaving = threading.Event()
        self._make, self._rules, self._store, self._poll_s = make, list(rules), store_path, poll_s
        self._patience = patience or Patience()
        self._saying = threading.Lock()
        self._backend: Backend | None = None
        self._outbox: Outbox | None = None
        self._route: Route | None = None
        self._waiting: deque[Parcel] = deque()
        self._write_due = 0.0
        self._openings = self._splits = self._sent_here = self._filters_failed = 0
        self._seconds = 0.0

    @property
    def is_over(self) -> bool:
        """Whether nothing more is done here: everything was sent, or the peer refuses us."""
        return self.cursor.state in (COMPLETE, REFUSED)

    def serve(self, ending: threading.Event) -> None:
        """Send until the run is over and everything was sent, the peer refuses us, or `leaving` is set.

        Args:
            ending: Set once nothing more is recorded, and `run.json` says how it ended.
        """
        with feeding("tracer"):  # a peer's client that is listened to in this process must not be heard
            while not (self.is_over or self.leaving.is_set()):
                was_ending = ending.is_set()
                found = self._attempted(partial(self.turn, is_last=was_ending), ending)
                if found is False and was_ending:
                    self._attempted(self.finish, ending)
                elif found is False:
                    clock.wait(ending, self._poll_s)
        if self._outbox is not None:
            self._outbox.close()

    def turn(self, *, is_last: bool = False) -> bool:
        """Do the next small thing; tell whether there was something to do.

        Args:
            is_last: Nothing more is recorded: what is only looked for now and then is looked for now.

        Raises:
            BackendError: The peer did not take it; the next turn tries the same again.
        """
        outbox = self._opened()
        if not self._waiting:
            self._splits = 0
            self._waiting += outbox.next(is_last=is_last)
        if not self._waiting:
            return False
        self._deliver(self._waiting[0])
        return True

    def finish(self) -> None:
        """Send what belongs to the end; when there is nothing more of it, end the run in the peer.

        Raises:
            BackendError: The peer did not take it.
        """
        outbox = self._opened()
        backend = self._backend
        assert backend is not None  # noqa: S101 -- there is one while the outbox is open
        self._waiting += outbox.rest(backend.renamed())
        if self._waiting:
            return
        if outbox.goes_on():
            clock.wait(self.leaving, _ENDING_S)
            return
        info = outbox.ended()
        try:
            self._call(lambda: backend.close(info.status, info.ended))
        except Rejected as error:
            self.say(state=COMPLETE, reason=f"The end of the run was not taken: {error}")
            return
        self.say(state=COMPLETE, url=backend.url(), **({} if self.cursor.said.get("rejected") else {"reason": ""}))

    def say(self, **changes: object) -> None:
        """Write into the lane's file; a disk that does not take it is no reason to stop."""
        with self._saying, Attempt():
            self.cursor.change({**changes, "updated": clock.now_us()})

    # Opening.

    def _opened(self) -> Outbox:
        """Return the outbox, once the run exists in the peer."""
        if self._outbox is not None and self._backend is not None:
            return self._outbox
        with Attempt() as attempt:
            backend = self._make()
            self._route = self._route or Route(self.name, self._rules, backend.kinds)
        if attempt.error is not None:
            if isinstance(attempt.error, BackendError):
                raise attempt.error
            # A client that is missing or an option that cannot be: waiting mends neither.
            raise Refused(str(attempt.error) if isinstance(attempt.error, TracerError) else attempt.said)
        if self._outbox is None and self._route is not None:
            self._outbox = Outbox(self.folder, self._store, self.cursor, self._route, backend)
        outbox = self._outbox
        assert outbox is not None  # noqa: S101 -- made above
        self._backend = backend
        self._open(backend, outbox)
        return outbox

    def _open(self, backend: Backend, outbox: Outbox) -> None:
        """Create or resume the run in the peer, and keep what it is called there."""
        info = outbox.info()
        remote: dict[str, str] = {}
        self.say()  # it is tried now, and was not before
        try:
            self._call(lambda: remote.update(backend.open(info, dict(self.cursor.said["remote"]))))
        except Rejected as error:
            self._backend = None
            self._openings += 1
            if isinstance(error, _Unforeseen) and self._openings < _OPENINGS:
                raise Unreachable(str(error)) from error
            raise Refused(str(error)) from error
        except BackendError:
            self._backend = None
            raise
        told: dict[str, object] = {"remote": remote, "url": backend.url(), "facts": fingerprint(info)}
        told["kinds"] = sorted(backend.kinds)
        if self._patience.failures == 0:  # else it has to take something first
            told |= {"state": BEHIND if self.cursor.said.get("behind") else ACTIVE, "reason": ""}
        self.say(**told)

    # Sending.

    def _deliver(self, parcel: Parcel) -> None:
        """Send one parcel; one that is refused is parted until only what is to blame is lost."""
        lost, reason = 0, None
        if parcel.events:
            backend = self._backend
            assert backend is not None  # noqa: S101 -- there is one while something waits
            self._pace(backend.limits.requests_per_s)
            try:
                self._call(lambda: backend.write(parcel.events))
            except Rejected as error:
                lost, reason = parcel.size if error.lost is None else error.lost, str(error)
                halves = parcel.parted() if error.lost is None else None
                # After an error that no contract names nobody knows what the peer has of the batch.
                is_safe = backend.limits.repeatable or not isinstance(error, _Unforeseen)
                if halves and is_safe and self._splits < _SPLITS:
                    self._splits += 1
                    self._waiting.popleft()
                    self._waiting.extendleft(reversed(halves))
                    return
        self._waiting.popleft()
        self._note(parcel, lost, reason)

    def _note(self, parcel: Parcel, lost: int, reason: str | None) -> None:
        """Write down that a parcel is done with."""
        said = self.cursor.said
        if lost < parcel.size and self._outbox is not None:
            self._outbox.tally.add(event for event in parcel.events if event.KIND != "facts")
            self._outbox.tally.save()
        self._sent_here += parcel.size - lost
        changes = {**parcel.after, "sent": said.get("sent", 0) + parcel.size - lost}
        if self._route is not None and self._route.failed > self._filters_failed:
            lost, reason = lost + self._route.failed - self._filters_failed, self._route.error
            self._filters_failed = self._route.failed
        if lost or reason:
            changes |= {"rejected": said.get("rejected", 0) + lost, "reason": reason}
        if self._seconds:
            changes["rate"] = round(self._sent_here / self._seconds)
        if said.get("behind") and changes.get("behind") is False:
            changes["state"] = ACTIVE
        elif changes.get("behind"):
            changes |= {"state": BEHIND, "reason": "The journal went on without it; the store has everything."}
        self.say(**changes)

    def _pace(self, requests_per_s: float | None) -> None:
        """Wait until the peer may be asked again."""
        now = clock.monotonic()
        if requests_per_s:
            if now < self._write_due:
                clock.wait(self.leaving, self._write_due - now)
            self._write_due = max(now, self._write_due) + 1 / requests_per_s

    def _call(self, call: Callable[[], object]) -> None:
        """Call the back end; what no contract names counts as a batch that is refused."""
        before = clock.monotonic()
        with Attempt() as attempt:
            call()
        self._seconds += clock.monotonic() - before
        if isinstance(attempt.error, BackendError):
            raise attempt.error
        if attempt.error is not None:
            raise _Unforeseen(attempt.said) from attempt.error

    # Failing.

    def _attempted(self, work: Callable[[], bool | None], ending: threading.Event) -> bool | None:
        """Do something; a failure is waited out or ends the lane, and None tells of it."""
        with Attempt() as attempt:
            found = work()
            if self.cursor.state in (STARTING, UNREACHABLE):
                self._patience.worked()
                self.say(state=BEHIND if self.cursor.said.get("behind") else ACTIVE, reason="", failures=0)
            return bool(found)
        error = attempt.error
        if isinstance(error, Refused):
            self.say(state=REFUSED, reason=str(error))
        elif isinstance(error, Throttled):
            self.say(reason=str(error))
            clock.wait(self.leaving, min(max(error.after_s, 0.0), _LONGEST_WAIT_S))
        else:
            is_theirs = isinstance(error, BackendError)
            delay = self._patience.failed()
            state = UNREACHABLE if is_theirs else self.cursor.state
            self.say(state=state, reason=str(error) if is_theirs else attempt.said, failures=self._patience.failures)
            if is_theirs and self._patience.is_open:
                self._backend = None  # what a client remembers of a dead connection goes with it
            # When the run ends, the peer is tried once more at once.
            clock.wait(self.leaving if ending.is_set() else ending, delay)
        return None


__all__ = ["Lane"]
