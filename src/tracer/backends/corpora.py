"""What a back end is tried with: one event of each kind, names that peers stumble over, and values at the edges."""

from __future__ import annotations

import hashlib
import math
import os

import numpy as np

from tracer import runfile
from tracer.transfer import (
    FACTS,
    FILE,
    HISTOGRAM,
    LAYER,
    LOG,
    MEDIA,
    POINTS,
    SPAN,
    TEXT,
    Event,
    File,
    Histogram,
    LayerPoints,
    LogLine,
    Media,
    Part,
    Points,
    RunInfo,
    Span,
    Text,
)  # fmt: skip

#: A moment in the past: a back end that writes "now" is seen by it.
BEGAN = 1_767_225_600_000_000
_SECOND = 1_000_000

NAMES = (
    "loss", "train/loss", "a b", "a.b", "a-b", "a_b", "A/b", "a/B", "loss[0]", "loss_x5b_0_x5d_", "a:b?c", "50%",
    "größe/π", "名前", "🚀", "../up", "/root", "a//b", ".", "x" * 240, "y" * 300 + "1", "y" * 300 + "2", "'quoted'",
    'say "hi"', "back\\slash", "emoji/👩‍🔬", "trailing/", "_x", "=1+1",
)  # fmt: skip
#: Class of the value → the values; a back end may lose a class that its limits name.
VALUES = {
    "plain": (0.0, 1.0, -1.5, 1 / 3, 123456.789),
    "NaN": (math.nan,),
    "Inf": (math.inf, -math.inf),
    "-0.0": (-0.0,),
    "tiny": (1e-300, 5e-324),
    "large": (1.7976931348623157e308, float(2**53)),
}
STEPS = {"plain": (0, 1, 7), "negative": (-3,), "large": (2**53 + 1, 2**62)}
_PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002000001e221bc33"
    "0000000049454e44ae426082"
)


def run_info(name: str) -> RunInfo:
    """Return a run of its own."""
    params = {"lr": 0.1, "layers": [64, 32], "model": {"kind": "größer", "drop": None}, "on": True}
    return RunInfo(
        runfile.new_id(), "conformance", name, BEGAN, status="running", tags=("a", "b c"), notes="Tried.",
        params=params, environment={"python": "3.11"}, git={"commit": "0" * 40},
    )  # fmt: skip


def series(name: str, steps: list[int], values: list[float], rank: int = 0) -> Points:
    """Return a series, a second between two points."""
    times = BEGAN + _SECOND * np.arange(len(steps), dtype=np.int64)
    return Points(name, np.array(steps, np.int64), times, np.array(values, np.float64), rank)


def example(kind: str, folder: str) -> list[Event]:
    """Return events of a kind.

    Args:
        kind: One of `tracer.transfer.KINDS`.
        folder: Where the files of an artifact may be put.
    """
    one = np.array([1], np.int64)
    examples: dict[str, list[Event]] = {
        POINTS: [series("kinds/points", [0, 1, 2], [1.0, 0.5, 0.25])],
        LAYER: [LayerPoints("gradients/fc.weight/norm", one, one + BEGAN, np.array([0.5]))],
        TEXT: [Text("kinds/text", 1, BEGAN, "Grüße\nzwei Zeilen")],
        LOG: [LogLine("stdout", BEGAN, "epoch 1"), LogLine("log", BEGAN, "slow", "train", "WARNING", 3, {"a": 1})],
        MEDIA: [Media("kinds/picture", "image", 2, BEGAN, data=_PIXEL, suffix=".png", caption="a pixel")],
        HISTOGRAM: [Histogram("kinds/histogram", 3, BEGAN, (-1.0, 0.0, 1.0, 2.0), (1.0, 0.0, 4.0))],
        SPAN: [Span("work", "1" * 32, "2" * 16, BEGAN, BEGAN + _SECOND, attributes={"size": 3}, status="ok")],
        FACTS: [],
    }
    return [_file(folder)] if kind == FILE else examples[kind]


def _file(folder: str) -> File:
    """Return an artifact of two files."""
    parts = []
    for name, content in (("model.bin", bytes(range(256))), ("notes/read me.txt", "Größe\n".encode())):
        path = os.path.join(folder, *name.split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        parts.append(Part(name, path, len(content), f"sha256:{hashlib.sha256(content).hexdigest()}"))
    return File("kinds-artifact", "model", "v0", tuple(parts), BEGAN, 3, ("latest",), {"score": 0.5})


__all__ = ["BEGAN", "NAMES", "STEPS", "VALUES", "example", "run_info", "series"]
