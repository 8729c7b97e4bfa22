"""P11: threads, processes, signals, re-entrant calls and ranks neither deadlock nor mix data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from journals import only_run, rows
from programs import run


def test_p11_everything_at_once(tmp_path: Path) -> None:
    """Threads, a timer's signal, forks and checkpoints in one program, with a hand-over at every chance."""
    run(
        """
        import itertools, os, signal, sys, threading, time
        import tracer

        sys.setswitchinterval(1e-5)
        run = tracer.init(project="all", checkpoint_interval=7, durability="step")
        strikes = itertools.count()

        def strike(number, frame):
            struck = next(strikes)  # a slow handler is struck itself
            tracer.log({"signal": float(struck)}, step=struck)
            if struck % 10 == 0:
                run.flush()

        def work(who):
            for step in range(500):
                tracer.log({f"t{who}": float(step), f"odd{step % 50}": step}, step=step)

        signal.signal(signal.SIGALRM, strike)
        signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
        threads = [threading.Thread(target=work, args=(who,)) for who in range(8)]
        for thread in threads:
            thread.start()
        children = []
        for child in range(4):
            pid = os.fork()
            if pid == 0:
                signal.setitimer(signal.ITIMER_REAL, 0)
                for step in range(200):
                    tracer.log({f"c{child}": float(step)}, step=step)
                os._exit(0)
            children.append(pid)
        for step in range(300):
            tracer.log({"main": float(step)}, step=step)
            tracer.step()
        for thread in threads:
            thread.join()
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
        tracer.finish()
        """
    )

    found = Counter((name, row.step) for row in rows(only_run(tmp_path / ".tracer")) for name in row.values)
    expected = {("main", step): 1 for step in range(300)}
    expected |= {(f"t{who}", step): 1 for who in range(8) for step in range(500)}
    expected |= {(f"c{child}", step): 1 for child in range(4) for step in range(200)}
    assert {key: count for key, count in found.items() if key[0][0] in "mtc"} == expected
    assert {count for (name, _), count in found.items() if name == "signal"} <= {1}
    assert all(row.values[name] == row.step for row in rows(only_run(tmp_path / ".tracer")) for name in row.values)


def test_p11_a_flush_inside_a_flush_returns(tmp_path: Path) -> None:
    """A handler that syncs strikes while the same thread is syncing."""
    done = run(
        """
        import os, signal
        import tracer

        run, sync, struck = tracer.init(project="flush"), os.fdatasync, []

        def slow(fd):
            if not struck:
                struck.append(1)
                signal.raise_signal(signal.SIGUSR1)
            sync(fd)

        signal.signal(signal.SIGUSR1, lambda *_: (tracer.log({"inner": 1.0}), run.flush()))
        tracer.log({"outer": 1.0})
        os.fdatasync = slow
        run.flush()
        tracer.finish()
        print(len(struck))
        """
    )

    assert done.stdout == "1\n"
    assert {name for row in rows(only_run(tmp_path / ".tracer")) for name in row.values} == {"outer", "inner"}


def test_p11_finish_inside_a_handler_during_a_sync_is_bounded(tmp_path: Path) -> None:
    done = run(
        """
        import os, signal, sys
        import tracer

        run, sync, struck = tracer.init(project="flush", finish_timeout_s=0.5), os.fdatasync, []

        def slow(fd):
            if not struck:
                struck.append(1)
                signal.raise_signal(signal.SIGTERM)
            sync(fd)

        def stop(*_):
            tracer.finish()
            print("stopped", flush=True)
            os._exit(5)

        signal.signal(signal.SIGTERM, stop)
        for step in range(100):
            tracer.log({"loss": float(step)}, step=step)
        run._recorder.upkeep._lock.acquire()  # the other thread waits, as it does when it comes second
        run._recorder.upkeep._lock.release()
        os.fdatasync = slow
        run.flush()
        """,
        code=5,
    )

    assert done.stdout == "stopped\n"
    assert len(rows(only_run(tmp_path / ".tracer"))) == 100
