"""What the benchmarks promise in time, held here in counts, which are the same on every machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from tracer.storage import Store

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

Program = Callable[[str], ModuleType]


@pytest.mark.slow
def test_points_take_at_most_six_bytes_at_rest_catalog_included(program: Program, tmp_path: Path) -> None:
    data, fresh, store = program("series_data"), program("fresh").fresh, program("store")
    points = (data.STEPS - 1) * len(data.METRICS)

    # A store that holds next to nothing is not free: its catalog has empty tables, which the second one has too.
    sizes = []
    for steps in (1, data.STEPS):
        folder = tmp_path / str(steps)
        fresh(data.record, 0, steps, str(folder / ".tracer"), folder=folder)
        fresh(store.fold, str(folder / ".tracer"), folder=folder)
        sizes.append(store.size_bytes(folder / ".tracer"))

    assert (sizes[1] - sizes[0]) / points <= 6


def test_what_was_recorded_is_what_the_benchmark_made(program: Program, tmp_path: Path) -> None:
    data, store = program("series_data"), tmp_path / ".tracer"
    data.record(3, 500, str(store))
    made = data.columns(3, 500)

    with Store.open(store) as opened:
        uid = opened.run("run-03").uid
        found = {name: opened.series(uid, name) for name in data.METRICS}

    assert [found[name].value.tolist() == made[name].tolist() for name in data.METRICS] == [True] * 5
    assert [found[name].step.tolist() == list(range(500)) for name in data.METRICS] == [True] * 5


def test_importing_tracer_loads_few_modules() -> None:
    loaded = loaded_by("import tracer")

    # 17 with Python 3.11, four of them ours; each further one is up to a millisecond of every start.
    assert len(loaded) <= 20, loaded


def test_a_contestant_is_imported_when_it_is_opened_and_not_before() -> None:
    loaded = loaded_by("import contestants, log_call, finish, kill, store")

    assert {name.partition(".")[0] for name in loaded} & {"tracer", "torch", "tensorboard", "wandb", "trackio"} == set()


def loaded_by(statement: str) -> list[str]:
    """Return what a fresh interpreter has loaded after a statement and had not before."""
    code = (
        f"import sys; before = set(sys.modules)\n{statement}\n"
        "new = sorted(set(sys.modules) - before)\nimport json; print(json.dumps(new))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    modules: list[str] = json.loads(done.stdout)
    return modules
