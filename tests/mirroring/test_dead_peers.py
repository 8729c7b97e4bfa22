"""A peer that is dead, slow or mad costs the training nothing, the end two seconds, and the data not a point."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import pytest
from programs import CALMLY, await_that
from tiny_peer import POISON, Peer, serving

import tracer
from tracer.mirroring.starting import Mirrors, Wanted
from tracer.mirroring.sync import sync
from tracer.run import Run
from tracer.storage import Store

#: No connection, or one that is of no use.
AWAY = ("hang", "500", "slow")
LANE = "tiny_peer.HttpBackend"
COUNT = 1500


def begun() -> Run:
    return tracer.init(project="mirrors", **CALMLY)  # type: ignore[arg-type]


def mirrors_of(run: Run, peer: Peer, lane: str = "thread") -> Mirrors:
    wanted = Wanted.of("tiny_peer:HttpBackend", {"address": peer.url, "timeout_s": 0.7})
    mirrors = Mirrors(run.folder, ".tracer", [wanted], lane=lane, linger_s=0, say=lambda _: None)
    mirrors.start()
    return mirrors


def log_all(run: Run, count: int = COUNT) -> None:
    for step in range(count):
        run.log({"loss": float(step)}, step=step)


def all_of(count: int = COUNT) -> list[tuple[int, float]]:
    return [(step, float(step)) for step in range(count)]


def timed(work: Callable[[], list[str]]) -> tuple[list[str], float]:
    before = time.perf_counter()
    return work(), time.perf_counter() - before


@pytest.mark.parametrize("lane", ["thread", "process"])
@pytest.mark.parametrize("mode", AWAY)
def test_a_peer_that_is_away_is_not_waited_for(mode: str, lane: str) -> None:
    with serving(mode) as peer:
        run = begun()
        mirrors = mirrors_of(run, peer, lane)
        log_all(run)
        run.finish()

        told, took = timed(lambda: mirrors.finish(30))

        assert took < (3 if lane == "thread" else 5)  # a process begins first, on a machine that is busy
        assert len(told) == 1
        assert f"{COUNT:,} points behind" in told[0]
        assert mirrors.state(LANE).lag == COUNT

        peer.mode = "ok"
        with Store.open(".tracer") as store:
            outcomes: list[str] = []
            await_that(
                lambda: outcomes.append(sync(store, [run.run_id])[0].outcome) or outcomes[-1] != "served",
                "the lane to be free",
            )
        await_that(lambda: mirrors.state(LANE).state == "complete", "everything")
        # Whose answer to `open` was lost has an empty run more: only the peer could know that it is the same.
        assert list(dict.fromkeys(peer.values("loss", list(peer.runs)[-1]))) == all_of()


def test_a_peer_that_comes_back_gets_the_oldest_first_without_gap_or_double() -> None:
    with serving("500") as peer:
        run = begun()
        mirrors = mirrors_of(run, peer)
        log_all(run)
        await_that(lambda: mirrors.state(LANE).state == "unreachable", "the outage to be noticed")
        assert "500" in mirrors.state(LANE).reason
        peer.mode = "ok"
        await_that(lambda: mirrors.state(LANE).state == "active", "the return")
        run.finish()

        assert mirrors.finish(30) == []
        assert peer.values("loss") == all_of()


def test_a_peer_that_flaps_gets_everything_once() -> None:
    with serving("flap") as peer:
        run = begun()
        mirrors = mirrors_of(run, peer)
        log_all(run, 400)
        run.finish()
        mirrors.finish(30)
        await_that(lambda: mirrors.state(LANE).state == "complete", "everything, in spite of all")

        assert peer.values("loss") == all_of(400)
        assert list(peer.runs) == ["run-1"]


def test_a_connection_that_ends_in_the_answer_doubles_one_batch_at_most() -> None:
    with serving("torn") as peer:
        run = begun()
        mirrors = mirrors_of(run, peer)
        log_all(run)
        run.finish()
        mirrors.finish(30)
        await_that(lambda: mirrors.state(LANE).state == "complete", "everything")

        came = peer.values("loss")
        assert list(dict.fromkeys(came)) == all_of()
        assert len(came) - COUNT <= 500


def test_a_peer_that_throttles_is_waited_for() -> None:
    with serving("429") as peer:
        run = begun()
        mirrors = mirrors_of(run, peer)
        log_all(run, 100)
        await_that(lambda: peer.requests > 3, "it to be asked again")
        assert mirrors.state(LANE).state == "starting"
        peer.mode = "ok"
        run.finish()

        assert mirrors.finish(30) == []
        assert peer.values("loss") == all_of(100)


def test_credentials_that_are_refused_end_the_lane_and_sync_tries_again() -> None:
    with serving("401") as peer:
        run = begun()
        mirrors = mirrors_of(run, peer)
        log_all(run, 100)
        run.finish()
        told, took = timed(lambda: mirrors.finish(30))

        assert took < 2
        assert "it refused" in told[0]
        peer.mode = "ok"
        with Store.open(".tracer") as store:
            (report,) = sync(store, [run.run_id])
        assert report.outcome == "complete"
        assert peer.values("loss") == all_of(100)


def test_one_bad_value_is_told_and_nothing_else_is_lost() -> None:
    with serving("strict") as peer:
        run = begun()
        mirrors = mirrors_of(run, peer)
        log_all(run, 50)
        run.log({POISON: 1.0, "after": 2.0}, step=50)
        run.finish()

        told = mirrors.finish(30)

        assert told == [f"{LANE} did not take 1 values (The server answered 400.)."]
        assert (peer.values("loss"), peer.values("after")) == (all_of(50), [(50, 2.0)])


def test_logging_does_the_same_work_with_a_dead_peer_as_with_none() -> None:
    def calls(run: Run) -> int:
        """Count the Python calls that a hundred records make on the caller's thread."""
        count = 0

        def note(_: object, event: str, __: object) -> None:
            nonlocal count
            count += event == "call"

        sys.setprofile(note)
        try:
            for step in range(100):
                run.log({"loss": 1.0}, step=step)
        finally:
            sys.setprofile(None)
        return count

    alone = begun()
    expected = calls(alone)
    alone.finish()
    with serving("hang") as peer:
        run = begun()
        mirrors = mirrors_of(run, peer)
        await_that(lambda: peer.requests, "the peer to be asked")
        assert calls(run) == expected
        run.finish()
        mirrors.finish(1)
