"""P10: `finish()` and the exit of the process are bounded in time."""

from __future__ import annotations

from pathlib import Path

from journals import only_run, rows
from programs import run


def test_p10_a_hanging_disk_does_not_hold_the_exit(tmp_path: Path) -> None:
    """The sync never returns; the process ends within `finish_timeout_s` and loses nothing."""
    done = run(
        """
        import os, threading, time
        import tracer

        hanging = threading.Event()
        syncing = threading.Event()

        def hang(fd):
            syncing.set()
            hanging.wait()

        os.fdatasync = hang
        tracer.init(project="exit", finish_timeout_s=1.0)
        for step in range(1000):
            tracer.log({"loss": float(step)}, step=step)
        syncing.wait()
        began = time.monotonic()
        tracer.finish()
        print(time.monotonic() - began)
        """
    )

    assert float(done.stdout) < 1.0 + 3.0  # the rest is this machine's
    assert len(rows(only_run(tmp_path / ".tracer"))) == 1000


def test_p10_a_disk_that_hangs_at_the_end_only(tmp_path: Path) -> None:
    done = run(
        """
        import os, threading, time
        import tracer

        tracer.init(project="exit", finish_timeout_s=0.5)
        for step in range(1000):
            tracer.log({"loss": float(step)}, step=step)
        os.fdatasync = lambda fd: threading.Event().wait()
        began = time.monotonic()
        tracer.finish()
        print(time.monotonic() - began)
        """,
        env={"TRACER_QUIET": "0"},
    )

    assert float(done.stdout) < 0.5 + 3.0
    assert "too slow to sync" in done.stderr
    assert len(rows(only_run(tmp_path / ".tracer"))) == 1000


def test_p10_a_metric_function_that_was_stuck_is_the_programs_own(tmp_path: Path) -> None:
    """What the user's own function does takes its time; ours adds nothing after it."""
    done = run(
        """
        import time
        import tracer

        tracer.init(project="exit", custom_metrics={"slow": lambda: time.sleep(0.2) or 1.0})
        tracer.log({"loss": 1.0})
        tracer.finish()
        print("done")
        """
    )

    assert done.stdout == "done\n"
    assert [row.values for row in rows(only_run(tmp_path / ".tracer"))] == [{"loss": 1.0}, {"slow": 1.0}]


def test_p10_threads_of_the_program_do_not_hold_it_and_are_not_held(tmp_path: Path) -> None:
    done = run(
        """
        import threading
        import tracer

        tracer.init(project="exit")
        def work():
            try:
                while True:
                    tracer.log({"loss": 1.0})
            except RuntimeError:
                pass
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        tracer.finish()
        for thread in threads:
            thread.join()
        print("done")
        """
    )

    assert (done.stdout, done.stderr) == ("done\n", "")
    assert only_run(tmp_path / ".tracer").is_dir()


def test_p10_a_hundred_runs_leave_no_thread_and_no_descriptor(tmp_path: Path) -> None:
    done = run(
        """
        import gc, os, threading
        import tracer

        def one():
            with tracer.init(project="exit", track_system_metrics=True):
                tracer.log({"loss": 1.0})
                tracer.step()

        for _ in range(3):
            one()
        gc.collect()
        before = threading.active_count(), len(os.listdir("/proc/self/fd"))
        for _ in range(100):
            one()
        gc.collect()
        after = threading.active_count(), len(os.listdir("/proc/self/fd"))
        print(before, after)
        """,
        calm=True,
    )

    before, after = done.stdout.strip().split(") (")
    assert before.strip("(") == after.strip(")")
    assert len(list((tmp_path / ".tracer" / "runs").iterdir())) == 103
