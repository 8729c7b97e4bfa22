"""Runs as CSV, JSON Lines and Parquet: read back by Python's own modules and pyarrow, once, whatever comes twice."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tracer import events
from tracer.backends.base import Backend, Rejected
from tracer.backends.files import CsvBackend, JsonLinesBackend, ParquetBackend
from tracer.backends.files_reading import CsvSource, JsonLinesSource, ParquetSource
from tracer.testing import check_backend
from tracer.transfer import (
    Event,
    File,
    Histogram,
    LogLine,
    Media,
    Part,
    Points,
    RunInfo,
    Span,
    Text,
    digest,
)  # fmt: skip

START = 1_767_225_600_123_456
RUN = RunInfo(
    "u-1", "vision", "first", START, status=events.RUNNING, notes="A note.", tags=("one", "zwei"),
    labels={"team": "a"}, params={"lr": 0.1, "model": {"depth": 2}, "bad": float("nan")}, git={"commit": "abc"},
)  # fmt: skip
VALUES = [0.5, 0.1, float("nan"), float("inf"), float("-inf"), -0.0, 1e-300, 1e300, 5e-324, 2.0**53]
NAMES = ["loss", "Größe/🙂 [x]", '=cmd|"x",y', "'quoted", " blank ", "two\nlines", "-"]
Row = tuple[str, int, int, int, str]


def points(name: str = "loss", first: int = 0, count: int = len(VALUES), rank: int = 0) -> Points:
    steps = np.arange(first, first + count)
    values = np.array([VALUES[at % len(VALUES)] for at in steps.tolist()])
    return Points(name, steps, START + steps * 1_000_003, values, rank=rank)


def expected(*parts: Points) -> list[Row]:
    rows = [
        (part.name, part.rank, step, at, repr(value))
        for part in parts
        for step, at, value in zip(part.steps.tolist(), part.times.tolist(), part.values.tolist(), strict=True)
    ]
    return sorted(rows)


def micros(seconds: str) -> int:
    whole, _, part = seconds.partition(".")
    return int(whole) * 1_000_000 + int(part)


def plain(name: str) -> str:
    """Return a name without the apostrophe that disarms it."""
    return name.removeprefix("'")


def read_csv(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert not any(row["name"].startswith(("=", "-", "+", "@")) for row in rows)
    return sorted(
        (plain(row["name"]), int(row["rank"]), int(row["step"]), micros(row["time"]), repr(float(row["value"])))
        for row in rows
    )


def read_jsonl(path: Path) -> list[Row]:
    def refused(word: str) -> None:
        raise AssertionError(word)

    rows = [json.loads(line, parse_constant=refused) for line in path.read_text().splitlines()]
    return sorted(
        (row["name"], row["rank"], row["step"], round(row["time"] * 1e6), repr(float(row["value"]))) for row in rows
    )


def read_parquet(path: Path) -> list[Row]:
    table = pytest.importorskip("pyarrow.parquet").read_table(path)
    columns = [table.column(name) for name in ("name", "rank", "step", "time", "value")]
    columns[3] = columns[3].cast("int64")
    return sorted(
        (name, rank, step, at, repr(value))
        for name, rank, step, at, value in zip(*(column.to_pylist() for column in columns), strict=True)
    )


Reader = Callable[[Path], list[Row]]
KINDS = [
    pytest.param(CsvBackend, CsvSource, read_csv, id="csv"),
    pytest.param(JsonLinesBackend, JsonLinesSource, read_jsonl, id="jsonl"),
    pytest.param(ParquetBackend, ParquetSource, read_parquet, id="parquet"),
]
WRITERS = [pytest.param(one.values[0], one.values[2], id=one.id) for one in KINDS]
SOURCES = [pytest.param(*one.values[:2], id=one.id) for one in KINDS]


def opened(
    kind: type[Backend], path: Path, remote: dict[str, str] | None = None, run: RunInfo = RUN
) -> tuple[Backend, dict[str, str]]:
    backend = kind({"path": str(path)})
    return backend, dict(backend.open(run, remote or {}))


@pytest.mark.parametrize(("kind", "source", "read"), KINDS)
def test_every_value_step_time_and_name_is_read_back_by_others(
    kind: type[Backend], source: type, read: Reader, tmp_path: Path
) -> None:
    backend, remote = opened(kind, tmp_path)
    sent = [*(points(name) for name in NAMES), points(rank=3)]
    sent.append(Points("far", np.array([-(2**63), 2**63 - 1]), np.array([START, START + 1]), np.array([1.0, 0.3])))

    backend.write(sent)
    backend.close(events.COMPLETED, START + 9)

    assert read(Path(remote["file"])) == expected(*sent)
    [run] = list(source(backend.readable()).runs())
    ours = [one for one in source(backend.readable()).events(run) if isinstance(one, Points)]
    assert sorted((one.name, one.rank, digest([one])) for one in ours) == sorted(
        (one.name, one.rank, digest([one])) for one in sent
    )
    assert {(one.name, one.rank): sorted(one.times.tolist()) for one in ours} == {
        (one.name, one.rank): one.times.tolist() for one in sent
    }


@pytest.mark.parametrize(("kind", "read"), WRITERS)
def test_a_batch_that_comes_again_is_there_once_also_after_a_kill_and_a_close(
    kind: type[Backend], read: Reader, tmp_path: Path
) -> None:
    first, remote = opened(kind, tmp_path)
    first.write([points(count=5)])
    first.write([points(first=5, count=5), Text("note", 1, START, "x")])
    again, known = opened(kind, tmp_path, remote)  # the first one was killed
    again.write([points(first=5, count=3)])
    again.write([points(first=8, count=2), points(first=10, count=4), Text("note", 1, START, "x")])
    again.close(events.RUNNING, None)
    last, _ = opened(kind, tmp_path, remote)
    last.write([points(first=10, count=6)])
    last.close(events.CRASHED, None)

    assert known == remote
    assert read(Path(remote["file"])) == expected(points(count=16))
    assert (Path(remote["folder"]) / "events.jsonl").read_text().count("\n") == 1


_WRITER = """
import sys, numpy as np
from tracer.backends import files
from tracer.transfer import Points, RunInfo
backend = getattr(files, sys.argv[2])({"path": sys.argv[1]})
backend.open(RunInfo("u-1", "vision", "first", 1767225600123456), {})
for batch in range(int(sys.argv[3]), 100000):
    steps = np.arange(batch * 10, batch * 10 + 10)
    backend.write([Points("loss", steps, steps + 1767225600123456, steps * 0.1)])
    print(batch, flush=True)
