"""Runs programs, each as it is, in a folder of its own and with capture on; tells what its process found out.

python listened.py PROGRAM...
"""

from __future__ import annotations

import contextlib
import importlib
import json
import runpy
import sys
from pathlib import Path

import tracer
from tracer.capture.patching import patches

NAMES = ("transformers", "accelerate", "tensorboard")


def listen(program: Path) -> dict[str, object]:
    """Run a program once; return the versions it ran with, and the state of every hook."""
    folder = Path(program.stem)
    folder.mkdir()
    with contextlib.chdir(folder):
        patches.start(NAMES)
        try:
            with tracer.init(project=program.stem, run_name=program.stem, maintain="off", quiet=True):
                runpy.run_path(str(program), run_name="__main__")
            hooks = {name: (placed.state, placed.why) for name, placed in patches.placed.items()}
        finally:
            patches.stop()
    loaded = [name for name in ("transformers", "accelerate") if name in sys.modules]
    return {"hooks": hooks, "versions": {name: importlib.import_module(name).__version__ for name in loaded}}


if __name__ == "__main__":
    found = {Path(name).stem: listen(Path(name)) for name in sys.argv[1:]}
    Path("found.json").write_text(json.dumps(found), encoding="utf-8")
