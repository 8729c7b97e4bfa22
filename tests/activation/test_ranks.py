"""Launchers: the ranks of a training, and a notebook, are one run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from commands import QUIET, TEN, TRAIN, facts, only_run, recorded, tracer_run, write

from tracer.activation import claims
from tracer.storage import Store

RANK = """
    import os, sys, torch.distributed as dist
    from tracer.events import Scalars
    from tracer.sink import emit
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    {init}
    for step in range(10):
        emit(Scalars({{"loss": step + 100.0 * rank}}, step, origin="tensorboard"))
    dist.barrier()
    {end}
    dist.destroy_process_group()
"""
TORCHRUN = ("torchrun", "--nproc-per-node", "2", "--standalone")


def torchrun(program: str, code: int = 0) -> None:
    """Run two ranks of a program under `tracer run`."""
    write("train.py", program)
    start_ranks("train.py", code=code)


def start_ranks(*words: str, code: int = 0) -> None:
    """Start torchrun under `tracer run`."""
    done = subprocess.run(
        [sys.executable, "-m", "tracer", "run", "-q", *TORCHRUN, *words],
        env={**os.environ, **QUIET, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == code, done.stderr


def losses() -> dict[int, list[float]]:
    """Return the losses of both ranks of the one run."""
    with Store.open(".tracer") as store:
        return {rank: store.series(only_run()["id"], "loss", rank=rank).value.tolist() for rank in (0, 1)}


BOTH = {0: [float(step) for step in range(10)], 1: [100.0 + step for step in range(10)]}


@pytest.mark.torch
@pytest.mark.parametrize(
    ("init", "name"), [("pass", "given"), ("import tracer; tracer.init(run_name='mine', quiet=True)", "mine")]
)
def test_two_ranks_are_one_run_whoever_begins_it(init: str, name: str) -> None:
    torchrun(RANK.format(init=init, end="pass"))

    run = only_run()
    assert (run["status"], run["world_size"]) == ("completed", 2)
    assert name == "given" or run["name"] == name
    assert losses() == BOTH


@pytest.mark.torch
def test_a_rank_that_fails_fails_the_run_and_nothing_is_lost() -> None:
    torchrun(RANK.format(init="pass", end="raise SystemExit(7) if rank == 1 else None"), code=1)

    assert only_run()["status"] == "failed"
    assert losses() == BOTH


@pytest.mark.torch
def test_ranks_that_are_started_again_go_on_with_the_run() -> None:
    write(
        "train.py",
        """
        import os, signal
        from pathlib import Path
        from tracer.events import Scalars
        from tracer.sink import emit
        rank, life = int(os.environ["RANK"]), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
        for step in range(5 * life, 5 * life + 5):
            emit(Scalars({"loss": step + 100.0 * rank}, step, origin="tensorboard"))
        Path(f"recorded.{rank}.{life}").touch()
        while len(list(Path().glob(f"recorded.*.{life}"))) < 2:
            pass
        if life == 0:
            os.kill(os.getpid(), signal.SIGKILL) if rank == 1 else signal.pause()
        """,
    )

    start_ranks("--max-restarts", "1", "train.py")

    assert (only_run()["status"], only_run()["attempt"]) == ("completed", 2)
    assert losses() == BOTH


def test_a_launcher_whose_ranks_record_nothing_ends_its_run() -> None:
    write("train.py", "print('no training here')")
    write("torchrun.py", "import subprocess, sys\nsys.exit(subprocess.call([sys.executable, *sys.argv[1:]]))")
    write("fails.py", "raise SystemExit(2)")

    tracer_run("torchrun.py", "train.py")
    tracer_run("torchrun.py", "fails.py", code=2)

    assert [(run["status"], run["reason"]) for run in facts()] == [("completed", None), ("failed", "sys.exit(2)")]


def test_a_notebook_that_is_run_by_nbconvert_is_recorded() -> None:
    pytest.importorskip("nbconvert", reason="needs nbconvert")
    pytest.importorskip("ipykernel", reason="needs ipykernel")
    source = "from train import train\ntrain('loss')\nprint('trained')"
    cell = {"cell_type": "code", "execution_count": None, "id": "a", "metadata": {}, "outputs": [], "source": source}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    book = {"cells": [cell], "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    write("book.ipynb", json.dumps(book))
    write("train.py", TRAIN)

    tracer_run("-m", "nbconvert", "--to", "notebook", "--execute", "book.ipynb", "--output", "done.ipynb")

    assert "trained" in Path("done.ipynb").read_text(encoding="utf-8")
    assert only_run()["status"] == "completed"
    assert recorded() == {"loss": TEN}


def test_a_part_of_a_run_is_claimed_once(tmp_path: Path) -> None:
    folder = str(tmp_path / "run")
    program = f"from tracer.activation import claims; print(*(claims.take({folder!r}, rank) for rank in (0, 1)))"

    assert claims.take(folder, 0) == 1
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "None 1\n"


def test_what_a_dead_process_had_claimed_is_claimed_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    program = f"from tracer.activation import claims; print(claims.take({str(folder)!r}, 0))"
    lives = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(3)
    ]

    assert lives == ["1\n", "2\n", "3\n"]
    assert claims.job_of(str(folder), 0) == ""
    assert claims.job_of(str(folder), 1) is None
