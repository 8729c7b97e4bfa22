"""Call a function in a process of its own: what one measurement leaves behind must not touch the next.

    answer = fresh(tight_loop, "wandb", 10, folder=folder)

The function is found again by the file it stands in, its arguments and its answer travel as JSON. The process has
a home folder of its own, no settings of this machine, and one thread per numerical library.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

BENCHMARKS = Path(__file__).resolve().parent
RESULTS = BENCHMARKS / "results"

_OURS = ("TRACER_", "_TRACER_", "TRACELET_", "WANDB_", "TRACKIO_", "HF_")
_RANKS = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"}

Answer = TypeVar("Answer")


def fresh(function: Callable[..., Answer], *arguments: object, folder: Path, timeout_s: float = 1800) -> Answer:
    """Return what a function answers in a fresh process that works in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, answer = tempfile.mkstemp(suffix=".json", dir=folder)
    os.close(handle)
    done = subprocess.run(
        command(function, *arguments, answer=answer),
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode != 0:
        message = f"{function.__name__}{arguments} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        raise RuntimeError(message)
    with open(answer, encoding="utf-8") as file:
        value: Answer = json.load(file)
    os.unlink(answer)
    return value


def started(function: Callable[..., object], *arguments: object, folder: Path) -> subprocess.Popen[bytes]:
    """Start a function in a fresh process of a group of its own, which the caller may kill."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "output.txt", "ab") as output:
        return subprocess.Popen(
            command(function, *arguments, answer=os.devnull),
            cwd=folder,
            env=environment(folder),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def command(function: Callable[..., object], *arguments: object, answer: str) -> list[str]:
    """Return the command line that calls a function and writes its answer to a file."""
    module = Path(function.__code__.co_filename).stem
    return [sys.executable, __file__, module, function.__name__, json.dumps(arguments), answer]


def environment(folder: Path) -> dict[str, str]:
    """Return an environment in which nobody's settings count and nobody asks a network."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_OURS) and name not in _RANKS}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    offline = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    home = folder / "home"
    home.mkdir(parents=True, exist_ok=True)
    homes = {
        "HOME": str(home),
        **{f"XDG_{kind}_HOME": str(home / kind.lower()) for kind in ("CONFIG", "CACHE", "DATA")},
    }
    return {**kept, **threads, **offline, **homes}


@contextlib.contextmanager
def scratch(name: str) -> Iterator[Path]:
    """Give a folder on this copy's own disk, and remove it afterwards."""
    RESULTS.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=RESULTS))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _serve(module: str, function: str, arguments: str, answer: str) -> None:
    """Be the fresh process."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    value: Any = getattr(importlib.import_module(module), function)(*json.loads(arguments))
    with open(answer, "w", encoding="utf-8") as file:
        json.dump(value, file)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
