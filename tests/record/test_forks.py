"""Child processes: forked, spawned, served; workers of a data loader; ranks of a job."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest
from journals import identities, only_run, rows, runs, said, segments, wait_until_released
from programs import await_line, kill, run, start

from tracer import journal, runfile

END = journal.Kind.END

FORKING = """
    import os, sys
    import tracer

    run = tracer.init(project="forks")
    for step in range(100):
        tracer.log({"parent": float(step)}, step=step)
    children = []
    for child in range(3):
        pid = os.fork()
        if pid == 0:
            for step in range(100):
                tracer.log({f"child{child}": float(step)}, step=step)
            if child == 1:
                tracer.finish()
            if child == 2 and os.fork() == 0:
                for step in range(100):
                    tracer.log({"grandchild": float(step)}, step=step)
                os._exit(0)
            if child == 2:
                os.wait()
            if child == 0:
                sys.exit(0)
            os._exit(0)
        children.append(pid)
    for step in range(100, 200):
        tracer.log({"parent": float(step)}, step=step)
    codes = [os.waitpid(pid, 0)[1] for pid in children]
    assert codes == [0, 0, 0], codes
    assert run.step_count == 0
    tracer.log({"parent": 200.0}, step=200)
    tracer.finish()
"""


def test_forked_children_write_their_own_journals(tmp_path: Path) -> None:
    run(FORKING)

    folder = only_run(tmp_path / ".tracer")
    found = Counter((name, row.step) for row in rows(folder) for name in row.values)
    expected = {("parent", step): 1 for step in range(201)}
    for name in ("child0", "child1", "child2", "grandchild"):
        expected |= {(name, step): 1 for step in range(100)}
    assert found == expected
    assert all(float(row.step) in row.values.values() for row in rows(folder))
    roles = {name: row.who["role"] for row in rows(folder) for name in row.values}
    assert roles == dict.fromkeys(("child0", "child1", "child2", "grandchild"), "child") | {"parent": "main"}
    pids = {name: row.who["pid"] for row in rows(folder) for name in row.values}
    assert len(set(pids.values())) == 5


def test_a_forked_child_ends_its_own_part_and_never_the_run(tmp_path: Path) -> None:
    run(
        """
        import os, sys
        import tracer
        from tracer import runfile

        with tracer.init(project="forks") as run:
            tracer.log({"loss": 1.0}, step=1)
            for ending in ("finish", "exit", "exception"):
                if os.fork() == 0:
                    tracer.log({ending: 1.0}, step=1)
                    if ending == "finish":
                        tracer.finish()
                        run.finish()
                        os._exit(0)
                    if ending == "exit":
                        sys.exit(3)
                    raise RuntimeError("in the child")
                os.wait()
                assert runfile.read(run.folder)["status"] == "running", ending
            tracer.log({"loss": 2.0}, step=2)
        """,
        strict=True,
    )

    folder = only_run(tmp_path / ".tracer")
    facts = runfile.read(str(folder))
    assert (facts["status"], facts["reason"]) == ("completed", None)
    assert [found.content["status"] for found in said(folder, END) if found.who["role"] == "main"] == ["completed"]
    assert {name for row in rows(folder) for name in row.values} == {"loss", "finish", "exit", "exception"}


def test_a_child_that_outlives_its_killed_parent_holds_nothing_of_it(tmp_path: Path) -> None:
    process = start(
        """
        import os, time
        import tracer

        tracer.init(project="forks")
        tracer.log({"loss": 1.0}, step=1)
        if os.fork() == 0:
            print(os.getpid(), flush=True)
            time.sleep(600)
        time.sleep(600)
        """
    )
    child = int(await_line(process))
    try:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

        wait_until_released(only_run(tmp_path / ".tracer"))
        os.kill(child, 0)
    finally:
        kill(process)

    assert len(rows(only_run(tmp_path / ".tracer"))) == 1


def test_a_fork_while_another_thread_logs_does_not_hang(tmp_path: Path) -> None:
    run(
        """
        import os, threading
        import tracer

        done = threading.Event()

        def work():
            step = 0
            while not done.is_set():
                tracer.log({"thread": float(step), "odd": "x"}, step=step)
                step += 1

        with tracer.init(project="forks", durability="step") as run:
            thread = threading.Thread(target=work)
            thread.start()
            for child in range(20):
                if os.fork() == 0:
                    for step in range(10):
                        tracer.log({"child": float(child)}, step=step)
                    run.flush()
                    run.finish()
                    os._exit(0)
                assert os.wait()[1] == 0
            done.set()
            thread.join()
        """
    )

    found = Counter(
        (row.values["child"], row.step) for row in rows(only_run(tmp_path / ".tracer")) if "child" in row.values
    )
    assert found == {(float(child), step): 1 for child in range(20) for step in range(10)}


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_of_multiprocessing_join_the_run(tmp_path: Path, method: str) -> None:
    run(
        """
        import multiprocessing, os, sys
        import tracer

        def work(worker):
            for step in range(100):
                tracer.log({f"worker{worker}": float(step)}, step=step)
            return os.getpid()

        if __name__ == "__main__":
            context = multiprocessing.get_context(sys.argv[1])
            with tracer.init(project="workers"):
                with context.Pool(2, maxtasksperchild=2) as pool:
                    pids = pool.map(work, range(6), chunksize=1)
                    pool.close()
                    pool.join()
                assert len(set(pids)) >= 3, pids
                tracer.log({"main": 1.0})
        """,
        method,
    )

    folder = only_run(tmp_path / ".tracer")
    found = Counter((name, row.step) for row in rows(folder) for name in row.values)
    assert found == {("main", 0): 1} | {(f"worker{worker}", step): 1 for worker in range(6) for step in range(100)}
    assert {row.who["role"] for row in rows(folder)} == {"main", "child" if method == "fork" else "worker"}
    assert runfile.read(str(folder))["status"] == "completed"


@pytest.mark.torch
@pytest.mark.parametrize(("workers", "method"), [(0, "fork"), (2, "fork"), (2, "spawn")])
def test_workers_of_a_data_loader_join_the_run(tmp_path: Path, workers: int, method: str) -> None:
    run(
        """
        import sys
        import torch
        import tracer

        class Numbers(torch.utils.data.Dataset):
            def __len__(self):
                return 12

            def __getitem__(self, index):
                tracer.log({"read": float(index)}, step=index)
                return torch.tensor(float(index))

        if __name__ == "__main__":
            workers, method = int(sys.argv[1]), sys.argv[2]
            options = {"persistent_workers": True, "multiprocessing_context": method} if workers else {}
            loader = torch.utils.data.DataLoader(Numbers(), batch_size=2, num_workers=workers, **options)
            with tracer.init(project="loader", track_system_metrics=False):
                for epoch in range(2):
                    for number, batch in enumerate(loader):
                        tracer.log({"sum": float(batch.sum())}, step=epoch * 6 + number)
        """,
        workers,
        method,
    )

    folder = only_run(tmp_path / ".tracer")
    found = Counter((name, row.step) for row in rows(folder) for name in row.values)
    assert found == {("read", index): 2 for index in range(12)} | {("sum", step): 1 for step in range(12)}
    readers = {row.who["pid"] for row in rows(folder) if "read" in row.values}
    assert len(readers) == max(workers, 1)


RANKS = """
    import os, sys, time
    import torch.distributed as dist
    import tracer

    dist.init_process_group("gloo")
    rank = dist.get_rank()
    with tracer.init(project="ranks", run_name="job") as run:
        assert (run.rank, run.world_size) == (rank, 2)
        dist.barrier()  # both have begun
        for step in range(100):
            tracer.log({"loss": float(step), "rank": float(rank)}, step=step)
        if len(sys.argv) > 1 and rank == 1:
            os.kill(os.getpid(), 9)
        dist.barrier()
    dist.destroy_process_group()
