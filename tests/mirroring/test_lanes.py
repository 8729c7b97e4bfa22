"""A lane hands over everything in order, survives what its peer does, and counts the truth."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest
from programs import CALMLY, await_that

import tracer
from tracer import cursors
from tracer.backends.base import Backend, Limits, Refused, Rejected, RemoteIds, Throttled, Unreachable
from tracer.backends.memory import MemoryBackend
from tracer.cursors import Cursor
from tracer.mirroring.lane import Lane
from tracer.mirroring.patience import Patience
from tracer.mirroring.rules import Rule
from tracer.mirroring.starting import Mirrors, Wanted
from tracer.run import Run
from tracer.testing import FakeClock
from tracer.transfer import FACTS, FILE, POINTS, Event, File, Points, RunInfo


class Picky(MemoryBackend):
    """Does with a batch what `answer` says."""

    kinds: ClassVar[frozenset[str]] = frozenset({POINTS, FACTS, FILE})
    limits: ClassVar[Limits] = Limits(batch=64)

    def __init__(self, answer: Callable[[Sequence[Event]], None], log: list[str] | None = None) -> None:
        super().__init__({})
        self.answer, self.log = answer, log if log is not None else []

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Note that it was opened."""
        self.log.append("open")
        return super().open(run, remote)

    def write(self, events: Sequence[Event]) -> None:
        """Answer, then keep."""
        self.answer(events)
        super().write(events)


class Silent(MemoryBackend):
    """Never comes back from its first batch."""

    hung = threading.Event()

    def write(self, events: Sequence[Event]) -> None:
        """Wait for the end of the test."""
        del events
        self.hung.wait(60)


class Renaming(MemoryBackend):
    """Calls one series something else."""

    def renamed(self) -> dict[str, str]:
        """Tell which."""
        return {"a[0]": "a_x5b_0_x5d_"}


@pytest.fixture(autouse=True)
def _no_runs_left() -> None:
    MemoryBackend.runs.clear()


def begun(**config: object) -> Run:
    return tracer.init(project="mirrors", config=config, **CALMLY)  # type: ignore[arg-type]


def values(run: Run, name: str, rank: int = 0) -> list[tuple[int, float]]:
    """Return what a memory back end has of a series, as it came."""
    events = MemoryBackend.runs[run.run_id]["events"]
    found = [event for event in events if isinstance(event, Points) and (event.name, event.rank) == (name, rank)]  # type: ignore[attr-defined]
    return [pair for one in found for pair in zip(one.steps.tolist(), one.values.tolist(), strict=True)]


def lane_of(run: Run, make: Callable[[], Backend], *rules: Rule, patience: Patience | None = None) -> Lane:
    return Lane(run.folder, Cursor(run.folder, "memory"), make, rules=rules, store_path=".tracer", patience=patience)


def drained(lane: Lane) -> Cursor:
    """Serve a run that is over to its end."""
    ending = threading.Event()
    ending.set()
    lane.serve(ending)
    return Cursor(lane.folder, lane.name)


def mirrors_of(run: Run, *wanted: Wanted, **settings: object) -> Mirrors:
    mirrors = Mirrors(run.folder, ".tracer", wanted, **settings)  # type: ignore[arg-type]
    mirrors.start()
    return mirrors


def test_everything_arrives_in_order_with_facts_files_and_the_end() -> None:
    run = begun(lr=0.1)
    mirrors = mirrors_of(run, Wanted("memory", make=lambda: MemoryBackend({})))
    Path("model.txt").write_text("weights", encoding="utf-8")
    for step in range(2500):
        run.log({"loss": step / 2, "accuracy": 0.5}, step=step)
    tracer.log_artifact("model.txt", name="model")
    run.change({"tags": ["late"]})
    run.finish()

    assert mirrors.finish(30) == []

    assert values(run, "loss") == [(step, step / 2) for step in range(2500)]
    kept = MemoryBackend.runs[run.run_id]
    assert kept["status"] == "completed"
    files = [event for event in kept["events"] if isinstance(event, File)]  # type: ignore[attr-defined]
    assert [(file.name, [part.path for part in file.parts]) for file in files] == [("model", ["model.txt"])]
    facts = [event for event in kept["events"] if isinstance(event, RunInfo)]  # type: ignore[attr-defined]
    assert (facts[-1].tags, facts[-1].status) == (("late",), "completed")
    standing = mirrors.state("memory")
    assert (standing.state, standing.lag, standing.rejected, standing.remote) == (
        "complete", 0, 0, {"run": run.run_id},
    )  # fmt: skip
    assert standing.sent == sum(len(e) if isinstance(e, Points) else 1 for e in kept["events"] if e.KIND != FACTS)  # type: ignore[attr-defined]


def test_a_lane_that_is_stopped_anywhere_goes_on_without_gap_and_without_doubles() -> None:
    run = begun()
    for step in range(500):
        run.log({"loss": float(step)}, step=step)
    run.finish()

    class Small(MemoryBackend):
        limits: ClassVar[Limits] = Limits(batch=30, repeatable=False)

    for _ in range(12):  # as if killed after each batch: a new lane knows only what the file says
        lane_of(run, lambda: Small({})).turn()
    cursor = drained(lane_of(run, lambda: Small({})))

    assert values(run, "loss") == [(step, float(step)) for step in range(500)]
    assert (cursor.state, cursor.said["sent"]) == ("complete", 500)


