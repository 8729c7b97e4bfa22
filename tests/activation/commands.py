"""Commands under `tracer run`, and what they recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from programs import CALM, PATIENCE_S

from tracer.storage import Store

#: Trains: ten values of a metric that the first word names, emitted as an instrument of ours does when it hears them.
TRAIN = """
    import sys
    from tracer.events import Scalars
    from tracer.sink import emit

    def train(name):
        for step in range(10):
            emit(Scalars({name: step * 0.5}, step, origin="tensorboard"))

    if __name__ == "__main__":
        train(sys.argv[1] if len(sys.argv) > 1 else "loss")
"""
#: The same through a framework that knows nothing of us.
TRAIN_WITH_A_FRAMEWORK = """
    import sys
    from tensorboardX import SummaryWriter

    def train(name):
        writer = SummaryWriter("logs/" + name)
        for step in range(10):
            writer.add_scalar(name, step * 0.5, step)
        writer.close()

    if __name__ == "__main__":
        train(sys.argv[1] if len(sys.argv) > 1 else "loss")
"""
TEN = [step * 0.5 for step in range(10)]
QUIET = {**CALM, "TRACER_STRICT": "1", "TRACER_TRACK_CODE": "0"}


def write(name: str, text: str) -> Path:
    """Put a file into the working folder."""
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def tracer_run(*words: object, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command under `tracer run` and see that it ends as expected."""
    return plain([sys.executable, "-m", "tracer", "run", "-q", *map(str, words)], code=code, **env)


def plain(command: list[str], *, code: int = 0, **env: str) -> subprocess.CompletedProcess[str]:
    """Run any command with calm settings."""
    done = subprocess.run(
        command,
        env={**os.environ, **QUIET, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert done.returncode == code, f"exit code {done.returncode}, not {code}:\n{done.stdout}\n{done.stderr}"
    return done


def facts() -> list[dict[str, Any]]:
    """Return what the store's runs say of themselves, the oldest first."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in Path(".tracer/runs").glob("*/run.json")]
    return sorted(found, key=lambda said: said["started"])


def only_run() -> dict[str, Any]:
    """Return the facts of the one run there is."""
    (found,) = facts()
    return found


def recorded(rank: int = 0) -> dict[str, list[float]]:
    """Return the values of each series of the one run in order of steps, without what lies beside the program's."""
    uid = str(only_run()["id"])
    with Store.open(".tracer") as store:
        names = [row.metric for row in store.metrics(uid) if row.rank == rank]
        found = {name: store.series(uid, name, rank=rank).value.tolist() for name in names}
    return {name: values for name, values in found.items() if not name.startswith(("system/", "tracer/"))}