"""


LAUNCHER = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")


def torchrun(source: str, *arguments: str, code: int = 0) -> str:
    """Run a program as two ranks of one job; return what it printed."""
    done = run(source, *arguments, before=(*LAUNCHER, "--no-python"), code=code)
    return str(done.stdout)


@pytest.mark.torch
def test_ranks_of_one_job_share_a_run(tmp_path: Path) -> None:
    torchrun(RANKS)

    folder = only_run(tmp_path / ".tracer")
    assert Counter((row.who["rank"], row.values["rank"], row.step) for row in rows(folder)) == {
        (rank, float(rank), step): 1 for rank in range(2) for step in range(100)
    }
    assert {(who["rank"], who["local_rank"], who["world_size"]) for who in identities(folder)} == {(0, 0, 2), (1, 1, 2)}
    facts = runfile.read(str(folder))
    assert (facts["status"], facts["world_size"], facts["name"]) == ("completed", 2, "job")
    assert facts["pid"] in {who["pid"] for who in identities(folder) if who["rank"] == 0}


@pytest.mark.torch
def test_the_death_of_a_rank_leaves_what_it_logged(tmp_path: Path) -> None:
    torchrun(RANKS, "die", code=1)

    folder = only_run(tmp_path / ".tracer")
    assert Counter((row.who["rank"], row.step) for row in rows(folder)) == {
        (rank, step): 1 for rank in range(2) for step in range(100)
    }
    # The other rank fails at the barrier, or its launcher ends it before it can say so.
    assert runfile.read(str(folder))["status"] in {"failed", "running"}


@pytest.mark.torch
def test_a_rank_may_end_the_run_before_another_joins_it(tmp_path: Path) -> None:
    """Without collectives nothing holds the ranks together; and each may train twice."""
    torchrun(
        """
        import os, time
        from pathlib import Path
        import tracer

        rank = int(os.environ["RANK"])
        for training in range(2):
            done = Path(f"done{training}")
            while rank == 1 and not done.exists():
                time.sleep(0.01)
            with tracer.init(project="ranks", run_name="job"):
                tracer.log({"training": float(training), "rank": float(rank)})
            done.touch()
        """
    )

    found = sorted(
        sorted((row.values["training"], row.values["rank"]) for row in rows(folder))
        for folder in runs(tmp_path / ".tracer")
    )
    assert found == [[(0.0, 0.0), (0.0, 1.0)], [(1.0, 0.0), (1.0, 1.0)]]


@pytest.mark.torch
def test_a_restarted_job_goes_on_in_its_run(tmp_path: Path) -> None:
    run(
        """
        import os
        import tracer

        attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
        with tracer.init(project="ranks", run_name="job") as run:
            tracer.log({"attempt": float(attempt)}, step=attempt)
            if attempt == 0:
                os.kill(os.getpid(), 9)
        """,
        before=(*LAUNCHER, "--max-restarts", "1", "--monitor-interval", "0.1", "--no-python"),
    )

    folder = only_run(tmp_path / ".tracer")
    assert {(row.who["rank"], row.who["attempt"], row.step) for row in rows(folder)} >= {(0, 2, 1), (1, 2, 1)}
    assert {row.who["attempt"] for row in rows(folder)} == {1, 2}
    assert runfile.read(str(folder))["status"] == "completed"


def test_a_program_started_by_the_run_does_not_join_it(tmp_path: Path) -> None:
    run(
        """
        import subprocess, sys
        import tracer

        with tracer.init(project="outer"):
            code = "import tracer; tracer.log({'loss': 1.0})"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            assert "Tracer not initialized" in done.stderr, done.stderr
        """
    )

    assert rows(only_run(tmp_path / ".tracer")) == []
    assert len(segments(only_run(tmp_path / ".tracer"))) == 1
