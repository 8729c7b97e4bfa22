"""Runs that are read out of W&B's files: those that W&B's own client wrote, and hostile ones."""

from __future__ import annotations

import base64
import hashlib
import json
import random
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracer import transfer
from tracer.backends import table
from tracer.backends.wandb_log import BLOCK, NotALog, RecordLog
from tracer.errors import ConfigError

FOREIGN = """
import time, wandb
settings = wandb.Settings(mode="offline", silent=True, console="off", x_disable_stats=True, disable_git=True)
run = wandb.init(project="their project", entity="them", name="theirs", config={"lr": 0.5, "net": {"depth": 3}},
                 tags=["x"], notes="n", group="g", job_type="t", settings=settings)
run.define_metric("epoch")
run.define_metric("val/*", step_metric="epoch")
for step in range(5):
    run.log({"loss": 1 / (step + 1), "val/accuracy": float("nan") if step == 2 else step, "epoch": step // 2,
             "deep": {"a": step, "b": {"c": -step}}, "on": step % 2 == 0})
run.log({"said": "hello", "table": wandb.Table(columns=["a"], data=[[1]]), "h": wandb.Histogram([1, 2, 3, 3])})
run.summary["best"] = 0.75
run.config.update({"late": None})
run.finish(exit_code=3)
wandb.teardown()
"""


def varint(value: int) -> bytes:
    """Return a number as protobuf writes it."""
    found = b""
    value &= (1 << 64) - 1
    while value > 0x7F:
        found += bytes([value & 0x7F | 0x80])
        value >>= 7
    return found + bytes([value])


def field(number: int, value: bytes | str | int) -> bytes:
    """Return one field of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def items(number: int, values: Mapping[str, object]) -> bytes:
    """Return items of a history, config or summary record."""
    return b"".join(
        field(number, field(2, name) + field(16, value if isinstance(value, str) else json.dumps(value)))
        for name, value in values.items()
    )


def row(step: int, **values: object) -> bytes:
    """Return a history record."""
    return field(2, items(1, values) + field(2, field(1, step)))


RUN = field(17, field(1, "abc") + field(3, "p") + field(8, "name") + field(17, field(1, 1_600_000_000)))


def log(*records: bytes) -> bytes:
    """Return a file of records."""
    found = bytearray(b":W&B\xe1\xbe\x00")
    for record in records:
        rest, first = record, True
        while first or rest:
            room = BLOCK - len(found) % BLOCK
            if room < 7:
                found += bytes(room)
                room = BLOCK
            part, rest = rest[: room - 7], rest[room - 7 :]
            kind = (1 if first else 4) if not rest else (2 if first else 3)
            found += struct.pack("<IHB", zlib.crc32(bytes([kind]) + part), len(part), kind) + part
            first = False
    return bytes(found)


def kept(folder: Path, *records: bytes) -> Path:
    """Write a file of records into a folder as W&B names them."""
    run = folder / "wandb" / "offline-run-20200913_122640-abc"
    (run / "files").mkdir(parents=True, exist_ok=True)
    (run / "run-abc.wandb").write_bytes(log(*records))
    return run


def read(uri: Path | str) -> tuple[list[transfer.RunInfo], list[transfer.Event], list[str]]:
    """Return everything that a source yields."""
    source = table.source("wandb", str(uri))
    runs, events = [], []
    for run in source.runs():
        runs.append(run)
        events += list(source.events(run))
    return runs, events, source.notes


def series(events: list[transfer.Event]) -> dict[str, list[tuple[int, float]]]:
    """Return steps and values by name."""
    found: dict[str, list[tuple[int, float]]] = {}
    for event in events:
        if isinstance(event, transfer.Points):
            pairs = zip(event.steps.tolist(), event.values.tolist(), strict=True)
            found.setdefault(event.name, []).extend(pairs)
    return found


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that W&B's client wrote."""
    pytest.importorskip("wandb")
    folder = tmp_path_factory.mktemp("foreign")
    subprocess.run([sys.executable, "-c", FOREIGN], cwd=folder, check=True, timeout=120)
    return folder


def test_a_run_of_wandbs_own_client_is_read_without_the_client(foreign: Path) -> None:
    (run,), events, notes = read(foreign)

    assert (run.project, run.name, run.status) == ("their project", "theirs", "failed")
    assert (run.group, run.job_type, run.notes, run.tags) == ("g", "t", "n", ("x",))
    assert run.params == {"lr": 0.5, "net": {"depth": 3}, "late": None}
    assert run.summary["best"] == 0.75
    assert "table" not in run.summary
    assert run.origin.startswith("wandb:them/their project/")
    assert run.started > 1_700_000_000_000_000
    found = series(events)
    assert found["loss"] == [(step, 1 / (step + 1)) for step in range(5)]
    assert found["deep.b.c"] == [(step, float(-step)) for step in range(5)]
    assert found["on"] == [(step, float(step % 2 == 0)) for step in range(5)]
    assert np.isnan(found["val/accuracy"][2][1])
    assert set(found) == {"loss", "val/accuracy", "epoch", "deep.a", "deep.b.c", "on"}
    assert [event.body for event in events if isinstance(event, transfer.Text)] == ["hello"]
    (histogram,) = [event for event in events if isinstance(event, transfer.Histogram)]
    assert sum(histogram.counts) == 4
    (media,) = [event for event in events if isinstance(event, transfer.Media)]
    assert (media.name, media.kind, media.step) == ("table", "table", 5)
    assert any("epoch" in note for note in notes)


