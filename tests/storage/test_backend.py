"""`StorageBackend`: every method of the documents, on a real store, read back by itself and by another process."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tracer.errors import RunNotFound, StoreError
from tracer.storage import StorageBackend
from tracer.storage.samples import read_samples

LAYER = {"norm": 0.5, "mean": 0.25, "std": 1.0, "max": 2.0, "min": -2.0, "num_zeros": 3, "num_nans": 1, "num_infs": 2}


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[StorageBackend]:
    with StorageBackend(SimpleNamespace(storage_path=tmp_path / "deep" / "store")) as backend:
        yield backend


@pytest.fixture
def run(storage: StorageBackend) -> str:
    storage.create_run("a", "test", "run a", 1000.0, {"lr": 0.1})
    return "a"


def other(storage: StorageBackend) -> StorageBackend:
    """A second backend on the same store, as another program has it."""
    return StorageBackend(SimpleNamespace(storage_path=storage.base_path))


def test_a_store_is_made_with_the_folders_above_it(storage: StorageBackend, tmp_path: Path) -> None:
    assert storage.base_path == tmp_path / "deep" / "store"
    assert storage.base_path.is_dir()
    assert (storage.db_path.name, storage.samples_dir.name) == ("tracer.db", "samples")


def test_a_store_that_cannot_be_made_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(StoreError, match="file"):
        StorageBackend(SimpleNamespace(storage_path=tmp_path / "file" / "store"))


def test_a_run_has_the_keys_of_the_documents(storage: StorageBackend, run: str) -> None:
    storage.write_checkpoint(run, 5, 1005.5, {"loss": 0.5}, {}, {})
    running = storage.get_run(run)
    storage.finalize_run(run, 1100.25, "completed", 10)

    found = storage.get_run(run)

    assert running is not None
    assert (running["status"], running["end_time"]) == ("running", None)
    assert found is not None
    assert {key: value for key, value in found.items() if not key.endswith("_at")} == {
        "run_id": "a",
        "project_name": "test",
        "run_name": "run a",
        "start_time": 1000.0,
        "end_time": 1100.25,
        "status": "completed",
        "config": '{"lr": 0.1}',
        "total_steps": 10,
        "total_checkpoints": 1,
    }
    assert found["created_at"] == "1970-01-01 00:16:40"


def test_an_unknown_run_is_none_or_empty(storage: StorageBackend) -> None:
    assert storage.get_run("none") is None
    assert storage.get_checkpoints("none") == []
    assert storage.get_gradient_stats("none") == {}
    assert storage.get_metric_timeseries("none", "loss") == {"steps": [], "timestamps": [], "values": []}


@pytest.mark.usefixtures("run")
def test_a_name_is_no_id(storage: StorageBackend) -> None:
    assert storage.get_run("run a") is None


def test_the_same_id_again_is_refused_unless_resumed(storage: StorageBackend, run: str) -> None:
    storage.write_checkpoint(run, 1, 1.0, {"loss": 1.0}, {}, {})

    with pytest.raises(ValueError, match="run with the id 'a' exists already"):
        storage.create_run("a", "test", "again", 1.0, {})
    with other(storage) as second, pytest.raises(ValueError, match="exists already"):
        second.create_run("a", "test", "again", 1.0, {})
    storage.create_run("a", "test", "again", 1.0, {}, resume=True)
    storage.write_checkpoint(run, 2, 2.0, {"loss": 0.5}, {}, {})

    assert storage.get_metric_timeseries(run, "loss")["values"] == [1.0, 0.5]
    assert len(storage.list_runs()) == 1


@pytest.mark.parametrize("run_id", ["../../x", "a/b", ".hidden", "con", "ü" * 300, "a" * 200, "x y\n"])
def test_any_text_is_an_id_and_never_a_path(storage: StorageBackend, run_id: str) -> None:
    outside = {path for path in storage.base_path.parent.rglob("*") if storage.base_path not in path.parents}

    storage.create_run(run_id, "test", run_id, 1000.0, {})
    storage.write_checkpoint(run_id, 1, 1.0, {"loss": 1.0}, {}, {}, {"inputs": [1.0], "targets": [1]})
    storage.finalize_run(run_id, 1100.0, "completed", 1)

    found = storage.get_run(run_id)
    assert found is not None
    assert (found["run_id"], found["status"]) == (run_id, "completed")
    assert storage.get_metric_timeseries(run_id, "loss")["values"] == [1.0]
    assert len(read_samples(storage.get_checkpoints(run_id)[0]["sample_path"])["inputs"]) == 1
    assert {path for path in storage.base_path.parent.rglob("*") if storage.base_path not in path.parents} == outside
    with pytest.raises(ValueError, match="exists already"):
        storage.create_run(run_id, "test", "again", 1000.0, {})


@pytest.mark.parametrize("run_id", ["", "a" * 501])
def test_an_empty_or_endless_id_is_refused(storage: StorageBackend, run_id: str) -> None:
    with pytest.raises(ValueError, match="between 1 and 500"):
        storage.create_run(run_id, "test", "a", 1000.0, {})


def test_the_later_checkpoint_of_a_step_wins(storage: StorageBackend, run: str) -> None:
    for loss in (1.0, 2.0):
        samples = {"inputs": [loss], "targets": [0]}
        storage.write_checkpoint(run, 7, 1000.0 + loss, {"loss": loss}, {"fc": {**LAYER, "norm": loss}}, {}, samples)

    (checkpoint,) = storage.get_checkpoints(run)
    assert (checkpoint["timestamp"], json.loads(checkpoint["metrics"])) == (1002.0, {"loss": 2.0})
    assert storage.get_metric_timeseries(run, "loss") == {"steps": [7], "timestamps": [1002.0], "values": [2.0]}
    assert storage.get_gradient_stats(run)["fc"]["norms"] == [2.0]
    assert read_samples(checkpoint["sample_path"])["inputs"] == [2.0]
    assert read_samples(next(storage.samples_dir.glob("*.parquet")))["inputs"] == [2.0]


def test_the_later_checkpoint_wins_after_both_were_folded(storage: StorageBackend, run: str) -> None:
    for loss in (1.0, 2.0):
        storage.write_checkpoint(run, 7, 1000.0, {"loss": loss}, {"fc": {**LAYER, "norm": loss}}, {})
        storage.store.fold(run)

    assert storage.get_metric_timeseries(run, "loss")["values"] == [2.0]
    assert storage.get_gradient_stats(run)["fc"]["norms"] == [2.0]
    assert len(storage.get_checkpoints(run)) == 1


def test_nan_infinity_and_negative_zero_stay_what_they_are(storage: StorageBackend, run: str) -> None:
    values = [math.nan, math.inf, -math.inf, -0.0, 5e-324, 1e308]
    layer = {**LAYER, "norm": math.nan, "max": math.inf, "min": -math.inf}
    for step, value in enumerate(values):
        storage.write_checkpoint(run, step, 1000.0, {"loss": value}, {"fc": layer}, {})

    for _ in ("tail", "folded"):
        found = storage.get_metric_timeseries(run, "loss")["values"]
        stats = storage.get_gradient_stats(run)["fc"]
        assert [repr(value) for value in found] == [repr(value) for value in values]
        assert all(map(math.isnan, stats["norms"]))
        assert (stats["maxs"][0], stats["mins"][0]) == (math.inf, -math.inf)
        storage.store.fold(run)
    assert math.isnan(json.loads(storage.get_checkpoints(run)[0]["metrics"])["loss"])


def test_steps_come_in_any_order_and_are_read_in_theirs(storage: StorageBackend, run: str) -> None:
    steps = [5, -1, 0, 2**62, 3]
    for step in steps:
        storage.write_checkpoint(run, step, 1000.0, {"loss": 1.0}, {}, {})

    assert storage.get_metric_timeseries(run, "loss")["steps"] == sorted(steps)
    assert [found["step"] for found in storage.get_checkpoints(run)] == sorted(steps)


def test_a_series_is_plain_python(storage: StorageBackend, run: str) -> None:
    storage.write_checkpoint(run, 1, 1000.123456, {"loss": 1.0}, {"fc": LAYER}, {})

    series = storage.get_metric_timeseries(run, "loss")
    stats = storage.get_gradient_stats(run)["fc"]

    assert {key: [type(value) for value in values] for key, values in series.items()} == {
        "steps": [int], "timestamps": [float], "values": [float],
    }  # fmt: skip
    assert series["timestamps"] == [1000.123456]
    assert json.loads(json.dumps(stats)) == stats


def test_numbers_of_every_kind_are_kept(storage: StorageBackend, run: str) -> None:
    import numpy as np

    metrics: dict[str, Any] = {
        "int": 3, "bool": True, "big": 2**60 + 1, "numpy": np.float32(0.5), "zero-d": np.array(2), "text": "warm-up",
        "none": None, "nested": {"eval": {"loss": 0.25}}, "list": [1, [2.5]],
    }  # fmt: skip
    storage.write_checkpoint(run, 1, 1000.0, metrics, {}, {})

    kept = {
        name: storage.get_metric_timeseries(run, name)["values"]
        for name in ("int", "bool", "big", "numpy", "zero-d", "text", "none", "nested/eval/loss", "list")
    }

    assert kept == {
        "int": [3.0], "bool": [1.0], "big": [float(2**60)], "numpy": [0.5], "zero-d": [2.0], "text": ["warm-up"],
        "none": [None], "nested/eval/loss": [0.25], "list": [[1, [2.5]]],
    }  # fmt: skip
    assert json.loads(storage.get_checkpoints(run)[0]["metrics"]) == {**metrics, "numpy": 0.5, "zero-d": 2}


def test_what_no_checkpoint_can_hold_is_refused_with_its_name(storage: StorageBackend, run: str) -> None:
    with pytest.raises(TypeError, match="'model' is object"):
        storage.write_checkpoint(run, 1, 1.0, {"model": object()}, {}, {})

    assert storage.get_checkpoints(run) == []


def test_gradient_statistics_are_kept_by_layer(storage: StorageBackend, run: str) -> None:
    storage.write_checkpoint(run, 1, 1.0, {}, {"fc": LAYER, "out": {"norm": 1.0}}, {})
    storage.write_checkpoint(run, 2, 2.0, {}, {"fc": {**LAYER, "norm": 4.0}}, {})

    stats = storage.get_gradient_stats(run)

    assert stats["fc"] == {
        "steps": [1, 2], "norms": [0.5, 4.0], "means": [0.25] * 2, "stds": [1.0] * 2, "maxs": [2.0] * 2,
        "mins": [-2.0] * 2, "zeros": [3] * 2, "nans": [1] * 2, "infs": [2] * 2,
    }  # fmt: skip
    assert (stats["out"]["steps"], stats["out"]["norms"], stats["out"]["nans"]) == ([1], [1.0], [0])
    assert list(storage.get_gradient_stats(run, "out")) == ["out"]
    assert storage.get_gradient_stats(run, "none") == {}


def test_system_figures_are_metrics_too(storage: StorageBackend, run: str) -> None:
    system = {"timestamp": 1.0, "cpu": {"percent": 12.5}, "memory": {"percent": 50.0}, "gpu": {"gpu_0": {"name": "H"}}}
    storage.write_checkpoint(run, 1, 1.0, {}, {}, system)

    assert storage.get_metric_timeseries(run, "system/cpu/percent")["values"] == [12.5]
    assert storage.store.checkpoints(run)[0].system == system


def test_samples_lie_in_the_run_and_where_the_documents_look(storage: StorageBackend, run: str) -> None:
    storage.write_checkpoint(run, 1, 1.0, {}, {}, {})
    storage.write_checkpoint(run, 2, 2.0, {}, {}, {}, {"indices": [9], "inputs": [[1.0, 2.0]], "targets": [1]})

    without, with_samples = storage.get_checkpoints(run)
    (link,) = storage.samples_dir.glob("*.parquet")

    assert (without["has_samples"], without["sample_path"]) == (0, None)
    assert (with_samples["checkpoint_id"], with_samples["has_samples"]) == ("a_step_2", 1)
    assert os.path.isabs(with_samples["sample_path"])
    assert link.name == "a_step_2.parquet"
    assert os.path.samefile(link, with_samples["sample_path"])
    found = read_samples(link)
    assert (found["checkpoint_id"], found["batch_index"], found["targets"]) == (["a_step_2"], [9], [1])


def test_an_unknown_run_takes_no_checkpoint_and_no_end(storage: StorageBackend) -> None:
    with pytest.raises(RunNotFound, match="no run with the id 'none'"):
        storage.write_checkpoint("none", 1, 1.0, {}, {}, {})
    with pytest.raises(ValueError, match="no run with the id 'none'"):
        storage.finalize_run("none", 1.0, "completed", 1)


@pytest.mark.parametrize("status", ["completed", "failed", "crashed"])
def test_a_run_ends_with_the_status_it_is_given(storage: StorageBackend, run: str, status: str) -> None:
    storage.finalize_run(run, 1100.0, status, 3)

    with other(storage) as second:
        found = second.get_run(run)
    assert found is not None
    assert (found["status"], found["end_time"], found["total_steps"]) == (status, 1100.0, 3)


def test_a_finished_run_takes_a_late_checkpoint(storage: StorageBackend, run: str) -> None:
    storage.finalize_run(run, 1100.0, "completed", 3)

    storage.write_checkpoint(run, 4, 1101.0, {"loss": 1.0}, {}, {})

    found = storage.get_run(run)
    assert found is not None
    assert (found["status"], found["total_checkpoints"]) == ("completed", 1)


def test_runs_are_listed_newest_first_by_project_and_status(storage: StorageBackend) -> None:
    for number in range(5):
        storage.create_run(f"r{number}", f"project {number % 2}", f"run {number}", 1000.0 + number, {})
        if number < 3:
            storage.finalize_run(f"r{number}", 2000.0, "failed" if number == 0 else "completed", 1)

    def ids(**filters: Any) -> list[str]:  # noqa: ANN401 -- the arguments of the documents
        return [found["run_id"] for found in storage.list_runs(**filters)]

    assert ids() == ["r4", "r3", "r2", "r1", "r0"]
    assert ids(limit=2) == ["r4", "r3"]
    assert ids(project_name="project 0") == ["r4", "r2", "r0"]
    assert ids(status="completed") == ["r2", "r1"]
    assert ids(project_name="project 0", status="failed") == ["r0"]
    assert ids(project_name="nobody") == []


def test_more_than_a_hundred_runs_need_limit_none(storage: StorageBackend) -> None:
    for number in range(103):
        storage.create_run(f"r{number}", "test", "same", 1000.0 + number, {})

    assert (len(storage.list_runs()), len(storage.list_runs(limit=None))) == (100, 103)


def test_another_process_sees_a_write_at_once(storage: StorageBackend, run: str) -> None:
    storage.write_checkpoint(run, 1, 1.0, {"loss": 0.5}, {"fc": LAYER}, {})
    code = (
        "import sys\nfrom types import SimpleNamespace\nfrom tracer.storage import StorageBackend\n"
        "storage = StorageBackend(SimpleNamespace(storage_path=sys.argv[1]))\n"
        "print(storage.get_run('a')['status'], storage.get_metric_timeseries('a', 'loss')['values'],"
        " storage.get_gradient_stats('a')['fc']['norms'], len(storage.get_checkpoints('a')))"
    )

    said = subprocess.run(
        [sys.executable, "-c", code, str(storage.base_path)], capture_output=True, text=True, check=True, timeout=60
    )

    assert said.stdout == "running [0.5] [0.5] 1\n"


def test_what_was_written_before_a_kill_is_there_and_the_run_is_crashed(storage: StorageBackend) -> None:
    code = (
        "import os, signal, sys\nfrom types import SimpleNamespace\nfrom tracer.storage import StorageBackend\n"
        "storage = StorageBackend(SimpleNamespace(storage_path=sys.argv[1]))\n"
        "storage.create_run('k', 'test', 'killed', 1000.0, {})\n"
        "for step in range(100):\n"
        "    storage.write_checkpoint('k', step, 1000.0 + step, {'loss': step}, {}, {})\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )

    subprocess.run([sys.executable, "-c", code, str(storage.base_path)], check=False, timeout=60)

    found = storage.get_run("k")
    assert found is not None
    assert (found["status"], found["total_checkpoints"]) == ("crashed", 100)
    assert storage.get_metric_timeseries("k", "loss")["values"] == [float(step) for step in range(100)]


def test_threads_may_write_one_run_together(storage: StorageBackend, run: str) -> None:
    def write(first: int) -> None:
        for step in range(first, 200, 4):
            storage.write_checkpoint(run, step, 1.0, {"loss": float(step)}, {"fc": LAYER}, {})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert storage.get_metric_timeseries(run, "loss")["values"] == [float(step) for step in range(200)]
    assert len(storage.get_checkpoints(run)) == 200


def test_closing_twice_is_fine_and_leaves_the_run_readable(storage: StorageBackend, run: str) -> None:
    storage.write_checkpoint(run, 1, 1.0, {"loss": 0.5}, {}, {})

    storage.close()
    storage.close()

    with other(storage) as second:
        assert second.get_metric_timeseries(run, "loss")["values"] == [0.5]


def test_a_copied_run_folder_is_the_whole_run(storage: StorageBackend, run: str, tmp_path: Path) -> None:
    import shutil

    storage.write_checkpoint(run, 1, 1.0, {"loss": 0.5}, {"fc": LAYER}, {}, {"inputs": [1.0], "targets": [0]})
    storage.finalize_run(run, 1100.0, "completed", 1)
    copy = tmp_path / "copy"
    shutil.copytree(storage.base_path / "runs" / run, copy / "runs" / run)

    with StorageBackend(SimpleNamespace(storage_path=copy)) as second:
        assert second.get_run(run) == storage.get_run(run)
        assert second.get_gradient_stats(run) == storage.get_gradient_stats(run)
        assert Path(second.get_checkpoints(run)[0]["sample_path"]).is_relative_to(copy)
