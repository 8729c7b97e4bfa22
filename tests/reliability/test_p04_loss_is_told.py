"""P4: what could not be kept is counted by cause, said once, and shown in the summary and in `run.json`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from journals import only_run, points, rows
from programs import await_line, run, start

import tracer
from tracer.events import COUNTERS, Counters
from tracer.sink import Guard
from tracer.testing import FakeClock


def test_p04_every_record_is_kept_or_counted(small_disk: Callable[..., Path]) -> None:
    """The disk stays full to the end, and memory holds 64 MiB at most."""
    disk, steps = small_disk(3000), 2_500_000
    done = run(
        """
        import sys
        import tracer

        disk, steps = sys.argv[1], int(sys.argv[2])
        run = tracer.init(project="loss", storage_path=disk)
        tracer.log({"loss": 0.0}, step=0)
        try:
            with open(disk + "/ballast", "wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
        except OSError:
            pass
        for step in range(1, steps):
            tracer.log({"loss": float(step)}, step=step)
        tracer.finish()
        """,
        disk,
        steps,
        strict=False,
        env={"TRACER_QUIET": "0"},
    )

    folder = only_run(disk)
    found = rows(folder)
    facts = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    lost = facts["counters"]["records_lost"]
    said = re.search(r"^tracer: ([\d,]+) records that could not be kept$", done.stderr, re.MULTILINE)
    assert said is not None, done.stderr
    assert int(said[1].replace(",", "")) == lost > 0
    # Each segment in memory that is lost takes no declaration with it into the count, but the end of the run.
    assert len(found) + lost in range(steps, steps + 3)
    assert len({row.step for row in found}) == len(found)
    assert facts["status"] == "completed"
    assert done.stderr.count("cannot write to") == 1


def test_p04_each_cause_is_said_at_once_and_then_once_a_minute(clock: FakeClock, capsys) -> None:  # noqa: ANN001
    guard = Guard()

    for second in range(150):
        guard.say("disk", f"full since {second} s")
        guard.say("sync", "refused") if second == 3 else None
        clock.advance(1.0)

    assert capsys.readouterr().err.splitlines() == [
        "tracer: full since 0 s",
        "tracer: refused",
        "tracer: full since 60 s",
        "tracer: full since 120 s",
    ]


def test_p04_an_error_of_ours_is_counted_and_said_and_kept_from_the_program(capsys) -> None:  # noqa: ANN001
    guard = Guard()

    for _ in range(3):
        with guard("folding a sock"):
            message = "no sock"
            raise LookupError(message)

    assert guard.counters.nonzero() == {"internal_errors": 3}
    assert capsys.readouterr().err == "tracer: folding a sock failed (no sock). Your program is unaffected.\n"


def test_p04_every_counter_has_words_for_the_summary() -> None:
    counters = Counters()
    for name in COUNTERS:
        counters.add(name)

    assert counters.nonzero() == dict.fromkeys(COUNTERS, 1)
    assert all(words and words[0].islower() for words in COUNTERS.values())


def test_p04_a_run_without_trouble_counts_nothing(tmp_path: Path) -> None:
    with tracer.init(project="loss", quiet=True, track_system_metrics=False):
        tracer.log({"loss": 1.0})

    assert json.loads((only_run(tmp_path / ".tracer") / "run.json").read_text(encoding="utf-8"))["counters"] == {}


def test_p04_a_closed_stderr_is_no_reason_to_fail(small_disk: Callable[..., Path]) -> None:
    disk = small_disk(400)
    process = start(
        """
        import os, sys
        import tracer

        os.close(2)
        run = tracer.init(project="loss", storage_path=sys.argv[1])
        for step in range(30_000):
            tracer.log({"loss": float(step)}, step=step)
        sys.stderr = None
        tracer.finish()
        print("trained")
        """,
        disk,
        strict=False,
        env={"TRACER_QUIET": "0"},
    )

    assert await_line(process) == "trained"
    process.communicate()
    assert process.returncode == 0
    assert len(points(only_run(disk))) > 1000
