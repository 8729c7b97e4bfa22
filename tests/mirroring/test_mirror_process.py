"""The mirror process: everything arrives, whoever is killed; secrets stay in memory; nobody waits for the dead."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from programs import CALMLY, await_line, await_that, start
from tiny_peer import serving, unused_port

import tracer
from tracer.cursors import Cursor
from tracer.mirroring.starting import Mirrors, Wanted
from tracer.mirroring.sync import sync
from tracer.run import Run
from tracer.storage import Store

SECRET = "hunter2-very-secret"  # noqa: S105 (made up)
#: Logs, and then waits to be killed.
TRAINER = """
    import signal, sys, tracer
    from tracer.mirroring.starting import Mirrors, Wanted
    count, way = int(sys.argv[2]), sys.argv[3]
    run = tracer.init(project="mirrors")
    print(run.folder, flush=True)
    mirrors = Mirrors(run.folder, ".tracer", [Wanted.of(way, {"path": sys.argv[1], "address": sys.argv[1]})])
    mirrors.start()
    for step in range(count):
        run.log({"loss": float(step)}, step=step)
    print("logged", flush=True)
    signal.pause()
"""


def lines_of(path: Path) -> list[list[object]]:
    if not path.exists():
        return []
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]  # the last line may be half there
    return [json.loads(line) for line in whole.splitlines()]


def series(path: Path, name: str = "loss") -> list[tuple[object, object]]:
    return [(line[3], line[5]) for line in lines_of(path) if line[0] == "row" and line[1] == name]


def begun() -> Run:
    return tracer.init(project="mirrors", **CALMLY)  # type: ignore[arg-type]


def mirror_pid(folder: str, lane: str) -> int:
    return int(Cursor(folder, lane).said.get("server", 0))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except OSError:
        return False


def synced(folder: str = ".tracer") -> list[str]:
    with Store.open(folder) as store:
        return [report.outcome for report in sync(store, [row.uid for row in store.runs()])]


FILE = "tiny_peer.FileBackend"
#: One whose forked child records on after it has finished.
PARENT = """
    import os, sys, tracer
    from tracer.mirroring.starting import Mirrors, Wanted
    run = tracer.init(project="mirrors")
    mirrors = Mirrors(run.folder, ".tracer", [Wanted.of("tiny_peer:FileBackend", {"path": sys.argv[1]})])
    mirrors.start()
    (reading, writing), (ready, is_ready) = os.pipe(), os.pipe()
    run.log({"loss": 0.0}, step=0)
    child = os.fork()
    if child == 0:
        run.log({"child": 0.0}, step=0)
        os.write(is_ready, b"x")
        os.read(reading, 1)
        for step in range(1, 50):
            run.log({"child": float(step)}, step=step)
        run.finish()
        os._exit(0)
    os.read(ready, 1)
    run.finish()
    print(mirrors.finish(30), flush=True)
    os.write(writing, b"x")
    os.waitpid(child, 0)
