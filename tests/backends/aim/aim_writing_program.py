"""Write runs to an Aim repository with the back end, as a mirror process does; started by the tests.

Usage: python aim_writing_program.py REPOSITORY MODE, with `whole`, `remote`, `killed`, `resumed` or `full`.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tracer.backends.aim import AimBackend
from tracer.backends.base import BackendError
from tracer.transfer import Event, File, Histogram, LogLine, Media, Part, Points, RunInfo, Text

BEGAN = 1_700_000_000_123_456
VALUES = [float("nan"), float("inf"), float("-inf"), -0.0, 1e-300, 1.7976931348623157e308, 5e-324, 0.1]
STEPS = [-(2**63), -5, 0, 7, 2**31, 2**53 + 1, 2**62, 2**63 - 1]
NAMES = ["plain", "a/b/c", "a:b?c", "a[0]", "ä ß 中", "../up", "line\nbreak", "nul\0", "_x5b_", "x" * 600, "a" * 499]


def points(name: str, steps: list[int], values: list[float], rank: int = 0) -> Points:
    """Return a series whose times are a microsecond apart."""
    times = BEGAN + np.arange(len(steps), dtype=np.int64)
    return Points(name, np.array(steps, np.int64), times, np.array(values, np.float64), rank)


def picture() -> bytes:
    """Return a small PNG."""
    from PIL import Image

    written = io.BytesIO()
    Image.new("RGB", (3, 2), (1, 2, 3)).save(written, "PNG")
    return written.getvalue()


def whole(folder: Path) -> list[Event]:
    """Return one batch with everything in it."""
    part = folder / "weights.bin"
    part.write_bytes(b"\0weights")
    return [
        points("values", list(range(len(VALUES))), VALUES),
        points("steps", STEPS, [float(at) for at in range(len(STEPS))]),
        points("disordered", [3, 1, 2, 1], [3.0, 1.0, 2.0, 4.0]),
        points("loss", [0], [0.5]),
        points("loss", [0, 1], [1.5, 2.5], rank=2),
        *(points(name, [1], [float(at)]) for at, name in enumerate(NAMES)),
        Text("loss", 3, BEGAN + 1, "text beside numbers"),
        Text("prompt", -3, BEGAN + 2, "before the start é"),
        LogLine("line", BEGAN + 3, "twice"),
        LogLine("line", BEGAN + 3, "twice"),
        LogLine("log", BEGAN + 4, "careful", "trainer", "WARNING", 3, {"a": 1}),
        LogLine("event", BEGAN + 5, None, "evaluated", fields={"score": 0.5}),
        Histogram("weights", 1, BEGAN + 6, (0.0, 1.0, 4.0), (2.0, 3.5)),
        Media("sample", "image", 2, BEGAN + 7, data=picture(), suffix=".png", caption="first"),
        Media("sample", "table", 2, BEGAN + 8, fields={"rows": [[1, 2]]}),
        Media("page", "html", 2, BEGAN + 9, data=b"<p>", suffix=".html"),
        File("model", "model", "v1", (Part("deep/w.bin", str(part), 8, "digest"),), BEGAN + 10, 5, ("best",), {"m": 1}),
    ]


def info(uid: str) -> RunInfo:
    """Return what is known of the run."""
    return RunInfo(
        uid, "a project", "a name", BEGAN, notes="some notes", tags=("one", "two"), labels={"team": "x"},
        params={"lr": 0.1, "none": None, "deep": {"": 1, "list": [1, {"z": True}]}, "big": 2**80},
        summary={"best": float("inf")}, group="g", job_type="train", steps=9,
    )  # fmt: skip


def main(repository: str, mode: str) -> None:
    """Write."""
    options = {"remote_uri" if mode == "remote" else "repo_path": repository}
    backend = AimBackend(options)
    remote = backend.open(info("killed" if mode == "resumed" else mode), {})
    if mode in {"whole", "remote"}:
        folder = tempfile.TemporaryDirectory()
        batch = whole(Path(folder.name))
        backend.write(batch)
        backend.write(batch)
        backend.close("failed", BEGAN + 60_000_000)
        again = AimBackend(options)
        assert again.open(info(mode), remote) == remote
        again.write(batch)
        again.close("completed", BEGAN + 61_000_000)
        folder.cleanup()
    elif mode in {"killed", "resumed"}:
        lines = [LogLine("line", BEGAN + at, f"line {at}") for at in range(20)]
        batch = [points("loss", list(range(500)), [at / 2 for at in range(500)]), *lines]
        backend.write(batch)
        if mode == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        backend.close("crashed", BEGAN + 2)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
        try:
            for start in range(0, 100_000, 1000):
                backend.write([points("loss", list(range(start, start + 1000)), [0.5] * 1000)])
            backend.close("completed", BEGAN + 2)
        except BackendError as error:
            sys.stdout.write(json.dumps({"error": type(error).__name__, "at": time.time()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
