"""P3 and P4 once more: whichever file call fails, training goes on and every record is accounted for."""

from __future__ import annotations

import errno
import json
from collections import Counter
from pathlib import Path

import pytest
from journals import points, runs
from programs import run

from tracer import runfile

STEPS = 600

#: Each fault in a child of its own. What it prints: whether `init` refused, the loop's result, what was counted.
SCENARIO = f"""
    import errno, json, os, sys
    from failing import Faults, failing
    import tracer
    from tracer import clock

    STEPS = {STEPS}

    def train(store, faults):
        result = 0.0
        with failing(faults):
            try:
                run = tracer.init(project="faults", storage_path=store, strict=False, checkpoint_interval=100)
            except tracer.TracerError as error:
                return {{"refused": str(error), "fault": faults.names[-1]}}
            begun = faults.count
            for step in range(STEPS):
                result += step
                tracer.log({{"loss": float(step)}}, step=step)
                tracer.step()
                if step % 150 == 149:
                    run._recorder.upkeep._next_retry = run._recorder.upkeep._next_sync = 0.0
                    run.flush()
                if step in (200, 400):  # as if the segment were full
                    run._recorder.writer().leave_segment()
            run.finish()
        counters = run._recorder.counters.nonzero()
        return {{"result": result, "counters": counters, "calls": faults.count, "begun": begun, "fault": faults.names}}

    code, sticky = int(sys.argv[1]), sys.argv[2] == "sticky"
    calls = train("count", Faults())["calls"]
    for at in range(1, calls + 1):
        if os.fork() == 0:
            try:
                told = train(f"store{{at}}", Faults(at, code, is_sticky=sticky))
            except BaseException as error:
                told = {{"raised": repr(error)}}
            with open(f"told{{at}}.json", "w") as file:
                json.dump(told, file)
            os._exit(0)
        os.wait()
    print(calls)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["once", "sticky"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_p03_whichever_call_fails(tmp_path: Path, code: int, how: str) -> None:
    done = run(SCENARIO, code, how, strict=False)

    calls = int(done.stdout)
    assert calls > 40
    refused = 0
    for at in range(1, calls + 1):
        path = tmp_path / f"told{at}.json"
        assert path.exists(), f"call {at} took the program with it: {done.stderr}"
        told = json.loads(path.read_text(encoding="utf-8"))
        assert "raised" not in told, (at, told)
        if "refused" in told:
            refused += 1
            assert "cannot be written" in told["refused"]
            continue
        assert told["result"] == sum(range(STEPS))
        store = tmp_path / f"store{at}"
        (folder,) = runs(store)
        found = Counter(step for name, step, _ in points(folder) if name == "loss")
        context = (at, told["fault"][at - 1 : at + 1], told["counters"])
        assert set(found.values()) <= {1}, context
        assert all(value == step for name, step, value in points(folder) if name == "loss"), context
        missing = STEPS - len(found)
        assert missing <= told["counters"].get("records_lost", 0), context
        if how == "once":
            assert missing == 0, context
            assert runfile.read(str(folder))["status"] == "completed" or told["counters"].get("internal_errors"), (
                context
            )
    assert refused < calls / 2
