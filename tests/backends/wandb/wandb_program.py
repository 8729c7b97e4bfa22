"""A program that mirrors a run to W&B as its first argument says; W&B starts threads and a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from struct import pack

import numpy as np

from tracer import transfer
from tracer.backends import table
from tracer.backends.base import BackendError
from tracer.backends.wandb import WandbBackend
from tracer.testing import check_backend

STARTED = 1_600_000_000_000_000
STEPS = np.array([0, -5, 3, 3, 2, 2**53 + 1, -(2**62), 2**62, 9, 10])
VALUES = np.array([0.5, np.nan, np.inf, -np.inf, -0.0, 1e-300, 1 / 3, 5e-324, 1.7976931348623157e308, 7.0])
NAMES = [
    "loss",
    "a/b c[0]: ü",
    "a.b",
    "..",
    "a/../b",
    "_step",
    "tracer_step",
    "*",
    "_x41_",
    "n" * 900,
    "-9",
    "tab\t",
    "",
]


def corpus() -> list[transfer.Points]:
    """Return what every test of numbers writes."""
    times = STARTED + np.arange(len(STEPS)) * 1001
    first = [transfer.Points(name, STEPS, times, VALUES + (0.0 if name == "loss" else 1.0)) for name in NAMES]
    first[0] = transfer.Points("loss", STEPS, times, VALUES)
    return [*first, transfer.Points("loss", STEPS[:3], times[:3], VALUES[:3], rank=2)]


def info(**more: object) -> transfer.RunInfo:
    """Return the run."""
    told: dict[str, object] = {
        "uid": "run0uid", "project": "vision/net", "name": "first try", "started": STARTED, "group": "g",
        "job_type": "train", "notes": "as it was", "tags": ("a", "b"), "labels": {"team": "x"},
        "summary": {"best": 0.25}, "git": {"commit": "abc"},
        "params": {"lr": 0.1, "deep": {"a": [1, 2]}, "dotted.name": 5},
    }  # fmt: skip
    return transfer.RunInfo(**(told | more))  # type: ignore[arg-type]


def png() -> bytes:
    """Return a picture of one pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    head = pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixel = zlib.compress(b"\0\xff\0\0")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixel) + chunk(b"IEND", b"")


def others() -> list[transfer.Event]:
    """Return one of each kind that is no number."""
    weights = Path("weights.bin")
    weights.write_bytes(bytes(range(256)) * 40)
    part = transfer.Part("sub/weights.bin", str(weights.resolve()), 10240, sha256(weights.read_bytes()).hexdigest())
    at = (7, STARTED + 77)
    return [
        transfer.Text("answer", *at, "forty-two\n“ü”"),
        transfer.Histogram("weights", *at, (0.0, 1.0, 2.0), (3.0, 4.0)),
        transfer.Histogram("wide", *at, tuple(map(float, range(1002))), (1.0,) * 1001),
        transfer.Media("picture/../one", "image", *at, data=png(), suffix=".png", caption="after"),
        transfer.Media("sound", "audio", *at, data=b"RIFF....", suffix=".wav"),
        transfer.Media("page", "html", *at, data=b"<b>hi</b>", suffix=".html"),
        transfer.Media("film", "video", *at, data=b"film", suffix=".mp4"),
        transfer.Media("table", "table", *at, data=b'{"columns": ["a", "b"], "rows": [[1, "x"], [2.5, null]]}'),
        transfer.Media("shape", "mesh", *at, data=b"v 1 2 3", suffix=".obj"),
        transfer.LogLine("stdout", STARTED + 5, "first line"),
        transfer.LogLine("record", STARTED + 6, "careful", name="torch", level="WARNING"),
        transfer.File("my model", "model", "v3", (part,), STARTED + 8, 7, ("best", "v9", "latest"), {"f1": 0.5}),
        info(params={"lr": 0.2, "new": 1}, tags=("a", "c"), notes="changed", summary={"best": 0.125}),
    ]