"""


def test_a_second_process_takes_everything_and_ends(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    run = begun()
    options = {"path": str(out), "api_key": SECRET}
    mirrors = Mirrors(run.folder, ".tracer", [Wanted.of("tiny_peer:FileBackend", options)])
    before = time.perf_counter()
    mirrors.start()
    took = time.perf_counter() - before
    for step in range(3000):
        run.log({"loss": float(step)}, step=step)
    run.finish()

    assert mirrors.finish(30) == []

    assert took < 0.05
    lines = lines_of(out)
    assert lines[0][0] == "open"
    assert lines[0][3] != os.getpid()
    assert series(out) == [(step, float(step)) for step in range(3000)]
    assert lines[-1][:2] == ["close", "completed"]
    standing = mirrors.state("tiny_peer:FileBackend")
    assert (standing.state, standing.sent, standing.lag) == ("complete", 3000, 0)
    await_that(lambda: not is_alive(mirror_pid(run.folder, FILE)), "the end of the mirror")


def test_what_is_secret_stands_nowhere(tmp_path: Path) -> None:
    run = begun()
    options = {"path": str(tmp_path / "out.jsonl"), "api_key": SECRET, "address": f"http://me:{SECRET}@host/x"}
    mirrors = Mirrors(run.folder, ".tracer", [Wanted.of("tiny_peer:FileBackend", options)])
    mirrors.start()
    run.finish()
    mirrors.finish(30)

    log = Path(run.folder, "mirrors", "mirror.log")
    await_that(lambda: "a banner with [redacted]" in log.read_text(encoding="utf-8"), "the client's banner")
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in Path(run.folder, "mirrors").iterdir()]
    assert not [text for text in texts if SECRET in text]
    assert mirrors.told()[FILE]["options"] == {"path": str(tmp_path / "out.jsonl"), "address": "http://host/x"}


def test_a_back_end_is_added_while_the_run_goes_on(tmp_path: Path) -> None:
    run = begun()
    first, second = tmp_path / "first", tmp_path / "second"
    mirrors = Mirrors(run.folder, ".tracer", [Wanted("one", {"path": str(first)}, where="tiny_peer:FileBackend")])
    mirrors.start()
    for step in range(100):
        run.log({"loss": float(step)}, step=step)
    mirrors.add(Wanted("two", {"path": str(second)}, where="tiny_peer:FileBackend"))
    for step in range(100, 200):
        run.log({"loss": float(step)}, step=step)
    run.finish()

    assert mirrors.finish(30) == []
    assert series(first) == series(second) == [(step, float(step)) for step in range(200)]


def test_a_mirror_that_dies_is_started_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = begun()
    wanted = Wanted("dying", {"path": str(out), "deaths": 1}, where="tiny_peer:Dying")
    mirrors = Mirrors(run.folder, ".tracer", [wanted])
    mirrors.start()
    for step in range(500):
        run.log({"loss": float(step)}, step=step)
    await_that(lambda: len(series(out)) == 500, "the second mirror")
    run.finish()

    assert mirrors.finish(30) == []
    assert series(out) == [(step, float(step)) for step in range(500)]


def test_a_trainer_that_is_killed_is_drained_and_closed_as_crashed(tmp_path: Path) -> None:
    out = tmp_path / "out"
    trainer = start(TRAINER, out, 5000, "tiny_peer:FileBackend")
    folder = await_line(trainer)
    assert await_line(trainer) == "logged"
    await_that(lambda: mirror_pid(folder, FILE), "the mirror")
    os.kill(trainer.pid, signal.SIGKILL)
    trainer.wait()

    await_that(lambda: lines_of(out)[-1:] and lines_of(out)[-1][0] == "close", "the end in the peer")

    assert lines_of(out)[-1][1] == "crashed"
    assert series(out) == [(step, float(step)) for step in range(5000)]


def test_a_run_is_closed_there_once_all_its_processes_have_ended(tmp_path: Path) -> None:
    out = tmp_path / "out"
    parent = start(PARENT, out)

    told = await_line(parent)
    parent.wait()
    await_that(lambda: lines_of(out)[-1:] and lines_of(out)[-1][0] == "close", "the end in the peer")

    assert "closed there once all processes of the run have ended" in told
    assert series(out, "child") == [(step, float(step)) for step in range(50)]
    assert lines_of(out)[-1][1] == "completed"


@pytest.mark.parametrize("victims", ["mirror", "both"])
def test_after_a_kill_in_mid_batch_sync_brings_everything_exactly_once(victims: str) -> None:
    with serving("ok") as peer:
        trainer = start(TRAINER, peer.url, 20000, "tiny_peer:HttpBackend", env={"PYTHONUNBUFFERED": "1"})
        folder = await_line(trainer)
        await_that(lambda: peer.requests > 4, "the first batches")
        mirror = mirror_pid(folder, "tiny_peer.HttpBackend")
        if victims == "both":
            os.killpg(trainer.pid, signal.SIGKILL)
        else:
            os.kill(mirror, signal.SIGKILL)
            assert await_line(trainer) == "logged"
            os.kill(trainer.pid, signal.SIGKILL)
        trainer.wait()
        await_that(lambda: not is_alive(mirror), "the death of the mirror")
        if victims == "mirror":  # it may have been started again before the trainer died
            await_that(lambda: not is_alive(mirror_pid(folder, "tiny_peer.HttpBackend")), "the end of the second")

        first, second = synced(), synced()

        with Store.open(".tracer") as store:
            found = store.series(Path(folder).name, "loss")
        # The last batch may be sent twice, which a peer that knows its points by step and time drops.
        came = list(dict.fromkeys(peer.values("loss")))
        assert came == list(zip(found.step.tolist(), found.value.tolist(), strict=True))
        assert len(peer.values("loss")) - len(came) <= 500
        assert (list(peer.runs), peer.runs["run-1"]["closed"]) == (["run-1"], ["crashed"])
        assert first in (["complete"], ["nothing owed"])
        assert second == ["nothing owed"]


def test_a_dead_server_costs_two_seconds_and_sync_brings_the_rest() -> None:
    port = unused_port()
    run = begun()
    url = f"http://127.0.0.1:{port}"
    wanted = Wanted.of("tiny_peer:HttpBackend", {"address": url})
    before = time.perf_counter()
    mirrors = Mirrors(run.folder, ".tracer", [wanted], linger_s=0)
    mirrors.start()
    assert time.perf_counter() - before < 0.05
    for step in range(1200):
        run.log({"loss": float(step)}, step=step)
    run.finish()
    before = time.perf_counter()

    told = mirrors.finish(30)

    assert time.perf_counter() - before < 3
    (sentence,) = told
    behind, _, remedy = sentence.partition(". ")
    assert behind == "tiny_peer.HttpBackend is 1,200 points behind (server not reachable)"
    assert remedy == "They are safe in .tracer; send them with `tracer sync`."
    await_that(lambda: not is_alive(mirror_pid(run.folder, "tiny_peer.HttpBackend")), "the mirror's end")
    with Store.open(".tracer") as store:
        (report,) = sync(store, [run.run_id], patience_s=0.5)
        assert (report.outcome, report.lag) == ("owing", 1200)
        with serving("ok", port) as peer:
            (report,) = sync(store, [run.run_id])
            assert (report.outcome, report.sent, report.reason) == ("complete", 1200, "")
            assert peer.values("loss") == [(step, float(step)) for step in range(1200)]


def test_a_run_that_is_over_goes_to_a_new_back_end(tmp_path: Path) -> None:
    run = begun()
    for step in range(300):
        run.log({"loss": float(step)}, step=step)
    run.finish()
    out = tmp_path / "out"
    wanted = Wanted.of("tiny_peer:FileBackend", {"path": str(out)})
    with Store.open(".tracer") as store:
        assert sync(store, [run.run_id]) == []
        (report,) = sync(store, [run.run_id], add=[wanted])
        (again,) = sync(store, [run.run_id], add=[wanted])

    assert (report.outcome, report.sent, again.outcome) == ("complete", 300, "nothing owed")
    assert series(out) == [(step, float(step)) for step in range(300)]


def test_a_lane_that_is_served_is_left_alone(tmp_path: Path) -> None:
    from tracer.mirroring.locks import serving as held

    run = begun()
    run.finish()
    wanted = Wanted.of("tiny_peer:FileBackend", {"path": str(tmp_path / "out")})
    with Store.open(".tracer") as store, held(run.folder, wanted.name):
        (report,) = sync(store, [run.run_id], add=[wanted])

    assert report.outcome == "served"


def test_under_a_batch_scheduler_the_mirror_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    from tracer.mirroring.starting import linger

    assert linger() == 60
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    assert linger() == 0