def test_only_what_is_bad_of_a_batch_is_lost() -> None:
    run = begun()
    for step in range(300):
        run.log({"loss": float(step), "other": 1.0}, step=step)
    run.finish()

    def refuse(events: Sequence[Event]) -> None:
        if any(
            isinstance(event, Points) and event.name == "loss" and (event.values == 117.0).any() for event in events
        ):
            message = "117 is no number."
            raise Rejected(message)

    cursor = drained(lane_of(run, lambda: Picky(refuse)))

    assert [step for step, _ in values(run, "loss")] == [step for step in range(300) if step != 117]
    assert len(values(run, "other")) == 300
    assert (cursor.state, cursor.said["sent"], cursor.said["rejected"]) == ("complete", 599, 1)
    assert cursor.said["reason"] == "117 is no number."


def test_an_error_that_no_contract_names_costs_its_batch_and_not_the_lane() -> None:
    run = begun()
    for step in range(200):
        run.log({"loss": float(step)}, step=step)
    run.finish()
    failing = iter([True, False])

    class Odd(Picky):
        limits: ClassVar[Limits] = Limits(batch=50, repeatable=False)

    def fail_once(events: Sequence[Event]) -> None:
        if any(isinstance(event, Points) for event in events) and next(failing, False):
            raise KeyError("oops")  # noqa: EM101 (as a client does)

    cursor = drained(lane_of(run, lambda: Odd(fail_once)))

    assert cursor.state == "complete"
    assert cursor.said["sent"] + cursor.said["rejected"] == 200
    assert len(values(run, "loss")) == cursor.said["sent"] >= 150
    assert "KeyError" in cursor.said["reason"]


def test_a_dead_peer_is_tried_later_and_later_and_then_with_a_new_client(clock: FakeClock) -> None:
    run = begun()
    run.log({"loss": 1.0}, step=0)
    run.finish()
    opened: list[str] = []
    times: list[float] = []

    def down(_: Sequence[Event]) -> None:
        times.append(clock.monotonic())
        if len(times) <= 9:
            message = "Nobody is there."
            raise Unreachable(message)

    cursor = drained(lane_of(run, lambda: Picky(down, opened), patience=Patience(lambda: 1.0)))

    assert [round(after - before) for before, after in pairwise(times)] == [
        1, 2, 4, 8, 16, 32, 60, 60, 60,
    ]  # fmt: skip
    assert len(opened) == 6  # the first, and one for each try after the fifth failure
    assert (cursor.state, values(run, "loss")) == ("complete", [(0, 1.0)])


def test_a_peer_that_asks_for_time_gets_it(clock: FakeClock) -> None:
    run = begun()
    run.log({"loss": 1.0}, step=0)
    run.finish()
    times: list[float] = []

    def busy(_: Sequence[Event]) -> None:
        times.append(clock.monotonic())
        if len(times) == 1:
            message = "Wait."
            raise Throttled(message, after_s=17.0)

    drained(lane_of(run, lambda: Picky(busy)))

    assert times[1] - times[0] == 17.0


def test_requests_keep_the_pace_that_a_peer_asks_for(clock: FakeClock) -> None:
    run = begun()
    for step in range(200):
        run.log({"loss": 1.0}, step=step)
    run.finish()
    times: list[float] = []

    class Slow(Picky):
        limits: ClassVar[Limits] = Limits(batch=50, requests_per_s=2)

    drained(lane_of(run, lambda: Slow(lambda _: times.append(clock.monotonic()))))

    assert len(times) >= 4
    assert all(after - before >= 0.49 for before, after in pairwise(times))


def test_a_lane_that_is_refused_ends_and_says_so_once() -> None:
    run = begun()
    said: list[str] = []

    def refuse(_: Sequence[Event]) -> None:
        message = "The key is not known."
        raise Refused(message)

    mirrors = mirrors_of(run, Wanted("memory", make=lambda: Picky(refuse)), say=said.append)
    for step in range(10):
        run.log({"loss": 1.0}, step=step)
    await_that(lambda: mirrors.state("memory").state == "refused", "the refusal")
    run.finish()
    told = mirrors.finish(30)

    assert said == ["memory is not served: The key is not known. The run and other back ends go on."]
    assert told == ["memory is 10 points behind (it refused). They are safe in .tracer; send them with `tracer sync`."]


def test_a_client_that_is_missing_is_no_reason_to_try_again() -> None:
    run = begun()
    run.finish()

    def missing() -> Backend:
        message = "no client"
        raise tracer.errors.MissingDependency(message)

    cursor = drained(lane_of(run, missing))

    assert (cursor.state, cursor.said["reason"]) == ("refused", "no client")