def beside() -> None:
    """Mirror two runs at once beside a run of the program's own, and close them one after the other."""
    import wandb

    own = wandb.init(mode="offline", dir="own", project="own", settings=wandb.Settings(silent=True, console="off"))
    backends = [table.backend("wandb", {"dir": "there", "mode": "offline"}) for _ in range(2)]
    for number, backend in enumerate(backends):
        backend.open(info(uid=f"run{number}"), {})
    for number, backend in enumerate(backends):
        point = transfer.Points("loss", STEPS[:1] + number, np.array([STARTED]), VALUES[:1] + number)
        backend.write([point])
    backends[0].close("completed", STARTED)
    own.log({"mine": 1})
    backends[1].close("running", None)
    again = table.backend("wandb", {"dir": "there", "mode": "offline"})
    again.open(info(uid="run1"), {"run_id": "run1"})
    again.write([transfer.Points("loss", STEPS[:1] + 5, np.array([STARTED]), VALUES[:1])])
    again.close("completed", STARTED)
    own.log({"mine": 2})
    said = {"is_still_theirs": wandb.run is own}
    own.finish()
    sys.stdout.write(json.dumps(said))


def conform() -> None:
    """See whether the contract is kept, read back by W&B's own reader."""

    def official(remote: Mapping[str, str]) -> dict[str, list[tuple[int, float]]]:
        found: dict[str, list[tuple[int, float]]] = {}
        for path in sorted(Path("there", "wandb").glob(f"offline-run-*/run-{remote['run_id']}.wandb")):
            command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(path)]
            told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            for line in told.splitlines():
                row = json.loads(line).get("history", {}).get("item", {})
                for name, value in row.items():
                    if name not in {"tracer_step", "_step", "_timestamp", "_runtime"} and "._" not in name:
                        found.setdefault(name, []).append((row["tracer_step"], value))
        return {
            name: [(step, float(value)) for step, value in points]
            for name, points in found.items()
            if all(isinstance(value, (int, float)) or value in _WORDS for _, value in points)
        }

    dead = {"mode": "online", "base_url": "http://127.0.0.1:9", "init_timeout_s": 2}
    options = {"dir": "there", "mode": "offline"}
    # W&B's reader shows -0.0 as 0; the file has `-0`, which another test reads.
    check_backend(WandbBackend, read=official, options=options, dead=dead, losses=["-0.0"])
    sys.stdout.write("{}")


_WORDS = ("NaN", "Infinity", "-Infinity")


def main() -> None:
    """Do what the first argument says."""
    if sys.argv[1] in {"beside", "conform"}:
        beside() if sys.argv[1] == "beside" else conform()
        return
    what, told = sys.argv[1], json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}
    backend = table.backend("wandb", {"dir": "there", "mode": "offline"} | told.get("options", {}))
    try:
        remote = backend.open(info(), told.get("remote", {}))
    except BackendError as error:
        sys.stdout.write(json.dumps({"error": type(error).__name__, "message": str(error)}))
        return
    said: dict[str, object] = {"remote": dict(remote), "url": backend.url()}
    backend.write(corpus())
    if what == "kill":
        sys.stdout.write(json.dumps(said))
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "whole":
        backend.write(others())
        backend.write(others())
    if what == "evil":
        part = transfer.Part("../../evil", "weights.bin", 1, "")
        try:
            backend.write([transfer.File("model", "model", "v1", (part,))])
        except BackendError as error:
            said["error"] = type(error).__name__
    if what == "twice":
        backend.write(corpus())
    backend.close(told.get("status", "completed"), STARTED + 10_000_000)
    said["renamed"] = dict(backend.renamed())
    said["threads"] = [thread.name for thread in threading.enumerate()]
    said["variables"] = [name for name in os.environ if name.startswith("WANDB")]
    said["run"] = repr(sys.modules["wandb"].run)
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
