"""Programs that know nothing of Tracer: what is recorded is what TensorBoard reads, and they do what they always do."""

# ruff: noqa: ANN401 -- the packages decide what they hand over, and of what type

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from programs import run as run_program

Points = dict[str, list[tuple[int, float, float]]]

#: torch: random curves under grouped tags, as its page begins.
TORCH_CURVES = """
from torch.utils.tensorboard import SummaryWriter
import numpy as np

writer = SummaryWriter()

for n_iter in range(100):
    writer.add_scalar('Loss/train', np.random.random(), n_iter)
    writer.add_scalar('Loss/test', np.random.random(), n_iter)
    writer.add_scalar('Accuracy/train', np.random.random(), n_iter)
    writer.add_scalar('Accuracy/test', np.random.random(), n_iter)
writer.close()
"""

#: torch: a line is fitted, the loss is a tensor.
TORCH_REGRESSION = """
import torch
from torch.utils.tensorboard import SummaryWriter
writer = SummaryWriter()

x = torch.arange(-5, 5, 0.1).view(-1, 1)
y = -5 * x + 0.1 * torch.randn(x.size())
model = torch.nn.Linear(1, 1)
criterion = torch.nn.MSELoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

for epoch in range(10):
    loss = criterion(model(x), y)
    writer.add_scalar("Loss/train", loss, epoch)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

writer.add_graph(model, x)
writer.flush()
writer.close()
"""

#: torch: several values in one chart, histograms, a precise scalar, hyper-parameters.
TORCH_CHARTS = """
from torch.utils.tensorboard import SummaryWriter
import numpy as np

with SummaryWriter('runs/charts') as writer:
    r = 5
    for i in range(100):
        writer.add_scalars('run_14h', {'xsinx': i * np.sin(i / r),
                                       'xcosx': i * np.cos(i / r),
                                       'tanx': np.tan(i / r)}, i)
        writer.add_scalar('y=2x', i * 2, i)
        writer.add_scalar('precise', i / 3, i, new_style=True, double_precision=True)
        writer.add_scalar('odd', [np.nan, np.inf, -np.inf, 1.0][i % 4], 100 - i)
    for i in range(3):
        writer.add_histogram('distribution centers', np.random.random(1000) + i, i)
    writer.add_hparams({'lr': 0.1, 'bsize': 3}, {'hparam/accuracy': 10, 'hparam/loss': 10}, run_name='session')
"""

#: tensorboardX: the call in its introduction.
X_CURVES = """
from tensorboardX import SummaryWriter

writer = SummaryWriter()
x = range(200)
for i in x:
    writer.add_scalar('y=2x', i * 2, i)
writer.close()
"""

#: tensorboardX: a bit of everything, as its demonstration shows it.
X_DEMONSTRATION = """
import numpy as np
import torch
from tensorboardX import SummaryWriter

writer = SummaryWriter('runs/demo')
for n_iter in range(100):
    s1 = torch.rand(1)
    s2 = torch.rand(1)
    writer.add_scalar('data/scalar1', s1[0], n_iter)
    writer.add_scalar('data/scalar2', s2[0], n_iter)
    writer.add_scalars('data/scalar_group', {'xsinx': n_iter * np.sin(n_iter), 'arctanx': np.arctan(n_iter)}, n_iter)
    if n_iter % 10 == 0:
        writer.add_image('Image', torch.rand(3, 8, 8), n_iter)
        writer.add_text('Text', 'text logged at step:' + str(n_iter), n_iter)
        writer.add_histogram('weights', torch.randn(50), n_iter)
        writer.add_pr_curve('xoxo', np.random.randint(2, size=100), np.random.rand(100), n_iter)
writer.export_scalars_to_json('./all_scalars.json')
writer.close()
"""

PROGRAMS = {
    "torch-curves": TORCH_CURVES,
    "torch-regression": TORCH_REGRESSION,
    "torch-charts": TORCH_CHARTS,
    "tensorboardX-curves": X_CURVES,
    "tensorboardX-demonstration": X_DEMONSTRATION,
}

#: Runs each program twice, seeded, each time in a folder of its own: as itself, and captured.
_AROUND = """
import contextlib, io, json, os, random, runpy, sys
import numpy, torch
import tracer

base, outcomes = os.getcwd(), {}
for program in sys.argv[1:]:
    for how in ("plain", "captured"):
        folder = os.path.join(base, program, how)
        os.makedirs(folder)
        os.chdir(folder)
        random.seed(1), numpy.random.seed(1), torch.manual_seed(1)
        if how == "captured":
            tracer.init(project="programs", capture=["tensorboard"])
        with contextlib.redirect_stdout(io.StringIO()) as said:
            runpy.run_path(os.path.join(base, program + ".py"), run_name="__main__")
        drawn = [random.random(), numpy.random.random(), torch.rand(1).item()]
        if how == "captured":
            tracer.finish()
        outcomes[f"{program} {how}"] = [drawn, said.getvalue()]
json.dump(outcomes, open(os.path.join(base, "outcomes.json"), "w"))
"""
_RAN: list[Path] = []


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """Return the folder in which one process has run all programs, for all tests of this page."""
    if not _RAN:
        for name, text in PROGRAMS.items():
            (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
        run_program(_AROUND, *PROGRAMS)
        _RAN.append(tmp_path)
    return _RAN[0]


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_is_recorded_is_what_tensorboard_reads(
    ran: Path,
    program: str,
    event_files: Any,
    recorded: Callable[[Path], Points],
    bits: Callable[[float], bytes],
) -> None:
    folder = ran / program / "captured"

    theirs = event_files(folder / "runs").scalars()
    ours = recorded(folder)

    def comparable(points: Points) -> dict[str, list[tuple[int, bytes, int]]]:
        return {
            name: sorted((step, bits(value), round(time * 1e6)) for step, value, time in found)
            for name, found in points.items()
            if not name.startswith("hparam/")  # results of a session: they belong to the run's summary
        }

    assert comparable(ours) == comparable(theirs)


def test_no_point_is_missing(ran: Path, recorded: Callable[[Path], Points]) -> None:
    points = recorded(ran / "tensorboardX-curves" / "captured")
    assert [step for step, _, _ in points["y_2x"]] == list(range(200))


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_does_what_it_does_without_tracer(ran: Path, program: str, event_files: Any) -> None:
    """The same records in its event files but for their times, the same files, random numbers and output."""
    plain, captured = ran / program / "plain", ran / program / "captured"
    outcomes = json.loads((ran / "outcomes.json").read_text(encoding="utf-8"))

    files = {folder: event_files(folder / "runs").timeless() for folder in (plain, captured)}
    assert _nameless(files[captured]) == _nameless(files[plain])
    assert outcomes[f"{program} captured"] == outcomes[f"{program} plain"]
    assert _kinds_of_files(captured) == _kinds_of_files(plain)


def _nameless(files: dict[str, list[bytes]]) -> list[tuple[str, list[bytes]]]:
    """Return the records by folder, without the part of the name that holds the time and the machine."""
    return sorted(("/".join(folder.split("/")[1:]), records) for folder, records in files.items())


def _kinds_of_files(folder: Path) -> list[str]:
    """Return the files that a program left, without what stands for the time, and without Tracer's store."""
    paths = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return sorted(
        path.suffix if "tfevents" not in path.name else "event file" for path in paths if path.parts[0] != ".tracer"
    )
