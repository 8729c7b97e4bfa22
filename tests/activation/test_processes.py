"""Each way in which a program starts another: what it trains belongs to the one run, the rest leaves nothing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from commands import TEN, TRAIN, TRAIN_WITH_A_FRAMEWORK, facts, only_run, plain, recorded, tracer_run, write

#: Who trains → a program that has it train `loss` in another process, where `train.py` lies beside it.
CHILDREN = {
    "the program itself": "from train import train; train('loss')",
    "fork": """
        import os
        from train import train
        child = os.fork()
        if child == 0:
            train("loss")
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    """,
    "fork inside fork": """
        import os
        from train import train
        for _ in range(2):
            child = os.fork()
            if child:
                assert os.waitpid(child, 0)[1] == 0
                os._exit(0) if child != os.getpid() and os.getppid() == int(os.environ["_TRACER_COMMAND"]) else None
                break
        else:
            train("loss")
            os._exit(0)
    """,
    "multiprocessing, fork": """
        import multiprocessing
        from train import train
        child = multiprocessing.get_context("fork").Process(target=train, args=("loss",))
        child.start(); child.join()
        assert child.exitcode == 0
    """,
    "multiprocessing, spawn": """
        import multiprocessing
        from train import train
        if __name__ == "__main__":
            child = multiprocessing.get_context("spawn").Process(target=train, args=("loss",))
            child.start(); child.join()
            assert child.exitcode == 0
    """,
    "multiprocessing, forkserver": """
        import multiprocessing
        from train import train
        if __name__ == "__main__":
            child = multiprocessing.get_context("forkserver").Process(target=train, args=("loss",))
            child.start(); child.join()
            assert child.exitcode == 0
    """,
    "subprocess": """
        import subprocess, sys
        subprocess.run([sys.executable, "train.py"], check=True)
    """,
    "a shell in between": """
        import subprocess, sys
        subprocess.run(f"true && {sys.executable} train.py | cat", shell=True, check=True)
    """,
}


@pytest.mark.parametrize("child", CHILDREN)
def test_what_a_child_trains_belongs_to_the_run(child: str) -> None:
    write("train.py", TRAIN)
    write("parent.py", CHILDREN[child])

    tracer_run("--name", "family", "parent.py")

    assert (only_run()["name"], only_run()["status"]) == ("family", "completed")
    assert recorded() == {"loss": TEN}


@pytest.mark.parametrize("child", ["the program itself", "multiprocessing, spawn", "a shell in between"])
def test_a_framework_is_heard_in_a_child(child: str) -> None:
    pytest.importorskip("tensorboardX", reason="needs tensorboardX")
    write("train.py", TRAIN_WITH_A_FRAMEWORK)
    write("parent.py", CHILDREN[child])

    tracer_run("parent.py")

    assert recorded() == {"loss": TEN}


def test_a_module_is_run_as_python_runs_it() -> None:
    write("pack/__init__.py", "")
    write(
        "pack/train.py",
        TRAIN + "    print(__spec__.name, __package__, sys.argv[1:], sys.path[0])\n",
    )

    done = tracer_run("-m", "pack.train", "acc", "--lr", "3")

    assert done.stdout.split() == ["pack.train", "pack", "['acc',", "'--lr',", "'3']", str(Path.cwd())]
    assert recorded() == {"acc": TEN}


def test_classes_of_the_script_are_pickled_to_spawned_workers() -> None:
    write(
        "train.py",
        """
        import multiprocessing, os, sys

        class Sample:
            def __init__(self, value):
                self.value = value

        def double(sample):
            return Sample(sample.value * 2)

        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(2) as pool:
                print([sample.value for sample in pool.map(double, [Sample(1), Sample(2)])])
            print(sys.path[0] == os.getcwd(), __file__, os.getppid())
        """,
    )

    done = tracer_run("train.py")

    assert done.stdout.splitlines()[0] == "[2, 4]"
    assert done.stdout.split()[2:4] == ["True", str(Path("train.py").resolve())]


def test_children_that_do_not_train_leave_nothing_of_their_own() -> None:
    write(
        "parent.py",
        """
        import subprocess, sys
        subprocess.run([sys.executable, "-c", "print(1)"], check=True)
        subprocess.run([sys.executable, "-m", "json.tool", "--help"], check=True)
        subprocess.run(["ls"], check=True)
        """,
    )

    tracer_run("parent.py")

    run = only_run()
    claims = [path.name for path in Path(".tracer/runs", run["id"]).glob(".claim*")]
    assert (claims, run["status"], recorded()) == ([".claim.0.1"], "completed", {})


@pytest.mark.torch
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_data_loader_belong_to_the_run(method: str) -> None:
    write(
        "train.py",
        f"""
        import torch
        from torch.utils.data import DataLoader, Dataset
        from tracer.events import Scalars
        from tracer.sink import emit

        class Numbers(Dataset):
            def __len__(self):
                return 8

            def __getitem__(self, index):
                emit(Scalars({{"worker/item": float(index)}}, index, origin="tensorboard"))
                return torch.tensor(float(index))

        if __name__ == "__main__":
            loader = DataLoader(Numbers(), batch_size=2, num_workers=2, multiprocessing_context="{method}")
            for step, batch in enumerate(loader):
                emit(Scalars({{"sum": batch.sum()}}, step, origin="tensorboard"))
        """,
    )

    tracer_run("train.py")

    assert only_run()["status"] == "completed"
    assert recorded() == {"sum": [1.0, 5.0, 9.0, 13.0], "worker/item": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]}


def test_workers_of_a_server_that_forks_before_anything_is_recorded_share_a_run() -> None:
    write("train.py", TRAIN)
    write(
        "server.py",
        """
        import os
        from train import train
        workers = []
        for number in range(3):
            child = os.fork()
            if child == 0:
                train(f"worker{number}")
                os._exit(0)
            workers.append(child)
        assert [os.waitpid(child, 0)[1] for child in workers] == [0, 0, 0]
        """,
    )

    plain([sys.executable, "server.py"], TRACER_AUTO="1", PYTHONPATH=boot())

    assert recorded() == {"worker0": TEN, "worker1": TEN, "worker2": TEN}


def test_the_environment_alone_is_enough_and_a_program_that_never_trains_leaves_nothing() -> None:
    write("train.py", TRAIN)

    plain([sys.executable, "-c", "print(1)"], TRACER_AUTO="1", PYTHONPATH=boot())
    assert not Path(".tracer").exists()

    plain([sys.executable, "train.py"], TRACER_AUTO="1", TRACER_PROJECT="box", PYTHONPATH=boot())
    assert (only_run()["project"], only_run()["status"]) == ("box", "completed")
    assert recorded() == {"loss": TEN}


def test_without_being_asked_nothing_is_captured() -> None:
    write("train.py", TRAIN)

    plain([sys.executable, "train.py"], PYTHONPATH=boot())
    plain([sys.executable, "train.py"], TRACER_AUTO="0", PYTHONPATH=boot())

    assert facts() == []


def test_an_id_in_the_environment_is_the_run_of_all_who_have_it() -> None:
    write("train.py", TRAIN)

    for name in ("a", "b"):
        plain([sys.executable, "train.py", name], TRACER_AUTO="1", TRACER_RUN_ID="job-7", PYTHONPATH=boot())

    assert (only_run()["id"], only_run()["attempt"], only_run()["status"]) == ("job-7", 2, "completed")
    assert recorded() == {"a": TEN, "b": TEN}


def boot() -> str:
    """Return the folder that `tracer run` puts on PYTHONPATH."""
    from tracer.activation.carriers import BOOT

    return BOOT
