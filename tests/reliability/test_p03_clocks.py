"""P3 under clocks that jump, stand before 1970, or run decades ahead: order and durations do not depend on them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from journals import only_run, rows
from programs import CALMLY, run

import tracer
from tracer.storage import Store
from tracer.testing import FakeClock

TRAINING = """
    import tracer

    with tracer.init(project="clocks") as run:
        for step in range(500):
            tracer.log({"loss": float(step)}, step=step)
            tracer.step()
        run.flush()
        for step in range(500, 1000):
            tracer.log({"loss": float(step)}, step=step)
            tracer.step()
"""


def check(store_path: Path) -> None:
    """See that the store gives everything back, in order, and that the run has ended."""
    with Store.open(store_path) as store:
        (row,) = store.runs()
        live = store.series(row.uid, "loss")
        store.fold()
        folded = store.series(row.uid, "loss")
        overview = store.overview(row.uid, "loss")
    assert np.array_equal(live.value, np.arange(1000.0))
    assert np.array_equal(folded.value, np.arange(1000.0))
    assert np.array_equal(folded.step, np.arange(1000))
    assert int(np.sum(overview.n)) == 1000
    assert (row.status, row.steps) == ("completed", 1000)


@pytest.mark.skipif(shutil.which("faketime") is None, reason="needs faketime")
@pytest.mark.parametrize("when", ["2000-01-01 00:00:00", "1969-06-01 00:00:00", "+10y", "-1h", "2038-01-19 03:14:00"])
def test_p03_any_date_will_do(tmp_path: Path, when: str) -> None:
    said = ("-f", when) if when[0] in "+-" else (when,)

    run(TRAINING, before=("faketime", "-m", "--exclude-monotonic", *said))

    check(tmp_path / ".tracer")


@pytest.mark.parametrize("jump_s", [-3600.0, 3600.0, -40 * 365 * 86400.0, -60 * 365 * 86400.0, 10 * 365 * 86400.0])
def test_p03_a_clock_that_jumps_in_mid_run(tmp_path: Path, clock: FakeClock, jump_s: float) -> None:
    with tracer.init(project="clocks", **CALMLY) as run_:
        for step in range(1000):
            if step == 500:
                clock.set_wall(clock.now() + jump_s)
            clock.advance(0.003)
            run_.log({"loss": float(step)}, step=step)
            run_.step()
    took = [row.time for row in rows(only_run(tmp_path / ".tracer"))]

    assert took[500] - took[499] == pytest.approx(jump_s + 0.003, abs=1e-3)
    check(tmp_path / ".tracer")


def test_p03_heartbeats_do_not_depend_on_the_wall_clock(tmp_path: Path, clock: FakeClock) -> None:
    from tracer import journal

    with tracer.init(project="clocks", **CALMLY) as run_:
        run_.log({"loss": 1.0})
        run_.flush()
        (path,) = (tmp_path / ".tracer").rglob("*.trj")
        before = journal.Header.unpack(path.read_bytes()).heartbeat_ns
        clock.set_wall(0.0)
        clock.advance(2.0)
        run_.log({"loss": 2.0})
        run_.flush()
        after = journal.Header.unpack(path.read_bytes()).heartbeat_ns

    assert after - before >= 2_000_000_000
