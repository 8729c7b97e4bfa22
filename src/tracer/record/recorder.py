"""One run's recorder in one process: a writer per thread, the upkeep of their segments, and a bounded end.

`log` is found through a thread-local, so nothing is shared between threads and nothing is locked.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from tracer.events import Counters, Histograms, LayerValues
    from tracer.record.identity import Place
    from tracer.sink import Guard

import contextlib
import os
import threading
import weakref
from collections import deque

from tracer import clock, journal
from tracer.errors import UsageError
from tracer.record.devices import DeviceValues
from tracer.record.identity import identity
from tracer.record.segments import SIDE_SIZE, SIZES, MemorySegment, Segment, open_segment
from tracer.record.upkeep import Household, Upkeep
from tracer.record.writer import Steps, Writer

#: Images of segments that wait for the disk; beyond this the oldest are dropped and counted.
_MEMORY_BYTES = 64 * 1024 * 1024
_MEMORY_SEGMENT = 1024 * 1024


class Here(threading.local):
    """What this thread writes with; `writer` is set by the thread's first call."""

    writer: Writer


class Recorder(Household):
    """Records the events of one run in this process.

    Args:
        folder: The run's folder.
        uid: The run's id.
        place: Where this process stands in its job.
        mode: `mapped` or `append`.
        durability: `interval`, `step` or `none`.
        guard: Takes what goes wrong.
        name: The run's name, for messages.
        role: `main`, or `worker` in a process that joined its parent's run.
    """

    def __init__(
        self,
        folder: str,
        uid: str,
        place: Place,
        *,
        mode: str,
        durability: str,
        guard: Guard,
        name: str,
        role: str = "main",
    ) -> None:
        self.folder, self.uid, self.place, self.mode, self.durability = folder, uid, place, mode, durability
        self.guard, self.name, self.role = guard, name, role
        self.steps = Steps()
        self.here = Here()
        self.pid = os.getpid()
        self.disk_mode = mode
        self.closed = False
        self.journal_folder = os.path.join(folder, "journal")
        with contextlib.suppress(OSError):  # the first segment meets the same refusal, and goes on in memory
            os.makedirs(self.journal_folder, exist_ok=True)
        self.waiting: deque[MemorySegment] = deque()
        self._begin()
        _recorders.add(self)

    @property
    def counters(self) -> Counters:
        """What could not be done so far."""
        return self.guard.counters

    def writer(self) -> Writer:
        """Return this thread's writer, made at its first call."""
        try:
            return self.here.writer
        except AttributeError:
            return self._first_writer()

    def append(self, kind: int, value: object, step: int | None = None, time: float | None = None) -> None:
        """Record an event whose payload is JSON."""
        self.writer().append(kind, journal.json_payload(value), step, time)

    def append_layers(self, event: LayerValues) -> None:
        """Record one value per statistic and layer."""
        step = self.steps.step if event.step is None else event.step
        time = clock.now() if event.time is None else event.time
        self.writer().append_layers(event.axis, bytes(event.matrix), step, time)

    def append_histograms(self, event: Histograms) -> None:
        """Record how the values of each layer are spread over the powers of two."""
        step = self.steps.step if event.step is None else event.step
        time = clock.now() if event.time is None else event.time
        counts = bytes(event.counts)
        self.writer().append_histograms(event.axis, (event.lowest, event.bins, counts), step, time)

    def row(self, values: Mapping[str, float], step: int, time: float) -> None:
        """Record a row with a time of its own, in this thread's segment."""
        self.writer().row(values, step, time)

    def end_step(self) -> None:
        """Do what a step asks for: start the copies of device values, sync if every step must survive a crash."""
        if self.devices.pending():
            with self.guard("reading values of a device"):
                self.devices.copy()
                self.devices.write_arrived()
        if self.durability == "step":
            with self.guard("syncing the journal"):
                self.upkeep.seal_all()

    @property
    def has_work_at_each_step(self) -> bool:
        """Whether the end of the next step takes more than counting."""
        return self.durability == "step" or self.devices.pending()

    def current_values(self) -> dict[str, object]:
        """Return the last value of each name since the last checkpoint."""
        values: dict[str, object] = {}
        for writer in self.writers:
            values.update(writer.last_values())
        return values

    def begin_checkpoint(self) -> None:
        """Forget what was current: the next checkpoint begins."""
        for writer in self.writers:
            writer.forget_values()

    def flush(self) -> None:
        """Wait until everything recorded so far survives a crash of the machine."""
        with self.guard("syncing the journal"):
            if self.devices.pending():
                self.devices.copy()
                self.devices.write_arrived(wait=True)
            self.upkeep.seal_all(sync=True)

    def close(self, timeout_s: float) -> bool:
        """End recording; tell whether everything was synced within the time.

        What `log` returned from is in the page cache already: a slow disk costs the promise against power loss only.
        """
        if self.closed:
            return True
        if self.devices.pending():
            with self.guard("reading values of the device"):
                self.devices.copy()
                self.devices.write_arrived(wait=True)
        self.closed = True
        for writer in self.writers:
            writer.close()
        return self.upkeep.stop(timeout_s)

    # The contract with the writers.

    def open_segment(self, writer: Writer, needed: int) -> Segment:
        """Make the next segment; on a full disk it lies in memory until the disk takes files again."""
        number = next(writer.numbers)
        if self.mode != "memory":
            if number > 0 and writer.limit >= 0:  # below: it was told to leave its segment
                self.counters.add("segments_late")
            try:
                return self._open(self.mode, writer, number, max(needed, _size(number)), needed)
            except OSError as error:
                self.lose_disk(error)
        return self._open("memory", writer, number, max(needed, _MEMORY_SEGMENT))

    def prepare_segment(self, writer: Writer) -> Segment | None:
        """Make a writer's next segment ahead of time; None when the disk does not take it."""
        number = next(writer.numbers)
        try:
            return self._open(self.disk_mode, writer, number, self._size_ahead(number))
        except OSError as error:
            self.lose_disk(error)
            return None

    def ask_for_segment(self, writer: Writer) -> None:  # noqa: ARG002 -- the upkeep thread looks at all writers
        """Wake the upkeep thread; a `SimpleQueue` is the one wake-up that is safe inside a signal handler."""
        self.upkeep.wake()

    def hold_device_values(self, values: Mapping[str, object], step: int) -> None:
        """Keep values that lie on a device until they have arrived."""
        self.steps.due = 0  # the end of this step begins their copy
        held = False
        with self.guard("reading values of a device"):
            try:
                self.devices.hold(values, step, clock.now())
                held = True
                self.devices.write_arrived()
            finally:
                if not held:
                    self.counters.add("device_values_lost", len(values))

    def new_writer(self, thread: threading.Thread | None) -> Writer:
        """Return a writer for a thread: one whose thread has ended, else a new one."""
        try:
            writer = self.idle.pop()  # one step, so that no two threads ever get the same
        except IndexError:
            writer = Writer(self, self.steps)
            self.writers.append(writer)
        writer.take_over(thread)
        return writer

    def say_many_schemas(self) -> None:
        """Say that the names of metrics change without end."""
        self.guard.say(
            "many schemas",
            f"more than {journal.MAX_SCHEMAS} different sets of metric names were logged. All are recorded, but each "
            "`log` costs more. If a name holds the step or a batch number, pass it as `step=` instead.",
        )

    def finished_message(self) -> str:
        """Say that the run is over."""
        return (
            f"Run {self.name!r} is finished; its metrics cannot change. "
            f"Continue it with tracer.init(resume={self.name!r}), or begin a new one with tracer.init(project=...)."
        )

    def lose_disk(self, error: OSError) -> None:
        """Go on in memory, and say so."""
        self.mode = "memory"
        counted = self.counters.nonzero()
        held = (
            f"{counted.get('records_in_memory', 0)} records are held in memory, {counted.get('records_lost', 0)} lost"
        )
        reason = error.strerror or str(error)
        self.guard.say(
            "disk", f"cannot write to {self.journal_folder} ({reason}): {held} so far. Your program is unaffected."
        )

    def hold_segment(self, segment: MemorySegment) -> None:
        """Keep the image of a segment until the disk takes it; the oldest goes first when there are too many."""
        self.waiting.append(segment)
        while sum(held.end for held in self.waiting) > _MEMORY_BYTES:
            dropped = self.waiting.popleft()
            self.counters.add("records_lost", dropped.count)
            dropped.release()
        self.counters.set("records_in_memory", sum(held.count for held in self.waiting))

    # Threads and forks.

    def _begin(self) -> None:
        """Start empty: at first, and again in a forked child."""
        # Cleared and not replaced: whoever keeps `here` at hand must not find the parent's writer in a forked child.
        self.here.__dict__.clear()
        self.writers: list[Writer] = []
        self.idle: deque[Writer] = deque()  # those whose thread has ended
        self._identity = identity(self.uid, os.path.basename(self.folder), self.place, self.role, self.mode)
        self.devices = DeviceValues(self.row, lambda count: self.counters.add("device_values_lost", count))
        self.upkeep = Upkeep(self)

    def _first_writer(self) -> Writer:
        """Make this thread's writer and, with the first one, the upkeep thread."""
        if self.closed:
            raise UsageError(self.finished_message())
        writer = self.new_writer(threading.current_thread())
        self.here.writer = writer
        self.upkeep.start()
        return writer

    def _open(self, mode: str, writer: Writer, number: int, size: int, needed: int = 0) -> Segment:
        """Make a segment; its header names the thread that writes it."""
        said = {**self._identity, "thread": threading.get_native_id(), "opened": clock.now_us()}
        return open_segment(self.journal_folder, mode, writer.id, number, size, said, needed=needed)

    def _size_ahead(self, number: int) -> int:
        """Return the size of a segment made ahead: small ones when the disk is nearly full."""
        size = _size(number)
        try:
            state = os.statvfs(self.journal_folder)
        except OSError:
            return size
        free, whole = state.f_bavail * state.f_frsize, state.f_blocks * state.f_frsize
        return SIZES[0] if free < max(whole // 100, 256 * 1024 * 1024) else size

    def after_fork(self) -> None:
        """In a forked child: let go of the parent's segments and begin anew; they must never be written twice."""
        for writer in self.writers:
            for segment in (writer.segment, writer.prepared, *writer.retired):
                if segment is not None and segment.fd >= 0:
                    os.close(
                        segment.fd
                    )  # the lock belongs to the open file: a child that kept it would keep a dead run alive
                    segment.fd = -1
        self._close_inherited()
        self.pid, self.role, self.waiting = os.getpid(), "child", deque()
        self.mode = self.disk_mode
        if not self.closed:
            self._begin()

    def _close_inherited(self) -> None:
        """In a forked child: close the journal's files that another thread of the parent had just opened."""
        with contextlib.suppress(OSError):  # no such folder: not Linux
            for name in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(f"/proc/self/fd/{name}").startswith(self.journal_folder + os.sep):
                        os.close(int(name))


def _size(number: int) -> int:
    """Return the size of a thread's segment by its number; threads beside the main one begin small."""
    if number == 0 and threading.current_thread() is not threading.main_thread():
        return SIDE_SIZE
    return SIZES[min(number, len(SIZES) - 1)]


_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    """Give every recorder of the parent a fresh start in the child."""
    for recorder in list(_recorders):
        recorder.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
