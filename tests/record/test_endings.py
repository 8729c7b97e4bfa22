"""How a run ends when nobody calls `finish`, and what the program's own ending keeps."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from journals import only_run, rows, runs, said, wait_until_released
from programs import CALMLY, await_line, kill, run, start

import tracer
from tracer import journal, runfile
from tracer.errors import UsageError

END = journal.Kind.END

BEGIN = """
    import os, sys, threading
    import tracer

    run = tracer.init(project="endings")
    for step in range(10):
        tracer.log({"loss": float(step)})
        tracer.step()
"""

#: How a program ends → its exit code, the run's status, and the reason.
ENDINGS = {
    "end of the program": ("", 0, "completed", None),
    "finish": ("tracer.finish()", 0, "completed", None),
    "sys.exit(0)": ("sys.exit(0)", 0, "completed", None),
    "sys.exit()": ("sys.exit()", 0, "completed", None),
    "sys.exit(3)": ("sys.exit(3)", 3, "failed", "sys.exit(3)"),
    "sys.exit(text)": ("sys.exit('no data')", 1, "failed", "sys.exit('no data')"),
    "exception": ("raise ValueError('bad batch')", 1, "failed", "ValueError: bad batch"),
    "exception without text": ("raise MemoryError", 1, "failed", "MemoryError"),
    "interrupt": ("raise KeyboardInterrupt", -2, "failed", "KeyboardInterrupt"),
    "exit in a thread": ("t = threading.Thread(target=sys.exit, args=(3,)); t.start(); t.join()", 0, "completed", None),
    "caught exit": (
        "try:\n        sys.exit(3)\n    except SystemExit:\n        pass\n    tracer.log({'loss': 1.0})",
        0, "completed", None,
    ),
    "with block": ("with run:\n        raise ValueError('inside')", 1, "failed", "ValueError: inside"),
    "with block and exit": ("with run:\n        raise SystemExit(4)", 4, "failed", "SystemExit: 4"),
    "with block and exit 0": ("with run:\n        raise SystemExit(0)", 0, "completed", None),
    "after finish": ("tracer.finish()\n    raise ValueError('later')", 1, "completed", None),
}  # fmt: skip


@pytest.mark.parametrize(("ending", "code", "status", "reason"), ENDINGS.values(), ids=ENDINGS)
def test_every_ending_of_a_program_is_told(
    tmp_path: Path, ending: str, code: int, status: str, reason: str | None
) -> None:
    done = run(BEGIN + "\n    " + ending, code=code)

    folder = only_run(tmp_path / ".tracer")
    facts = runfile.read(str(folder))
    assert (facts["status"], facts["reason"], facts["steps"]) == (status, reason, 10)
    assert facts["ended"] >= facts["started"]
    assert [(found.content["status"], found.content["reason"]) for found in said(folder, END)] == [(status, reason)]
    assert len(rows(folder)) >= 10
    if code == 1 and "raise" in ending:
        assert done.stderr.count("Traceback") == 1


@pytest.mark.parametrize("ending", ["os._exit(7)", "os.abort()", "os.kill(os.getpid(), 9)"])
def test_a_process_that_just_vanishes_leaves_everything_but_an_end(tmp_path: Path, ending: str) -> None:
    code = {"os._exit(7)": 7, "os.abort()": -signal.SIGABRT, "os.kill(os.getpid(), 9)": -signal.SIGKILL}[ending]

    run(BEGIN + "\n    " + ending, code=code)

    folder = only_run(tmp_path / ".tracer")
    assert [row.step for row in rows(folder)] == list(range(10))
    assert said(folder, END) == []
    assert runfile.read(str(folder))["status"] == "running"
    wait_until_released(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGKILL, signal.SIGXCPU])
def test_a_signal_keeps_its_default_action(tmp_path: Path, number: signal.Signals) -> None:
    process = start(BEGIN + "\n    print('ready', flush=True)\n    import time; time.sleep(600)")
    await_line(process)
    process.send_signal(number)
    process.communicate(timeout=60)

    assert process.returncode == -number
    folder = only_run(tmp_path / ".tracer")
    assert [row.step for row in rows(folder)] == list(range(10))
    assert runfile.read(str(folder))["status"] == "running"


def test_a_handler_of_the_program_is_called_and_may_finish(tmp_path: Path) -> None:
    process = start(
        BEGIN
        + """
    import signal, time
    def stop(number, frame):
        tracer.finish()
        print("stopped", flush=True)
        sys.exit(5)
    signal.signal(signal.SIGTERM, stop)
    print("ready", flush=True)
    while True:
        tracer.log({"more": 1.0})
    """
    )
    await_line(process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)

    assert (process.returncode, out, err) == (5, "stopped\n", "")
    assert runfile.read(str(only_run(tmp_path / ".tracer")))["status"] == "completed"


def test_two_interrupts_end_the_program_at_once(tmp_path: Path) -> None:
    process = start(BEGIN + "\n    print('ready', flush=True)\n    while True: tracer.log({'more': 1.0})")
    await_line(process)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)

    assert process.returncode == -signal.SIGINT
    assert {row.step for row in rows(only_run(tmp_path / ".tracer"))} >= set(range(10))


def test_a_failed_program_does_not_wait_for_anything(tmp_path: Path) -> None:
    """Of the program's life after its exception, hardly anything is ours."""
    done = run(
        BEGIN
        + """
    import atexit, time
    began = time.process_time()
    atexit.register(lambda: print(time.process_time() - began))
    raise ValueError("bad batch")
    """,
        code=1,
    )

    assert float(done.stdout) < 1.0
    assert runfile.read(str(only_run(tmp_path / ".tracer")))["status"] == "failed"


