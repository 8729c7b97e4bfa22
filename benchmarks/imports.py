"""What a start costs: importing Tracer and its peers, and the quick commands, each in fresh processes."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from figures import Spread, number
from fresh import environment, fresh, scratch
from report import Bar, Table, progress, reporting

_TRACER = str(Path(sys.executable).parent / "tracer")
_IMPORTS = {
    "bare Python": "pass",
    "Tracer": "import tracer",
    "torch": "import torch",
    "TensorBoard, beyond torch": "import torch; from torch.utils.tensorboard import SummaryWriter",
    "W&B": "import wandb",
    "trackio": "import trackio",
}
_IMPORT_LIMIT_MS, _HELP_LIMIT_MS = 30.0, 150.0


@dataclass(slots=True)
class Started:
    """How long processes took from start to end, in ms."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self, command: list[str], folder: Path) -> None:
        """Start a process, and wait until it has ended."""
        said, settings = folder / "said.txt", environment(folder)
        with open(said, "wb") as output:
            began = time.perf_counter()
            process = subprocess.Popen(command, cwd=folder, env=settings, stdout=subprocess.DEVNULL, stderr=output)
            _, status, used = os.wait4(process.pid, 0)
            self.wall.append((time.perf_counter() - began) * 1e3)
        self.cpu.append((used.ru_utime + used.ru_stime) * 1e3)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            message = f"{command} ended with {process.returncode}:\n{said.read_text(encoding='utf-8')}"
            raise RuntimeError(message)


def small_store(folder: str) -> None:
    """Record three short runs, for the commands to list."""
    import tracer

    for number_ in range(3):
        with tracer.init(project="benchmark", run_name=f"run-{number_}", storage_path=f"{folder}/.tracer", quiet=True):
            for step in range(100):
                tracer.log({"loss": 1 / (1 + step)})
                tracer.step()


def measured(commands: dict[str, list[str]], repeats: int, folder: Path) -> dict[str, Started]:
    """Start each command in turn, again and again; the first round warms the page cache and does not count."""
    found = {name: Started() for name in commands}
    for turn, (name, command) in itertools.product(range(repeats + 1), commands.items()):
        progress(f"imports: round {turn} of {repeats}, {name}")
        (Started() if turn == 0 else found[name]).run(command, folder)
    return found


def _fill(table: Table, found: dict[str, Started], less: dict[str, str]) -> dict[str, tuple[Spread, float]]:
    """Add a row for each command, less what its base costs; return its spread of wall time and its median CPU."""
    out = {}
    for name, base in less.items():
        walls = Spread.of(found[name].wall)
        beneath = Spread.of(found[base].wall)
        wall = Spread(walls.min - beneath.min, walls.median - beneath.median, walls.max)
        cpu = Spread.of(found[name].cpu).median - Spread.of(found[base].cpu).median
        table.add(name, wall.min, wall.median, number(cpu))
        out[name] = (wall, cpu)
    return out


def main() -> None:
    """Measure, judge, print."""
    how = (
        "Processes are started in turn; ms from start to end. Imports are told beyond what a Python that imports "
        "nothing takes, minimum less minimum and median less median; commands are told whole, as a user waits for them."
    )
    with reporting("imports", "Imports and quick commands", how) as report, scratch("imports") as folder:
        repeats = 2 if report.quick else 15
        fresh(small_store, str(folder), folder=folder)
        python = {name: [sys.executable, "-c", program] for name, program in _IMPORTS.items()}
        tracer = {"`tracer --help`": [_TRACER, "--help"], "`tracer list`, 3 runs": [_TRACER, "list"]}
        found = measured({**python, **tracer}, repeats, folder)
        imports = report.table("Imports", "of", "ms at the min", "ms at the median", "CPU ms at the median")
        less = {name: "torch" if name.endswith("torch") and name != "torch" else "bare Python" for name in _IMPORTS}
        told = _fill(imports, found, {name: base for name, base in less.items() if name != "bare Python"})
        found["nothing"] = Started([0.0], [0.0])
        commands = report.table("Commands", "command", "ms at the min", "ms at the median", "CPU ms at the median")
        told |= _fill(commands, found, dict.fromkeys(["bare Python", *tracer], "nothing"))
        imported, helped = told["Tracer"][0], told["`tracer --help`"][0]
        report.bars += [
            Bar.at_most("`import tracer`, over bare Python", _IMPORT_LIMIT_MS, "ms", imported.median, imported.min),
            Bar.at_most("`tracer --help`", _HELP_LIMIT_MS, "ms", helped.median, helped.min),
        ]


if __name__ == "__main__":
    main()