"""


@pytest.mark.parametrize(("kind", "read"), WRITERS)
def test_a_writer_that_is_killed_and_goes_on_leaves_each_point_once(
    kind: type[Backend], read: Reader, tmp_path: Path
) -> None:
    acknowledged = 0
    for _ in range(2):
        command = [sys.executable, "-c", _WRITER, str(tmp_path), kind.__name__, str(acknowledged)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(5):
                acknowledged = int(process.stdout.readline())
            process.kill()
            for line in process.stdout:
                acknowledged = int(line) if line.endswith("\n") else acknowledged

    backend, remote = opened(kind, tmp_path)
    backend.close(events.CRASHED, None)
    steps = [row[2] for row in read(Path(remote["file"]))]
    assert steps[: (acknowledged + 1) * 10] == list(range((acknowledged + 1) * 10))
    assert len(steps) in {(acknowledged + 1) * 10, (acknowledged + 2) * 10}


@pytest.mark.parametrize(("kind", "source"), SOURCES)
@pytest.mark.parametrize("where", ["folder", "file"])
def test_everything_else_and_the_facts_come_back_as_they_were(
    kind: type[Backend], source: type, where: str, tmp_path: Path
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").write_bytes(b"weights")
    told = hashlib.sha256(b"weights").hexdigest()
    part = Part("deep/weights.bin", str(tmp_path / "model" / "weights.bin"), 7, told)
    sent: list[Event] = [
        Text("answer", 2, START, "=forty\ntwo"),
        LogLine("log", START + 1, "body", "logger", "INFO", 3, {"a": 1}),
        Histogram("weights", 3, START, (-1.0, 0.0, math.inf), (4.0, 5.0)),
        Media("picture", "image", 4, START, data=b"\x89PNG", suffix=".png", caption="c", fields={"width": 3}),
        Span("work", "0" * 32, "1" * 16, START, START + 5, attributes={"k": [1, 2]}, kind="client"),
        File("model", "weights", "v3", (part,), START + 9, 5, ("best",), {"size": 1}),
    ]
    backend, remote = opened(kind, tmp_path / f"out{kind.suffix}" if where == "file" else tmp_path / "out")  # type: ignore[attr-defined]

    backend.write([points(), *sent])
    backend.write([replace(RUN, tags=("three",), summary={"loss": 1.0})])
    backend.close(events.FAILED, START + 77)

    found = source(backend.readable())
    [run] = list(found.runs())
    got = [one for one in found.events(run) if not isinstance(one, Points)]
    assert (run.name, run.project, run.started, run.ended, run.status, run.tags, run.notes, run.labels, run.git) == (
        "first", "vision", START, START + 77, events.FAILED, ("three",), "A note.", RUN.labels, RUN.git,
    )  # fmt: skip
    assert (run.params, run.summary) == ({**RUN.params, "bad": "NaN"}, {"loss": 1.0})
    assert [*got[:3], got[4]] == [*sent[:3], sent[4]]
    assert isinstance(got[3], Media)
    assert Path(str(got[3].path)).read_bytes() == b"\x89PNG"
    assert isinstance(got[5], File)
    assert Path(got[5].parts[0].local).read_bytes() == b"weights"
    assert replace(got[5], parts=(part,)) == sent[5]
    assert found.notes == []
    assert (remote["file"] == str(tmp_path / f"out{kind.suffix}")) == (where == "file")  # type: ignore[attr-defined]


def test_an_artifact_that_would_lead_out_or_is_gone_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "evil").write_text("x")
    backend, _ = opened(CsvBackend, tmp_path / "out")

    for path in ("../../../evil", "/evil"):
        with pytest.raises(Rejected):
            backend.write([File("model", "m", "v0", (Part(path, str(tmp_path / "evil"), 1, "0"),))])
    with pytest.raises(Rejected, match="not there any more"):
        backend.write([File("model", "m", "v0", (Part("a", str(tmp_path / "gone"), 1, "0"),))])


def test_two_runs_of_one_name_never_share_a_file(tmp_path: Path) -> None:
    files = [
        opened(CsvBackend, path, run=replace(RUN, uid=uid))[1]["file"]
        for path in (tmp_path / "folder", tmp_path / "one.csv")
        for uid in ("a", "b", "a")
    ]

    assert files[0] == files[2] != files[1]
    assert files[3] == files[5] != files[4]


@pytest.mark.parametrize(("kind", "read"), WRITERS)
def test_the_contract_is_kept(kind: type[Backend], read: Reader, tmp_path: Path) -> None:
    def found(remote: Mapping[str, str]) -> dict[str, list[tuple[int, float]]]:
        series: dict[str, list[tuple[int, float]]] = {}
        for name, _, step, _, value in read(Path(remote["file"])):
            series.setdefault(name, []).append((step, float(value)))
        return series

    (tmp_path / "file").write_text("x")
    check_backend(
        kind, read=found, options={"path": str(tmp_path / "out")}, dead={"path": str(tmp_path / "file" / "x")}
    )