@pytest.mark.parametrize("where", ["", "wandb", "run", "file"])
def test_a_folder_a_run_and_a_file_are_the_same_run(foreign: Path, where: str) -> None:
    run = next((foreign / "wandb").glob("offline-run-*"))
    place = {"": foreign, "wandb": foreign / "wandb", "run": run, "file": next(run.glob("*.wandb"))}[where]

    assert read(place)[0] == read(foreign)[0]


def test_reading_loads_no_client() -> None:
    code = (
        "import sys; from tracer.backends import wandb_reading; "
        "sys.exit(any(name.split('.')[0] in ('wandb', 'google') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_folder_without_runs_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no \.wandb file"):
        read(tmp_path)


def test_another_kind_of_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.wandb").write_bytes(b"\x89PNG" * 100)
    with pytest.raises(ConfigError, match=r"no \.wandb file"):
        read(tmp_path / "x.wandb")
    with pytest.raises(NotALog), RecordLog(str(tmp_path / "x.wandb")) as opened:
        list(opened.read())


def test_what_the_machine_did_comes_as_system_metrics(tmp_path: Path) -> None:
    sample = field(2, field(1, 1_600_000_001)) + field(3, field(1, "gpu.0.gpu") + field(16, "55.5"))
    kept(tmp_path, RUN, row(0, loss=1), field(7, sample), field(7, sample))
    _, events, _ = read(tmp_path)

    assert series(events)["system/gpu.0.gpu"] == [(0, 55.5), (1, 55.5)]
    (system,) = [event for event in events if isinstance(event, transfer.Points) and event.name != "loss"]
    assert system.times[0] == 1_600_000_001_000_000


def test_a_run_without_an_end_has_crashed_and_the_torn_tail_is_told(tmp_path: Path) -> None:
    run = kept(tmp_path, RUN, *(row(step, loss=step, _timestamp=1.6e9 + step) for step in range(100)))
    path = run / "run-abc.wandb"
    path.write_bytes(path.read_bytes()[:-5])
    (info,), events, notes = read(tmp_path)

    assert info.status == "crashed"
    assert len(series(events)["loss"]) == 99
    assert any("ends within a record" in note for note in notes)


def test_damage_costs_one_block_and_is_told(tmp_path: Path) -> None:
    run = kept(tmp_path, RUN, *(row(step, loss=step) for step in range(10_000)))
    path = run / "run-abc.wandb"
    data = bytearray(path.read_bytes())
    data[BLOCK + 500] ^= 1
    path.write_bytes(data)
    _, events, notes = read(tmp_path)

    steps = [step for step, _ in series(events)["loss"]]
    assert 10_000 - BLOCK // 20 < len(steps) < 10_000
    assert steps[-1] == 9_999
    assert any("damaged" in note for note in notes)


def test_long_records_span_blocks(tmp_path: Path) -> None:
    kept(tmp_path, RUN, row(0, text=json.dumps("x" * 200_000)), row(1, loss=2))
    _, events, _ = read(tmp_path)

    assert [len(event.body) for event in events if isinstance(event, transfer.Text)] == [200_000]
    assert series(events) == {"loss": [(1, 2.0)]}


def test_typed_values_are_understood(tmp_path: Path) -> None:
    def one(name: str, value: bytes) -> bytes:
        return field(1, field(2, name) + value)

    double = varint(6 << 3 | 1) + struct.pack("<d", -0.0)
    typed = one("a", double) + one("b", field(5, 5)) + one("c", field(4, 1)) + one("d", field(7, "text"))
    kept(tmp_path, RUN, field(2, typed + field(2, field(1, 4))))
    _, events, _ = read(tmp_path)

    found = series(events)
    assert found == {"a": [(4, 0.0)], "b": [(4, -3.0)], "c": [(4, 1.0)]}
    assert np.signbit(found["a"][0][1])
    assert [event.body for event in events if isinstance(event, transfer.Text)] == ["text"]


