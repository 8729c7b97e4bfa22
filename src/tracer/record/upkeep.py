"""The background thread of a recorder: seal, sync, prepare, heartbeat.

Everything here is short, or inside calls that release the GIL: Python work on a second thread can cost the training
thread up to one switch interval (5 ms) per hand-over.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable

    from tracer.events import Counters
    from tracer.record.devices import DeviceValues
    from tracer.sink import Guard

import contextlib
import errno
import os
import queue
import threading

from tracer import clock, journal
from tracer.record.seals import SealFile, rescue
from tracer.record.segments import MappedSegment, MemorySegment, Segment, populate, probe
from tracer.record.writer import Host, Steps, Writer

_INTERVAL_S = 1.0
#: Bytes in memory of an appending writer are at risk until they are written.
_APPEND_INTERVAL_S = 0.2
_RETRY_DISK_S = 2.0
#: What is left free when records return from memory to the disk: the end of the run must find room.
_RESERVE = 64 * 1024
#: Syncs refused in a row after which none is tried for a while: each costs every writer a new segment.
_MAX_REFUSALS = 3
_RETRY_SYNC_S = 60.0


class Household(Host):
    """What the upkeep needs of its recorder; a contract, as `Host` is the writers'."""

    devices: DeviceValues
    disk_mode: str
    durability: str
    guard: Guard
    idle: deque[Writer]
    journal_folder: str
    mode: str
    steps: Steps
    waiting: deque[MemorySegment]
    writers: list[Writer]

    @property
    def counters(self) -> Counters:
        """What could not be done so far."""
        raise NotImplementedError

    def writer(self) -> Writer:
        """Return the writer of the thread that asks."""
        raise NotImplementedError

    def prepare_segment(self, writer: Writer) -> Segment | None:
        """Make a writer's next segment ahead of time; None when the disk does not take it."""
        raise NotImplementedError

    def hold_segment(self, segment: MemorySegment) -> None:
        """Keep the image of a segment until the disk takes it."""
        raise NotImplementedError

    def lose_disk(self, error: OSError) -> None:
        """Go on in memory, and say so."""
        raise NotImplementedError