def test_one_that_hangs_holds_up_nobody() -> None:
    run = begun()
    mirrors = mirrors_of(
        run, Wanted("silent", make=lambda: Silent({})), Wanted("memory", make=lambda: MemoryBackend({}))
    )
    for step in range(1000):
        run.log({"loss": float(step)}, step=step)
    run.finish()
    before = tracer.clock.monotonic()

    told = mirrors.finish(30)

    assert tracer.clock.monotonic() - before < 5
    assert [sentence.split()[0] for sentence in told] == ["silent"]
    assert "1,000 points behind" in told[0]
    assert mirrors.state("memory").state == "complete"
    assert len(values(run, "loss")) == 1000
    Silent.hung.set()


def test_changed_names_are_sent_as_a_file() -> None:
    run = begun()
    run.log({"a[0]": 1.0})
    run.finish()

    cursor = drained(lane_of(run, lambda: Renaming({})))

    (file,) = [event for event in MemoryBackend.runs[run.run_id]["events"] if isinstance(event, File)]  # type: ignore[attr-defined]
    assert (file.name, file.parts[0].path) == ("tracer", "names.json")
    assert json.loads(Path(file.parts[0].local).read_text(encoding="utf-8")) == cursor.said["names"]
    assert cursors.names(run.folder) == ["memory"]


def test_sixty_four_threads_are_counted_truly() -> None:
    run = begun()
    mirrors = mirrors_of(run, Wanted("memory", make=lambda: MemoryBackend({})))

    def log(number: int) -> None:
        for step in range(50):
            run.log({f"thread/{number}": float(step)}, step=step)

    threads = [threading.Thread(target=log, args=(number,)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    run.finish()

    assert mirrors.finish(60) == []
    assert mirrors.state("memory").sent == 64 * 50
    for number in range(64):
        assert values(run, f"thread/{number}") == [(step, float(step)) for step in range(50)]


def test_a_filter_that_raises_is_told_and_the_rest_goes() -> None:
    run = begun()
    for step in range(10):
        run.log({"loss": float(step)}, step=step)
    run.finish()

    def odd(name: str, step: int, value: object) -> bool:
        if step == 3:
            raise ValueError(name, value)
        return True

    cursor = drained(lane_of(run, lambda: MemoryBackend({}), Rule(where=odd)))

    assert [step for step, _ in values(run, "loss")] == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    assert (cursor.state, cursor.said["sent"], cursor.said["rejected"]) == ("complete", 9, 1)


def test_a_thinned_lane_that_is_stopped_keeps_the_extremes() -> None:
    run = begun()
    for step in range(1000):
        run.log({"loss": 100.0 if step == 555 else float(step % 7)}, step=step)
    run.finish()

    class Small(MemoryBackend):
        limits: ClassVar[Limits] = Limits(batch=30)

    for _ in range(9):
        lane_of(run, lambda: Small({}), Rule(thin=100)).turn()
    drained(lane_of(run, lambda: Small({}), Rule(thin=100)))

    found = values(run, "loss")
    assert len(found) <= 40
    assert (555, 100.0) in found
    assert found == sorted(set(found))
    assert [step for step, _ in found][-1] == 999


def test_a_run_that_died_is_closed_as_crashed() -> None:
    run = begun()
    run.log({"loss": 1.0})
    run.finish()
    facts = json.loads(Path(run.folder, "run.json").read_text(encoding="utf-8"))
    Path(run.folder, "run.json").write_text(
        json.dumps({**facts, "status": "running", "ended": None, "pid": 2**22 + 1}), encoding="utf-8"
    )

    drained(lane_of(run, lambda: MemoryBackend({})))

    assert MemoryBackend.runs[run.run_id]["status"] == "crashed"


def test_a_lane_that_comes_too_late_for_the_journal_gets_everything_from_the_store() -> None:
    from tracer.storage import Store

    run = begun()
    for step in range(700):
        run.log({"loss": float(step), "note": "text" if step == 5 else 1.0}, step=step)
    run.finish()
    with Store.open(".tracer") as store:
        store.fold()
        assert not list(Path(run.folder, "journal").glob("*.trj"))

    cursor = drained(lane_of(run, lambda: MemoryBackend({})))

    assert cursor.state == "complete"
    assert values(run, "loss") == [(step, float(step)) for step in range(700)]


def test_a_lane_that_fell_out_of_the_journal_goes_on_from_the_store_without_doubles() -> None:
    from tracer.storage import Store

    run = begun()
    for step in range(700):
        run.log({"loss": float(step)}, step=step)
    run.finish()

    class Small(MemoryBackend):
        limits: ClassVar[Limits] = Limits(batch=100, repeatable=False)

    lane = lane_of(run, lambda: Small({}))
    lane.turn()
    lane.turn()
    lane.leaving.set()
    lane.serve(threading.Event())
    had = len(values(run, "loss"))
    Cursor(run.folder, "memory").change({"state": cursors.BEHIND, "behind": True})  # the store waits for it no longer
    with Store.open(".tracer") as store:
        store.fold()
        store.release(run.run_id)
        assert not list(Path(run.folder, "journal").glob("*.trj"))

    cursor = drained(lane_of(run, lambda: Small({})))

    assert 0 < had < 700
    assert cursor.state == "complete"
    assert values(run, "loss") == [(step, float(step)) for step in range(700)]