def test_hooks_that_were_there_are_called_and_put_back() -> None:
    run(
        """
        import sys
        import tracer

        def hook(kind, error, trace):
            print("hook", error)

        sys.excepthook = hook
        leave = sys.exit
        run = tracer.init(project="endings")
        assert sys.excepthook is not hook and sys.exit is not leave
        run.finish()
        assert sys.excepthook is hook and sys.exit is leave
        tracer.init(project="endings")
        raise ValueError("told")
        """,
        code=1,
    )


def test_a_hook_that_came_later_is_left_in_place() -> None:
    done = run(
        """
        import sys
        import tracer

        run = tracer.init(project="endings")
        ours = sys.excepthook
        def later(kind, error, trace):
            print("later", error)
            ours(kind, error, trace)
        sys.excepthook = later
        run.finish()
        assert sys.excepthook is later
        raise ValueError("told")
        """,
        code=1,
    )

    assert done.stdout == "later told\n"
    assert "ValueError: told" in done.stderr


def test_finish_is_idempotent(tmp_path: Path) -> None:
    run_ = tracer.init(project="endings", **CALMLY)
    run_.log({"loss": 1.0})
    run_.finish()
    facts = runfile.read(run_.folder)

    run_.finish()
    run_.finish("failed", "too late", 1)

    assert runfile.read(run_.folder) == facts
    with pytest.raises(UsageError):
        tracer.finish()
    assert len(said(only_run(tmp_path / ".tracer"), END)) == 1


def test_nothing_is_logged_after_the_end(tmp_path: Path) -> None:
    run_ = tracer.init(project="endings", run_name="over", **CALMLY)
    run_.log({"loss": 1.0})
    run_.finish()

    for late in (lambda: run_.log({"loss": 2.0}), lambda: run_.log({"text": "x"}), run_.step):
        with pytest.raises(UsageError, match="'over' is finished"):
            late()
    for late in (lambda: tracer.log({"loss": 2.0}), tracer.step, tracer.get_run_id):
        with pytest.raises(RuntimeError, match="not initialized"):
            late()
    assert [row.values for row in rows(only_run(tmp_path / ".tracer"))] == [{"loss": 1.0}]


def test_a_second_run_finishes_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = tracer.init(project="endings", run_name="first", **CALMLY)
    tracer.log({"loss": 1.0})
    second = tracer.init(project="endings", run_name="second", **CALMLY)
    tracer.log({"loss": 2.0})
    second.finish()

    assert "'first' was still running" in capsys.readouterr().err
    found = {
        runfile.read(str(folder))["name"]: [row.values for row in rows(folder)] for folder in runs(tmp_path / ".tracer")
    }
    assert found == {"first": [{"loss": 1.0}], "second": [{"loss": 2.0}]}
    assert {runfile.read(str(folder))["status"] for folder in runs(tmp_path / ".tracer")} == {"completed"}
    assert first.name == "first"


def test_a_killed_tree_is_gone_at_once(tmp_path: Path) -> None:
    process = start(BEGIN + "\n    os.fork()\n    print('ready', flush=True)\n    import time; time.sleep(600)")
    await_line(process)
    began = time.monotonic()
    kill(process)

    wait_until_released(only_run(tmp_path / ".tracer"))
    assert time.monotonic() - began < 30