class Upkeep:
    """Looks after the segments of one recorder until it is stopped."""

    def __init__(self, recorder: Household) -> None:
        self._recorder = recorder
        self._woken: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._seals: dict[bytes, SealFile] = {}
        self._lock = threading.Lock()
        self._beginning = threading.RLock()  # reentrant: a signal handler that records may come inside `start`
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._next_round = self._next_retry = self._next_sync = 0.0
        self._refusals = 0
        self._rescuer: Writer | None = None
        self._sealing = 0
        self.cost_s = 0.0
        self.each_second: list[Callable[[], None]] = []

    def start(self) -> None:
        """Start the thread, once."""
        with self._beginning:
            if self._thread is None and not self._stopping.is_set():
                # A daemon: a program must be able to exit whatever the disk does.
                self._thread = threading.Thread(target=self._run, name="tracer-upkeep", daemon=True)
                self._thread.start()

    def wake(self) -> None:
        """Have the thread look now."""
        self._woken.put(None)

    def stop(self, timeout_s: float) -> bool:
        """Seal, sync and close everything; tell whether that was done within the time."""
        with self._beginning:  # a thread that is just being started would finish the same segments a second time
            self._stopping.set()
        if self._thread is None or not self._thread.is_alive():
            self._finish()
        else:
            self.wake()
            clock.wait(self._done, timeout_s)
        return self._done.is_set()

    def seal_all(self, *, sync: bool | None = None) -> None:
        """Vouch for everything committed so far."""
        sync = self._recorder.durability != "none" if sync is None else sync
        if self._sealing == threading.get_ident():
            return  # a signal handler inside our own call: what it wants is being done
        with self._lock:
            self._sealing = threading.get_ident()
            try:
                for writer in list(self._recorder.writers):
                    self._look_after(writer, sync=sync)
            finally:
                self._sealing = 0

    def _run(self) -> None:
        """Look after the segments until stopped."""
        recorder = self._recorder
        while not self._stopping.is_set():
            with contextlib.suppress(queue.Empty):
                self._woken.get(timeout=_APPEND_INTERVAL_S if recorder.mode == "append" else _INTERVAL_S)
            if self._stopping.is_set():
                break
            began = clock.thread_time()
            with recorder.guard("looking after the journal"):
                self._prepare()
                if clock.monotonic() >= self._next_round or recorder.mode == "append":
                    self._round()
            self.cost_s += clock.thread_time() - began
        with recorder.guard("closing the journal"):
            self._finish()

    def _round(self) -> None:
        """Do what is due once a second."""
        self._next_round = clock.monotonic() + _INTERVAL_S * 0.9
        recorder = self._recorder
        if recorder.devices.pending():
            recorder.devices.write_arrived(background=True)
        self.seal_all()
        for writer in recorder.writers:
            if writer.thread is not None and not writer.thread.is_alive():
                writer.thread = None
                recorder.idle.append(writer)  # the next new thread takes it over
        if recorder.mode == "memory" or recorder.waiting:
            self._try_disk()
        for task in self.each_second:
            task()

    def _prepare(self) -> None:
        """Have the next segment ready for each writer that is past the middle of its own."""
        for writer in list(self._recorder.writers):
            wanted = writer.prepared is None and writer.limit == writer.segment.size and not writer.closed
            if not wanted or self._recorder.mode == "memory":
                continue
            current = writer.segment
            following = self._recorder.prepare_segment(writer)
            if following is None:
                continue
            if isinstance(following, MappedSegment):
                populate(following)
            if writer.segment is current and not writer.closed:
                writer.prepared = following
            else:  # the writer could not wait and made one itself; an empty segment leaves no gap in the numbers
                following.close(journal.HEADER_SIZE, self._recorder.steps.step)

    def _look_after(self, writer: Writer, *, sync: bool) -> None:
        """Seal what a writer committed, and finish the segments it left."""
        while writer.retired:
            self._retire(writer, writer.retired[0], sync=sync)
            writer.retired.pop(0)
        segment, end = writer.segment, writer.at
        if segment is not writer.segment:
            return  # it moved on between the two reads; the next round sees it
        if isinstance(segment, MemorySegment):
            if self._recorder.mode == "memory":
                return
            if writer is self._rescuer:  # the disk is back, and nobody will call this one
                writer.enter_next()
            else:
                writer.leave_segment()
        elif self._seal(writer, segment, end, sync=sync):
            for alive in (segment, writer.prepared):
                if alive is not None:
                    with contextlib.suppress(ValueError):  # the writer let go of it meanwhile
                        alive.stamp(closed=False, end=0, steps=self._recorder.steps.step)
        else:
            writer.leave_segment()

    def _retire(self, writer: Writer, segment: Segment, *, sync: bool) -> None:
        """Finish a segment that its writer has left."""
        if isinstance(segment, MemorySegment):
            self._recorder.hold_segment(segment)
            return
        if not self._seal(writer, segment, segment.end, sync=sync) or segment.suspect:
            rescue(self._rescue_writer(), segment)
        segment.close(segment.end, self._recorder.steps.step)

    def _seal(self, writer: Writer, segment: Segment, end: int, *, sync: bool) -> bool:
        """Seal a segment up to `end`; after a refusal it is suspect, and no sync is ever tried on it again."""
        if segment.suspect:
            return False
        if segment.fd >= 0 and os.fstat(segment.fd).st_nlink == 0:
            segment.suspect = True
            self._recorder.lose_disk(OSError(errno.ENOENT, "it was deleted"))
            return False
        sync = sync and clock.monotonic() >= self._next_sync
        fresh = end > segment.sealed
        seals = self._seals.setdefault(writer.id, SealFile(self._recorder.journal_folder, writer.id))
        try:
            seals.seal(segment, end, sync=sync)
        except OSError as error:
            segment.suspect = True
            self._refuse(segment, error)
            return False
        if sync and fresh:
            self._refusals = 0
        return True

    def _refuse(self, segment: Segment, error: OSError) -> None:
        """Take note that the disk did not take what it had promised to."""
        recorder = self._recorder
        recorder.counters.add("sync_failures")
        if not isinstance(segment, MappedSegment):
            recorder.lose_disk(error)
            return
        self._refusals += 1
        if self._refusals >= _MAX_REFUSALS:
            self._next_sync = clock.monotonic() + _RETRY_SYNC_S
        recorder.guard.say(
            "sync",
            f"the disk refused to sync {recorder.journal_folder} ({error.strerror or error}): what was not safe yet is "
            "written again. Until it is synced it survives this program, not a power failure. "
            "Your program is unaffected.",
        )

    def _rescue_writer(self) -> Writer:
        """Return the writer that takes the records of segments the disk refused."""
        if self._rescuer is None or self._rescuer.closed:
            self._rescuer = Writer(self._recorder, self._recorder.steps)
            self._rescuer.thread = None
            self._recorder.writers.append(self._rescuer)
        return self._rescuer

    def _try_disk(self) -> None:
        """See whether the disk takes files again, and give it what waited."""
        if clock.monotonic() < self._next_retry:
            return
        self._next_retry = clock.monotonic() + _RETRY_DISK_S
        recorder = self._recorder
        try:
            os.makedirs(recorder.journal_folder, exist_ok=True)
            probe(recorder.journal_folder)
            self._save_waiting(sync=recorder.durability != "none")
        except OSError:
            return
        recorder.mode = recorder.disk_mode
        recorder.counters.set("records_in_memory", 0)

    def _save_waiting(self, *, sync: bool) -> None:
        """Write what waits in memory, the oldest first; raises `OSError` when the disk refuses."""
        recorder = self._recorder
        while recorder.waiting:
            state = os.statvfs(recorder.journal_folder)
            if state.f_bavail * state.f_frsize < recorder.waiting[0].end + _RESERVE:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            recorder.waiting[0].save(recorder.steps.step, sync=sync)
            recorder.waiting.popleft().release()

    def _finish(self) -> None:
        """Seal and close every segment; what lies in memory gets its last chance."""
        recorder = self._recorder
        with self._lock:
            if self._done.is_set():
                return
            for writer in recorder.writers:
                writer.close()
                self._close_writer(writer)
            for seals in self._seals.values():
                seals.close()
        self._next_retry = 0.0
        if recorder.waiting:
            self._try_disk()
        with contextlib.suppress(OSError):  # a disk that refuses to sync may still take it
            self._save_waiting(sync=False)
        for segment in recorder.waiting:
            recorder.counters.add("records_lost", segment.count)
        recorder.counters.set("records_in_memory", 0)
        self._done.set()

    def _close_writer(self, writer: Writer) -> None:
        """End a writer's chain of segments."""
        writer.end_segment()
        sync = self._recorder.durability != "none"
        while writer.retired:
            self._retire(writer, writer.retired.pop(0), sync=sync)
        if writer.prepared is not None:
            writer.prepared.discard()
            writer.prepared = None
