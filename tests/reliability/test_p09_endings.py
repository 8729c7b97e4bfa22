"""P9: every end is told: a run is completed, failed or crashed, and none stays running for ever."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from journals import only_run
from programs import await_line, await_that, kill, run, start

from tracer import runfile
from tracer.storage import Store
from tracer.storage.values import RunRow


def the_run(tmp_path: Path) -> RunRow:
    """Return the one run of the store, as a reader sees it now."""
    with Store.open(tmp_path / ".tracer") as store:
        (row,) = store.runs()
        return row


ENDINGS = {
    "end": ("", 0, "completed", None),
    "exception": ("raise ValueError('bad batch')", 1, "failed", "ValueError: bad batch"),
    "exit 3": ("sys.exit(3)", 3, "failed", "sys.exit(3)"),
    "kill": ("os.kill(os.getpid(), 9)", -9, "crashed", "no end record"),
    "terminate": ("os.kill(os.getpid(), 15)", -15, "crashed", "no end record"),
    "abort": ("os.abort()", -6, "crashed", "no end record"),
    "_exit": ("os._exit(0)", 0, "crashed", "no end record"),
}


@pytest.mark.parametrize(("ending", "code", "status", "reason"), ENDINGS.values(), ids=ENDINGS)
def test_p09_every_end_is_told(tmp_path: Path, ending: str, code: int, status: str, reason: str | None) -> None:
    run(
        f"""
        import os, sys
        import tracer

        tracer.init(project="endings")
        for step in range(10):
            tracer.log({{"loss": 1.0}})
            tracer.step()
        {ending}
        """,
        code=code,
    )

    row = the_run(tmp_path)
    assert row.status == status
    assert (row.reason or "").startswith(reason or "")
    assert row.ended is not None
    assert row.ended >= row.started


def test_p09_a_run_is_running_while_its_process_lives_and_no_longer(tmp_path: Path) -> None:
    process = start("import time, tracer; tracer.init(project='endings'); print('up', flush=True); time.sleep(600)")
    await_line(process)
    assert the_run(tmp_path).status == "running"

    kill(process)

    assert the_run(tmp_path).status == "crashed"
    assert the_run(tmp_path).status == "crashed"


def test_p09_a_stopped_process_is_not_dead(tmp_path: Path) -> None:
    process = start("import time, tracer; tracer.init(project='endings'); print('up', flush=True); time.sleep(600)")
    await_line(process)
    process.send_signal(signal.SIGSTOP)
    try:
        assert the_run(tmp_path).status == "running"
    finally:
        kill(process)


def test_p09_forked_children_do_not_keep_a_dead_run_alive(tmp_path: Path) -> None:
    process = start(
        """
        import os, time
        import tracer

        tracer.init(project="endings")
        tracer.log({"loss": 1.0})
        for _ in range(2):
            if os.fork() == 0:
                tracer.log({"child": 1.0})
                time.sleep(600)
        print("up", flush=True)
        time.sleep(600)
        """
    )
    await_line(process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    try:
        await_that(lambda: the_run(tmp_path).status == "crashed", "the end is noticed")
    finally:
        kill(process)


def test_p09_another_process_with_the_same_id_is_not_the_run(tmp_path: Path) -> None:
    run("import os, tracer; tracer.init(project='endings'); os._exit(0)")
    folder = str(only_run(tmp_path / ".tracer"))
    facts = runfile.read(folder)
    process = start("import time; print('up', flush=True); time.sleep(600)")
    await_line(process)
    try:
        runfile.replace(folder, {**facts, "pid": process.pid})

        assert the_run(tmp_path).status == "crashed"
    finally:
        kill(process)


@pytest.mark.parametrize(("age_s", "status"), [(5, "running"), (3600, "crashed")])
def test_p09_on_another_machine_the_heartbeat_decides(tmp_path: Path, age_s: int, status: str) -> None:
    import os
    import time

    from journals import segments

    from tracer import journal

    run("import os, tracer; tracer.init(project='endings'); os._exit(0)")
    folder = only_run(tmp_path / ".tracer")
    runfile.replace(str(folder), {**runfile.read(str(folder)), "host": "elsewhere"})
    for path in segments(folder):
        data = bytearray(path.read_bytes())
        data[4048 + 8 : 4048 + 16] = int((time.time() - age_s) * 1e6).to_bytes(8, "little")
        path.write_bytes(data)
        assert journal.Header.unpack(data).heartbeat_us > 0
    os.utime(folder / "run.json", (time.time() - age_s, time.time() - age_s))

    assert the_run(tmp_path).status == status


@pytest.mark.parametrize("steps", [1, 10, 15_000, 30_000])
def test_p09_a_killed_run_tells_how_far_it_came(tmp_path: Path, steps: int) -> None:
    """Also where the next segment is prepared already, and where it is entered."""
    run(
        """
        import os, sys
        import tracer

        tracer.init(project="endings")
        for _ in range(int(sys.argv[1])):
            tracer.log({"loss": 1.0})
            tracer.step()
        os.kill(os.getpid(), 9)
        """,
        steps,
        code=-9,
    )

    assert the_run(tmp_path).steps == steps


def test_p09_a_resumed_run_ends_again(tmp_path: Path) -> None:
    program = """
        import os, sys
        import tracer

        run = tracer.init(project="endings", run_name="again", resume=sys.argv[1] == "again" or None)
        tracer.log({"loss": 1.0}, step=run.step_count)
        tracer.step()
        if sys.argv[1] == "first":
            os._exit(0)
        """
    run(program, "first")
    before = the_run(tmp_path)
    run(program, "again")
    after = the_run(tmp_path)

    assert (before.status, after.status) == ("crashed", "completed")
    assert (before.uid, before.attempt, after.attempt) == (after.uid, 1, 2)
    assert after.steps == 2