def test_paths_that_lead_out_are_never_opened(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    paths = ["../../../secret", str(secret), "media/../../../../secret", "link/secret", "media/absent.png", "a\0b"]
    rows = [row(step, image={"_type": "image-file", "path": path}) for step, path in enumerate(paths)]
    entry = field(1, "secret") + field(2, "AAAA") + field(4, 6) + field(6, str(secret))
    artifact = field(8, field(4, "model") + field(5, "m") + field(6, "d") + field(12, field(4, entry)))
    run = kept(tmp_path, RUN, *rows, artifact)
    (run / "files" / "link").symlink_to(tmp_path)
    (run / "files" / "output.log").symlink_to(secret)
    _, events, notes = read(tmp_path)

    assert events == []
    assert len(notes) == len(paths) + 1


def test_an_artifact_is_taken_when_its_bytes_are_those_that_were_logged(tmp_path: Path) -> None:
    local = tmp_path / "weights"
    local.write_bytes(b"weights")
    md5 = base64.b64encode(hashlib.md5(b"weights", usedforsecurity=False).digest()).decode()
    entry = field(1, "w/weights") + field(2, md5) + field(4, 7) + field(6, str(local))
    escape = field(1, "../weights") + field(2, md5) + field(4, 7) + field(6, str(local))
    artifacts = [
        field(8, field(4, "model") + field(5, name) + field(6, "d") + field(12, field(4, one)))
        for name, one in (("good", entry), ("evil", escape))
    ]
    kept(tmp_path, RUN, *artifacts)
    _, events, notes = read(tmp_path)

    (file,) = events
    assert isinstance(file, transfer.File)
    assert (file.name, file.parts[0].path) == ("good", "w/weights")
    assert file.parts[0].digest == hashlib.sha256(b"weights").hexdigest()
    assert len(notes) == 1


HOSTILE: dict[str, bytes] = {
    "deep JSON": row(1, a="[" * 100_000 + "]" * 100_000, b='{"a":' * 5000 + "1" + "}" * 5000),
    "deep keys": field(2, field(1, b"".join(field(2, "k") for _ in range(100_000)) + field(16, "1"))),
    "huge length": varint(2 << 3 | 2) + varint(2**63 - 1) + b"x",
    "endless number": b"\xff" * 1000,
    "huge step": row(2**70, loss=1, tracer_step="9" * 5000),
    "huge time": row(1, loss=1, _timestamp="1e308", _runtime="1e999"),
    "wrong types": field(2, 5) + field(17, 7) + field(5, 1) + field(8, 3) + field(7, 9),
    "group": b"\x13\x14",
    "no text": row(1, a="\udcff".encode("utf-8", "surrogatepass").decode("latin-1")),
    "histogram": row(
        1, h={"_type": "histogram", "values": [1] * 3, "packedBins": {"min": 0, "size": 1, "count": 10**9}}
    ),
    "strange histogram": row(1, h={"_type": "histogram", "values": [[], {}], "bins": [None, 1, 2]}),
    "strange media": row(1, m={"_type": ["x"], "path": 5}, n={"filenames": [1, None], "captions": 7}),
    "config over config": field(5, items(1, {"a": 1}) + field(1, field(2, "a") + field(2, "b") + field(16, "2"))),
    "exit": field(18, field(1, 2**64 - 1)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_records_cost_at_most_themselves(tmp_path: Path, name: str) -> None:
    kept(tmp_path, RUN, HOSTILE[name], row(3, fine=1))
    _, events, _ = read(tmp_path)

    assert series(events)["fine"] == [(3, 1.0)]


def test_many_names_are_bounded(tmp_path: Path) -> None:
    kept(tmp_path, RUN, *(row(step, **{f"n{step}-{number}": 1 for number in range(1000)}) for step in range(30)))
    started = time.monotonic()
    _, events, _ = read(tmp_path)

    assert len(events) == 30_000
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("seed", range(6))
def test_mutated_files_end_in_a_report_or_an_error(foreign: Path, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 -- damage, not secrets
    original = next(foreign.glob("wandb/offline-run-*/*.wandb")).read_bytes()
    for _ in range(40):
        data = bytearray(original)
        for _ in range(chance.randrange(1, 20)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            del data[chance.randrange(len(data)) :]
        if chance.random() < 0.5:
            data = bytearray(_with_checksums(bytes(data)))
        path = tmp_path / "run-x.wandb"
        path.write_bytes(bytes(data))
        try:
            read(path)
        except ConfigError as error:
            assert "no .wandb file" in str(error)  # noqa: PT017 -- nothing else is allowed


def test_random_bytes_end_in_a_report_or_an_error(tmp_path: Path) -> None:
    chance = random.Random(1)  # noqa: S311 -- damage, not secrets
    for size in (0, 1, 6, 7, 8, 100, 40_000, 100_000):
        path = tmp_path / "run-x.wandb"
        path.write_bytes(b":W&B\xe1\xbe\x00" + chance.randbytes(size))
        with pytest.raises(ConfigError):
            read(path)
        path.write_bytes(log(*(chance.randbytes(chance.randrange(1, 300)) for _ in range(200))))
        with pytest.raises(ConfigError):
            read(path)


def _with_checksums(data: bytes) -> bytes:
    """Return a file whose whole fragments have checksums that fit, so that what is inside is what is tried."""
    found: Any = bytearray(data)
    at = 7
    while at + 7 <= len(found):
        _, length, kind = struct.unpack_from("<IHB", found, at)
        if at % BLOCK > BLOCK - 7 or kind == 0 or at + 7 + length > len(found):
            break
        struct.pack_into("<I", found, at, zlib.crc32(bytes([kind]) + bytes(found[at + 7 : at + 7 + length])))
        at += 7 + length
    return bytes(found)
