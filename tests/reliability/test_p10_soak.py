"""P10, for long runs: memory, descriptors and threads stay what they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from journals import only_run, rows
from programs import run


@pytest.mark.slow
@pytest.mark.storm
@pytest.mark.timeout(0)
def test_p10_a_long_run_grows_nothing(tmp_path: Path, storm_seconds: float) -> None:
    """Ten thousand calls a second; what is compared is memory of its own, not the journal's pages."""
    seconds = storm_seconds / 2
    done = run(
        """
        import gc, json, os, sys, threading, time
        import numpy  # live detection loads it after some seconds; here that must not count as growth
        import tracer

        seconds = float(sys.argv[1])

        def used():
            status = dict(line.split(":") for line in open("/proc/self/status").read().splitlines())
            anonymous = int(status["RssAnon"].split()[0]) * 1024
            return anonymous, len(os.listdir("/proc/self/fd")), threading.active_count()

        run = tracer.init(project="soak", checkpoint_interval=1000)
        step, born, before = 0, time.monotonic(), None
        while time.monotonic() < born + seconds:
            for _ in range(100):
                tracer.log({"loss": float(step), "accuracy": 0.5}, step=step)
                step += 1
            tracer.log({"epoch": step, "phase": "x"}, step=step)
            tracer.step()
            if before is None and time.monotonic() > born + seconds / 4:
                gc.collect()
                before = used()
            time.sleep(max(born + step / 10_000 - time.monotonic(), 0))
        gc.collect()
        after = used()
        counters = run._recorder.counters.nonzero()
        run.finish()
        print(json.dumps([before, after, step, counters]))
        """,
        seconds,
    )

    before, after, steps, counters = json.loads(done.stdout)
    assert abs(after[0] - before[0]) < 5_000_000
    assert after[1] <= before[1] + 3  # a segment that is being prepared, or left
    assert after[2] == before[2]
    assert counters == {}
    assert sum(1 for row in rows(only_run(tmp_path / ".tracer")) if "loss" in row.values) == steps
