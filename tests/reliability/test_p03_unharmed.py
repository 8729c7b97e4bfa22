"""P3: nothing of ours raises into the training, hangs it or slows it; a wrong argument raises at once."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from journals import points, runs
from programs import await_line, run, start

import tracer
from tracer.errors import ConfigError, StoreError

#: A training like any other: its result, exit code and output must be the same whatever the disk does.
TRAINING = """
    import os, signal, sys, threading, time
    import tracer

    run = tracer.init(project="harm", storage_path=sys.argv[1])
    told = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: told.set())
    result = 0.0
    for step in range(int(sys.argv[2])):
        result += 1 / (step + 1)
        tracer.log({"result": result, "step": step, "word": "x"})
        tracer.step()
        if step == 50:
            print("half", flush=True)
            while not told.is_set():
                time.sleep(0.01)
        if step > 50:
            run._recorder.upkeep.wake() if step % 100 == 0 else None
    print(result)
"""


def expected(steps: int) -> str:
    """Return what the training prints without Tracer."""
    result = 0.0
    for step in range(steps):
        result += 1 / (step + 1)
    return f"{result}\n"


def train(store: Path, steps: int, meanwhile: Callable[[], object]) -> str:
    """Train with a fault in the middle; return what was said on stderr."""
    process = start(TRAINING, store, steps, strict=False, env={"TRACER_QUIET": "0"})
    await_line(process)
    meanwhile()
    process.send_signal(10)
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (0, expected(steps)), err
    assert "Traceback" not in err
    return err


def test_p03_a_disk_that_fills_up(small_disk: Callable[..., Path], fill: Callable[[Path], Path]) -> None:
    disk = small_disk(3000)

    err = train(disk, 60_000, lambda: fill(disk))

    assert err.count("No space left on device") == 1
    assert "Your program is unaffected" in err


@pytest.mark.parametrize("size_kib", [256, 400])
def test_p03_a_disk_that_is_small_from_the_beginning(small_disk: Callable[..., Path], size_kib: int) -> None:
    err = train(small_disk(size_kib), 20_000, lambda: None)

    assert err.count("No space left on device") == 1


def test_p03_a_disk_without_room_for_another_file(small_disk: Callable[..., Path]) -> None:
    disk = small_disk(10_000, inodes=40)

    def use_up() -> None:
        for number in range(40):
            try:
                (disk / f"file{number}").touch()
            except OSError:
                return

    assert "Your program is unaffected" in train(disk, 60_000, use_up)


def test_p03_a_limit_on_the_size_of_files(tmp_path: Path) -> None:
    """Beyond 300 KiB a file does not grow: smaller segments are made instead."""
    process = start(
        TRAINING,
        tmp_path / "store",
        10_000,
        strict=False,
        before=["prlimit", "--fsize=300000"],
        env={"TRACER_QUIET": "0"},
    )
    await_line(process)
    process.send_signal(10)
    out, err = process.communicate(timeout=120)

    assert (process.returncode, out) == (0, expected(10_000)), err
    (folder,) = runs(tmp_path / "store")
    steps = [step for name, step, _ in points(folder) if name == "step"]
    assert sorted(steps) == list(range(10_000))


def test_p03_a_limit_that_allows_no_segment(tmp_path: Path) -> None:
    process = start(
        TRAINING, tmp_path / "store", 5000, strict=False, before=["prlimit", "--fsize=30000"], env={"TRACER_QUIET": "0"}
    )
    await_line(process)
    process.send_signal(10)
    out, err = process.communicate(timeout=120)

    assert (process.returncode, out) == (0, expected(5000)), err
    assert err.count("File too large") == 1


def test_p03_a_limit_on_descriptors() -> None:
    done = run(
        """
        import resource, os
        import tracer

        run = tracer.init(project="harm")
        held = [os.open("/dev/null", os.O_RDONLY) for _ in range(3)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(held) + 1, max(held) + 1))
        for step in range(100_000):
            tracer.log({"loss": float(step)}, step=step)
        print("trained")
        """,
        strict=False,
        env={"TRACER_QUIET": "0"},
    )

    assert done.stdout == "trained\n"
    assert "Too many open files" in done.stderr


def test_p03_a_folder_that_is_deleted_in_mid_run(tmp_path: Path) -> None:
    store = tmp_path / "store"

    err = train(store, 30_000, lambda: shutil.rmtree(store))

    assert "it was deleted" in err or "No such file" in err
    (folder,) = runs(store)
    steps = {step for name, step, _ in points(folder) if name == "step"}
    assert 29_999 in steps  # it goes on where it can
    assert json.loads((folder / "run.json").read_text(encoding="utf-8"))["status"] == "completed"


def test_p03_a_folder_that_is_moved_in_mid_run(tmp_path: Path) -> None:
    store = tmp_path / "store"

    err = train(store, 3000, lambda: store.rename(tmp_path / "elsewhere"))

    assert "Traceback" not in err
    steps = {step for folder in runs(tmp_path / "elsewhere") for name, step, _ in points(folder) if name == "step"}
    assert steps == set(range(3000))


def test_p03_a_folder_that_becomes_read_only(small_disk: Callable[..., Path]) -> None:
    disk = small_disk(20_000)

    def protect() -> None:
        # The file system goes read-only under open files only by force; a bind mount over it is what an operator does.
        for folder in runs(disk):
            os.system(f"mount --bind -o ro {folder} {folder}; mount -o remount,ro,bind {folder}")  # noqa: S605

    try:
        err = train(disk, 60_000, protect)
    finally:
        for folder in runs(disk):
            os.system(f"umount -l {folder}")  # noqa: S605

    assert err.count("Read-only file system") >= 1
    assert "Your program is unaffected" in err


def test_p03_the_working_directory_may_vanish(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    done = run(
        """
        import os, shutil, sys
        os.chdir(sys.argv[1])
        import tracer
        run = tracer.init(project="harm", storage_path=sys.argv[2])
        shutil.rmtree(sys.argv[1])
        for step in range(100):
            tracer.log({"loss": float(step)}, step=step)
        tracer.finish()
        print("trained")
        """,
        tmp_path / "gone",
        tmp_path / "store",
        env={"TRACER_QUIET": "0"},
    )

    assert done.stdout == "trained\n"
    assert len(points(runs(tmp_path / "store")[0])) == 100


@pytest.mark.parametrize(
    ("place", "said"),
    [("file/store", "Not a directory"), ("locked/store", "Permission denied"), ("loop/store", "symbolic links")],
)
def test_p03_an_unusable_place_is_refused_at_init(tmp_path: Path, as_nobody: list[str], place: str, said: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "locked").mkdir(mode=0o500)
    (tmp_path / "loop").symlink_to("loop")

    done = run(
        """
        import sys
        import tracer

        try:
            tracer.init(project="harm", storage_path=sys.argv[1])
        except tracer.TracerError as error:
            print(type(error).__name__, error)
        """,
        tmp_path / place,
        before=as_nobody,
    )

    assert done.stdout.startswith("StoreError The store ")
    assert said in done.stdout
    assert "Choose another folder" in done.stdout


def test_p03_a_read_only_file_system_is_refused_at_init(small_disk: Callable[..., Path]) -> None:
    disk = small_disk(400)
    assert os.system(f"mount -o remount,ro {disk}") == 0  # noqa: S605

    with pytest.raises(StoreError, match="Read-only file system"):
        tracer.init(project="harm", storage_path=disk)


def test_p03_a_disk_that_is_full_is_refused_at_init(
    small_disk: Callable[..., Path], fill: Callable[[Path], Path]
) -> None:
    disk = small_disk(400)
    fill(disk)

    with pytest.raises(StoreError, match="No space left on device"):
        tracer.init(project="harm", storage_path=disk)


@pytest.mark.parametrize(
    "place",
    ["with space", "new\nline", "深い/π", "x" * 255, "-rf", "a'b\"c", "#%20"],
    ids=lambda place: ascii(place)[:12],
)
def test_p03_any_name_of_a_folder_will_do(tmp_path: Path, place: str) -> None:
    with tracer.init(project="harm", storage_path=tmp_path / place, quiet=True, track_system_metrics=False):
        tracer.log({"loss": 1.0})

    assert points(runs(tmp_path / place)[0]) == [("loss", 0, 1.0)]


@pytest.mark.parametrize(
    "wrong",
    [{"checkpoint_interval": 0}, {"durability": "often"}, {"proyect": "x"}, {"retention_days": "soon"}],
    ids=str,
)
def test_p03_a_wrong_setting_raises_before_anything_is_written(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        tracer.init(project="harm", **wrong)

    assert list(tmp_path.iterdir()) == []


def test_p03_a_failing_metric_function_is_said_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> float:
        message = "the sensor is gone"
        raise OSError(message)

    with tracer.init(
        project="harm", custom_metrics={"sensor": fail}, checkpoint_interval=1, strict=False, track_system_metrics=False
    ) as run:
        for step in range(50):
            run.log({"loss": float(step)})
            run.step()

    assert capsys.readouterr().err.count("the sensor is gone") == 1
    assert len(points(runs(tmp_path / ".tracer")[0])) == 50


def test_p03_a_slow_disk_does_not_slow_the_loop(tmp_path: Path) -> None:
    """A sync of ten seconds is the background's business."""
    done = run(
        """
        import os, threading, time
        import tracer

        syncing, sync = threading.Event(), os.fdatasync

        def crawl(fd):
            syncing.set()
            time.sleep(10)
            sync(fd)

        os.fdatasync = crawl
        tracer.init(project="harm", finish_timeout_s=0.5)
        step = 0
        while not syncing.is_set():
            tracer.log({"loss": float(step)}, step=step)
            step += 1
        began, worst = time.monotonic(), 0.0
        for _ in range(50_000):
            before = time.monotonic()
            tracer.log({"loss": float(step)}, step=step)
            worst, step = max(worst, time.monotonic() - before), step + 1
        assert time.monotonic() - began < 9, "the loop waited for the disk"
        before = time.monotonic()
        tracer.finish()
        assert time.monotonic() - before < 5, "the end waited for the disk"
        print(step)
        os._exit(0)
        """,
        env={"TRACER_QUIET": "0"},
    )

    steps = int(done.stdout)
    assert len(points(runs(tmp_path / ".tracer")[0])) == steps
    assert "too slow to sync" in done.stderr


def test_p03_ten_thousand_steps_with_a_full_disk_are_no_slower_than_ten_times(
    small_disk: Callable[..., Path], fill: Callable[[Path], Path], tmp_path: Path
) -> None:
    """Both in one process, one after the other; in memory, recording is as quick as on a disk."""
    disk = small_disk(2000)

    def cost(store: Path, *, full: bool) -> float:
        with tracer.init(
            project="harm", storage_path=store, strict=False, quiet=True, track_system_metrics=False, track_git=False,
            track_environment=False, maintain="off",
        ) as run:  # fmt: skip
            if full:
                fill(disk)
            run.log({"loss": 1.0})
            began = time.thread_time()
            for step in range(100_000):
                run.log({"loss": float(step)}, step=step)
            return time.thread_time() - began

    assert cost(disk, full=True) < 10 * cost(tmp_path / "store", full=False)
