"""Schemas and names: cached, declared again in each segment, and bounded whatever a program does with them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from journals import only_run, points, rows, segments
from programs import CALMLY, run

import tracer
from tracer import journal


def schema_records(folder: Path) -> list[list[str]]:
    """Return the key tuples that were declared, segment by segment."""
    declared = []
    for path in segments(folder):
        data = path.read_bytes()
        header = journal.Header.unpack(data)
        declared += [
            record.json()["keys"]
            for record in journal.scan(data, header.first, header.end, header.generation)
            if record.schema == journal.Kind.SCHEMA
        ]
    return declared


def holds_nothing(path: Path) -> bool:
    """Tell whether a segment has no record at all."""
    data = path.read_bytes()
    header = journal.Header.unpack(data)
    return not list(journal.scan(data, header.first, header.end, header.generation))


def test_a_key_tuple_is_declared_once(tmp_path: Path) -> None:
    with tracer.init(project="names", **CALMLY):
        for step in range(100):
            tracer.log({"a": 1.0, "b": 2.0}, step=step)
            tracer.log({"b": 3.0, "a": 4.0}, step=step)
            tracer.log({"c": 5.0}, step=step)

    assert schema_records(only_run(tmp_path / ".tracer")) == [["a", "b"], ["b", "a"], ["c"]]
    assert Counter(points(only_run(tmp_path / ".tracer")))[("a", 7, 4.0)] == 1


def test_each_segment_declares_what_it_uses(tmp_path: Path) -> None:
    with tracer.init(project="names", **CALMLY):
        for step in range(60_000):
            tracer.log({"a": 1.0, "b": 2.0}, step=step)

    folder = only_run(tmp_path / ".tracer")
    assert len(segments(folder)) > 1
    # A segment that was made ready too late is closed empty, so that the numbers have no gap: it declares nothing.
    filled = [path for path in segments(folder) if not holds_nothing(path)]
    assert schema_records(folder) == [["a", "b"]] * len(filled)
    assert [row.step for row in rows(folder)] == list(range(60_000))


def test_key_tuples_without_end_become_rows_of_one_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    count = journal.MAX_SCHEMAS + 500

    with tracer.init(project="names", **{**CALMLY, "quiet": False}):
        for step in range(count):
            tracer.log({f"batch{step}/loss": float(step), f"batch{step}/acc": -float(step)}, step=step)

    expected = {(f"batch{step}/{kind}", step, value) for step in range(count) for kind, value in (("loss", float(step)), ("acc", -float(step)))}  # fmt: skip  # noqa: E501
    assert set(points(only_run(tmp_path / ".tracer"))) == expected
    said = capsys.readouterr().err
    assert said.count("different sets of metric names") == 1
    assert "pass it as `step=`" in said


def test_a_name_of_thousand_characters_and_many_keys_fit(tmp_path: Path) -> None:
    metrics = {f"{key:04}" + "é" * 996: float(key) for key in range(2000)}  # the schema alone is 12 MB of JSON

    with tracer.init(project="names", **CALMLY):
        tracer.log({"before": 1.0})
        tracer.log(metrics, step=1)
        tracer.log(metrics, step=2)
        tracer.log({"after": 1.0})

    found = rows(only_run(tmp_path / ".tracer"))
    assert [row.values for row in found] == [{"before": 1.0}, metrics, metrics, {"after": 1.0}]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_million_names_are_kept_in_bounded_memory(tmp_path: Path) -> None:
    done = run(
        """
        import tracer

        with tracer.init(project="names"):
            for number in range(1_000_000):
                tracer.log({f"name/{number}": float(number)}, step=number)
        with open("/proc/self/status") as file:  # `getrusage` would count what the process that started us had
            print(next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:")))
        """
    )

    assert int(done.stdout) < 500_000_000
    names = Counter(name for row in rows(only_run(tmp_path / ".tracer")) for name in row.values)
    assert len(names) == 1_000_000
    assert set(names.values()) == {1}
