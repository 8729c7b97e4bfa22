"""Every Python block of the guide, unchanged: its modules run on our package, its programs train and are recorded."""

# ruff: noqa: ANN401 -- what a document makes, and what the frameworks pass, has no type here
from __future__ import annotations

import csv
import json
import sqlite3
import sys
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import tracer
from tracer import TracerConfig
from tracer.analysis import AnomalyDetector, QueryEngine
from tracer.storage import StorageBackend
from tracer.storage.schema import CREATE_TABLES_SQL, SCHEMA_VERSION

DOCUMENT = "tracer-guide"
Load = Callable[[str, str], Any]


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[StorageBackend]:
    """The default store of a program that runs here."""
    with StorageBackend(TracerConfig(project_name="read", storage_path=str(tmp_path / ".tracer"))) as backend:
        yield backend


@pytest.fixture
def two_runs(storage: StorageBackend) -> StorageBackend:
    """A sound run and one whose gradients explode, vanish and turn into NaN, whose loss spikes, whose GPU is full."""
    for name, spike in (("calm", 1.0), ("wild", 50.0)):
        storage.create_run(f"id-{name}", "test", name, 1000.0, {"lr": spike, "checkpoint_interval": 1})
        for step in range(1, 31):
            loss = 1.0 + 0.001 * (step % 3) if step < 20 else spike
            layer = {"norm": 1.0, "mean": 0.0, "std": 0.1, "max": 0.5, "min": -0.5, "num_nans": 0, "num_infs": 0}
            if name == "wild" and step == 21:
                layer |= {"norm": 5000.0}
            if name == "wild" and step == 22:
                layer |= {"norm": 1e-9}
            if name == "wild" and step == 23:
                layer |= {"num_nans": 3}
            used = 97.0 if name == "wild" and step == 24 else 10.0
            system = {"cpu": {"percent": 5.0}, "memory": {"percent": 50.0}, "gpu": {"gpu_0": {"memory_util": used}}}
            storage.write_checkpoint(f"id-{name}", step, 1000.0 + step, {"loss": loss}, {"fc.weight": layer}, system)
        storage.finalize_run(f"id-{name}", 1100.0, "completed", 30)
    return storage


def kinds(anomalies: list[dict[str, Any]]) -> set[tuple[str, int]]:
    return {(found["anomaly_type"], found["step"]) for found in anomalies}


WILD = {
    ("gradient_explosion", 21),
    ("vanishing_gradient", 22),
    ("nan_or_inf", 23),
    ("memory_spike", 24),
    ("loss_spike", 20),
}


def test_every_block_of_the_document_has_its_test(blocks: Callable[[str], list[str]], covered: set[int]) -> None:
    assert covered == set(range(len(blocks(DOCUMENT))))


@pytest.mark.block(0)
def test_the_setup_of_the_document_names_our_distribution_and_a_command_that_exists(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("setuptools", reason="needs setuptools")
    (tmp_path / "README.md").write_text("A program.", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["setup.py", "--name"])

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what setuptools thinks of classifiers today
        exec(compile(block, "setup.py", "exec"), {"__name__": "__main__"})  # noqa: S102 -- this is what is tested

    assert capsys.readouterr().out.strip() == "ml-tracer"
    from tracer.cli.main import cli  # the entry point that the document declares

    assert CliRunner().invoke(cli, ["--help"]).exit_code == 0


@pytest.mark.block(1)
def test_the_module_functions_of_the_document_drive_our_tracer(
    block: str, module: Load, storage: StorageBackend
) -> None:
    document = module("seed_tracer", block)

    made = document.init("test", run_name="by hand", checkpoint_interval=2)
    for loss in (3.0, 2.0, 1.0):
        document.log({"loss": loss})
        document.step()
    assert (document.get_run_id(), document.get_step()) == (made.run_id, 3)
    document.finish()

    run = storage.get_run(made.run_id)
    assert run is not None
    assert (run["run_name"], run["status"], run["total_steps"]) == ("by hand", "completed", 3)
    assert storage.get_metric_timeseries(made.run_id, "loss")["values"] == [3.0, 2.0, 1.0]
    assert document.get_step() == 0
    with pytest.raises(RuntimeError, match="Tracer not initialized"):
        document.log({"loss": 1.0})
    assert set(document.__all__) <= set(tracer.__all__)


@pytest.mark.block(2)
def test_the_configuration_of_the_document_opens_our_store(block: str, module: Load, tmp_path: Path) -> None:
    document = module("seed_config", block)

    theirs = document.TracerConfig(project_name="test", storage_path="elsewhere")
    ours = TracerConfig(project_name="test", storage_path="elsewhere")

    assert {name: getattr(ours, name) for name in theirs.to_dict() if name != "run_name"} == {
        name: value for name, value in theirs.to_dict().items() if name != "run_name"
    }
    assert set(theirs.to_dict()) <= set(ours.to_dict())
    with StorageBackend(theirs) as backend:
        backend.create_run("a", "test", "a", 1.0, theirs.to_dict())
        assert json.loads(backend.list_runs()[0]["config"]) == theirs.to_dict()
    assert (tmp_path / "elsewhere").is_dir()


@pytest.mark.block(3)
def test_the_state_of_the_document_has_the_fields_of_ours(block: str, module: Load) -> None:
    document = module("seed_state", block)
    from tracer.state import GlobalState, _state

    theirs = document._state
    theirs.run_id = "a"
    theirs.reset()

    assert document.GlobalState() is theirs
    assert isinstance(_state, GlobalState)
    assert {name: getattr(_state, name) for name in vars(theirs) if not name.startswith("_")} == {
        name: value for name, value in vars(theirs).items() if not name.startswith("_")
    }


@pytest.mark.block(4)
def test_the_schema_of_the_document_has_the_tables_and_columns_of_ours_and_of_the_views(
    block: str, module: Load, storage: StorageBackend
) -> None:
    document = module("seed_schema", block)

    def columns(connection: sqlite3.Connection, table: str) -> list[str]:
        return [column[0] for column in connection.execute(f"SELECT * FROM {table}").description]  # noqa: S608

    with sqlite3.connect(":memory:") as theirs, sqlite3.connect(":memory:") as ours:
        theirs.executescript(document.CREATE_TABLES_SQL)
        ours.executescript(CREATE_TABLES_SQL)
        tables = [name for (name,) in theirs.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        tables = [name for name in tables if not name.startswith("sqlite_")]
        wanted = {table: columns(theirs, table) for table in tables}

        assert {table: columns(ours, table) for table in tables} == wanted
        assert {table: columns(storage.conn, table) for table in tables} == wanted
    assert document.SCHEMA_VERSION == SCHEMA_VERSION
    theirs.close()
    ours.close()


@pytest.mark.block(5)
def test_the_backend_of_the_document_works_on_our_schema_and_agrees_with_ours(
    block: str, module: Load, storage: StorageBackend, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    pytest.importorskip("pyarrow", reason="needs pyarrow")
    document = module("seed_backend", block)
    theirs = document.StorageBackend(TracerConfig(project_name="test", storage_path=str(tmp_path / "theirs")))
    layer = {
        "norm": 0.5,
        "mean": 0.0,
        "std": 1.0,
        "max": 2.0,
        "min": -2.0,
        "num_zeros": 1,
        "num_nans": 0,
        "num_infs": 0,
    }
    samples = {
        "num_samples": 2, "indices": [0, 1], "inputs": torch.ones(2, 3), "targets": torch.ones(2, 1),
        "loss_per_sample": [0.5, 0.25],
    }  # fmt: skip

    answers = []
    for backend in (theirs, storage):
        backend.create_run("a", "test", "run a", 1000.0, {"lr": 0.5})
        backend.create_run("b", "other", "run b", 2000.0, {})
        for step in (10, 20):
            backend.write_checkpoint("a", step, 1000.0 + step, {"loss": 1 / step}, {"fc": layer}, {}, samples)
        backend.finalize_run("a", 1100.0, "completed", 20)
        dated = ("created_at", "updated_at", "total_checkpoints")
        runs = [{key: value for key, value in run.items() if key not in dated} for run in backend.list_runs()]
        checkpoints = [{**found, "sample_path": None} for found in backend.get_checkpoints("a")]
        stats = {
            name: {key: lists[key] for key in ("steps", "norms")}
            for name, lists in backend.get_gradient_stats("a").items()
        }
        answers.append((runs, checkpoints, backend.get_metric_timeseries("a", "loss"), stats, backend.get_run("none")))
        assert len(list(backend.samples_dir.glob("*.parquet"))) == 2
    theirs.close()

    assert answers[0] == answers[1]


@pytest.mark.block(6)
def test_the_hooks_of_the_document_measure_what_ours_measure(block: str, module: Load) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    document = module("seed_hooks", block)
    from tracer.core.hooks import HookManager

    config = TracerConfig(project_name="test", gradient_layers=["weight"])
    model = torch.nn.Linear(3, 2)
    theirs, ours = document.HookManager(config), HookManager(config)
    theirs.attach_all(model)
    ours.attach_all(model)
    model(torch.randn(4, 3)).square().sum().backward()

    wanted, found = theirs.get_all_data()["GradientHook"], ours.get_all_data()["GradientHook"]

    assert list(found) == list(wanted) == ["weight"]
    assert found["weight"] == pytest.approx(wanted["weight"], rel=1e-5)
    for manager in (theirs, ours):
        manager.reset_all()
    assert ours.get_all_data() == theirs.get_all_data() == {"GradientHook": {}}
    for manager in (theirs, ours):
        manager.detach_all()
        manager.reset_all()
    model(torch.randn(4, 3)).sum().backward()
    assert ours.get_all_data() == theirs.get_all_data() == {"GradientHook": {}}


@pytest.mark.block(7)
def test_the_system_metrics_of_the_document_have_the_keys_of_ours_and_can_be_stored(
    block: str, module: Load, storage: StorageBackend
) -> None:
    pytest.importorskip("torch", reason="needs torch")
    document = module("seed_system_metrics", block)
    from tracer.core.system_metrics import SystemMetrics

    config = TracerConfig(project_name="test")
    theirs, ours = document.SystemMetrics(config).capture(), SystemMetrics(config).capture()

    assert set(theirs) <= set(ours)
    for key in ("cpu", "memory"):
        assert set(theirs[key]) <= set(ours[key])
    storage.create_run("a", "test", "a", 1000.0, {})
    storage.write_checkpoint("a", 1, 1001.0, {}, {}, theirs)
    (row,) = storage.conn.execute("SELECT cpu_percent, memory_percent, gpu_metrics FROM system_metrics").fetchall()
    assert tuple(row)[:2] == (theirs["cpu"]["percent"], theirs["memory"]["percent"])
    assert json.loads(row["gpu_metrics"]) == theirs.get("gpu", {})


@pytest.mark.block(8)
@pytest.mark.parametrize("async_writes", [True, False])
def test_the_tracer_class_of_the_document_trains_on_our_hooks_and_our_storage(
    block: str, module: Load, storage: StorageBackend, *, async_writes: bool
) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    document = module("seed_core_tracer", block)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    run = document.TrainingTracer(TracerConfig(project_name="test", checkpoint_interval=5, async_writes=async_writes))
    try:
        run.attach_hooks(model)
        for _ in range(12):
            loss = model(torch.ones(8, 4)).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log({"loss": loss.item()})
            run.step()
        run.finish()
    finally:
        if run.write_queue is not None:
            run.write_queue.put(None)  # should the above fail: the document's thread waits for this for ever
        run.storage.close()

    stored = storage.get_run(run.run_id)
    assert stored is not None
    assert (stored["status"], stored["total_steps"], stored["total_checkpoints"]) == ("completed", 12, 3)
    assert [found["step"] for found in storage.get_checkpoints(run.run_id)] == [5, 10, 12]
    assert storage.get_metric_timeseries(run.run_id, "loss")["steps"] == [5, 10, 12]
    assert storage.get_gradient_stats(run.run_id, "weight")["weight"]["steps"] == [5, 10, 12]


@pytest.mark.block(9)
def test_the_commands_of_the_document_list_show_compare_plot_and_delete_our_runs(
    block: str, module: Load, two_runs: StorageBackend, tmp_path: Path
) -> None:
    document = module("seed_cli", block)
    runner = CliRunner()

    def run(*arguments: str, answer: str | None = None) -> str:
        result = runner.invoke(document.cli, ["--storage", ".tracer", *arguments], input=answer, catch_exceptions=False)
        assert result.exit_code == 0
        return result.output

    assert "calm" in run("list")
    assert "wild" in run("list", "--status", "completed", "--project", "test")
    assert "No runs found" in run("list", "--project", "nobody")
    shown = run("show", "calm", "-m", "loss")
    assert "Steps: 30" in shown
    assert "Checkpoints: 30" in shown
    assert "Initial: 1.001" in shown
    compared = run("compare", "calm", "wild", "-m", "loss")
    assert "Configuration Differences" in compared
    assert "Step: 20" in compared
    assert "No anomalies detected" in run("anomalies", "calm")
    run("plot", "calm", "loss", "-e", "loss.csv")
    run("plot", "calm", "loss", "-e", "loss.json")
    with open("loss.csv", encoding="utf-8", newline="") as file:
        assert next(csv.reader(file)) == ["step", "timestamp", "value"]
    series = two_runs.get_metric_timeseries("id-calm", "loss")
    assert json.loads(Path("loss.json").read_text(encoding="utf-8")) == series
    assert "Deleted" in run("delete", "wild", answer="y\n")
    assert "wild" not in run("list")
    assert "Database Size" in run("info")
    assert [found["run_name"] for found in two_runs.list_runs()] == ["calm"]
    assert not (tmp_path / ".tracer" / "runs" / "id-wild").exists()


@pytest.mark.block(10)
def test_the_query_engine_of_the_document_answers_as_ours_does(
    block: str, module: Load, two_runs: StorageBackend
) -> None:
    document = module("seed_query", block)
    detector = AnomalyDetector(two_runs)
    detector.store_anomalies(detector.detect_gradient_anomalies("id-wild"))
    theirs, ours = document.QueryEngine(".tracer"), QueryEngine(".tracer")

    for name in ("id-calm", "id-wild"):
        wanted, found = theirs.get_run_summary(name), ours.get_run_summary(name)
        assert {key: found[key] for key in wanted} == wanted
    wanted = theirs.compare_runs("id-calm", "id-wild", ["loss"])
    assert wanted["metrics_comparison"]["loss"]["run1"]["steps"] == list(range(1, 31))
    assert wanted["divergence_analysis"]["step"] == 20
    assert wanted["config_diff"] == {"lr": {"run1": 1.0, "run2": 50.0}}
    rows = theirs.find_anomalous_checkpoints("id-wild", ["gradient_explosion"])
    assert [(row["checkpoint_id"], row["severity"]) for row in rows] == [("id-wild_step_21", "critical")]
    assert set(rows[0]) <= set(ours.find_anomalous_checkpoints("id-wild")[0])
    with pytest.raises(ValueError, match="not found"):
        theirs.get_run_summary("nobody")
    theirs.storage.close()
    ours.storage.close()


@pytest.mark.block(11)
def test_the_detector_of_the_document_finds_and_stores_through_our_connection(
    block: str, module: Load, two_runs: StorageBackend
) -> None:
    document = module("seed_anomaly_detection", block)
    detector = document.AnomalyDetector(two_runs)

    found = detector.detect_all_anomalies("id-wild")
    detector.store_anomalies(found)
    detector.store_anomalies(found)

    assert kinds(found) >= WILD
    assert detector.detect_gradient_anomalies("id-calm") == []
    stored = QueryEngine(".tracer").find_anomalous_checkpoints("id-wild")
    assert kinds(stored) == kinds(found)
    assert len(stored) == len(found)
    ours = AnomalyDetector(two_runs)
    assert kinds(ours.detect_all_anomalies("id-wild")) >= WILD - {("loss_spike", 20)}


@pytest.mark.block(12)
def test_the_basic_example_of_the_document_trains_and_keeps_every_value(
    block: str, storage: StorageBackend, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch", reason="needs torch")

    exec(compile(block, "basic_pytorch.py", "exec"), {"__name__": "__main__"})  # noqa: S102 -- this is what is tested

    (run,) = storage.list_runs(project_name="basic-example")
    assert (run["run_name"], run["status"], run["total_steps"]) == ("simple-training", "completed", 320)
    assert len(storage.get_metric_timeseries(run["run_id"], "loss")["values"]) == 320
    assert storage.get_metric_timeseries(run["run_id"], "epoch")["values"][-1] == 9.0
    assert {99, 199, 299} <= set(storage.get_gradient_stats(run["run_id"])["layers.0.weight"]["steps"])
    assert "Epoch 10/10" in capsys.readouterr().out


@pytest.mark.block(13)
def test_the_hugging_face_example_of_the_document_trains_on_what_lies_on_this_disk(
    block: str, storage: StorageBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what reaches the network is replaced, and one keyword that transformers has since dropped.

    The model and the tokenizer are real files of a tiny DistilBERT in a folder of the name that the example loads. The
    package `datasets` is stood in for by the few lines below. `evaluation_strategy` was the name of `eval_strategy`
    when the document was written; it is passed on under its present name.
    """
    torch = pytest.importorskip("torch", reason="needs torch")
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    _write_tiny_distilbert(tmp_path / "distilbert-base-uncased", transformers)
    monkeypatch.setitem(sys.modules, "datasets", _datasets())
    arguments_class = transformers.TrainingArguments

    def arguments(**given: Any) -> Any:
        given["eval_strategy"] = given.pop("evaluation_strategy")
        return arguments_class(use_cpu=True, report_to=[], disable_tqdm=True, **given)

    # Not the name above: transformers puts another module in its own place while it is imported.
    monkeypatch.setattr(sys.modules["transformers"], "TrainingArguments", arguments)
    torch.manual_seed(0)

    exec(compile(block, "huggingface_example.py", "exec"), {"__name__": "__main__"})  # noqa: S102 -- what is tested

    (run,) = storage.list_runs(project_name="huggingface-example")
    losses = storage.get_metric_timeseries(run["run_id"], "loss")
    assert run["status"] == "completed"
    assert len(losses["values"]) == 3
    assert storage.get_metric_timeseries(run["run_id"], "train_loss")["values"]


@pytest.mark.block(14)
def test_the_quick_start_of_the_document_records_its_loop(block: str, storage: StorageBackend) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")

    def train_step(model: Any, batch: Any) -> Any:
        loss = model(batch).square().mean()
        loss.backward()
        return loss

    exec(  # noqa: S102 -- this is what is tested
        compile(block, "quick_start.py", "exec"),
        {"__name__": "__main__", "dataloader": [torch.ones(4, 10)] * 5, "train_step": train_step},
    )

    (run,) = storage.list_runs(project_name="my-project")
    assert (run["status"], run["total_steps"]) == ("completed", 50)
    assert len(storage.get_metric_timeseries(run["run_id"], "loss")["values"]) == 50


def _write_tiny_distilbert(folder: Path, transformers: Any) -> None:
    """Write a model and a tokenizer that `from_pretrained` loads from a folder."""
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "good", "bad", "film", "it", "was"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    transformers.DistilBertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.DistilBertConfig(
        vocab_size=len(words), dim=8, hidden_dim=16, n_layers=1, n_heads=2, max_position_embeddings=128
    )
    transformers.DistilBertForSequenceClassification(config).save_pretrained(folder)


def _datasets() -> types.ModuleType:
    """Return what the example uses of the package `datasets`, over a few texts in memory."""

    class Rows:
        def __init__(self, rows: list[dict[str, Any]]) -> None:
            self.rows = rows

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: int) -> dict[str, Any]:
            return self.rows[index]

        def train_test_split(self, test_size: float) -> Split:
            cut = round(len(self) * (1 - test_size))
            return Split(train=Rows(self.rows[:cut]), test=Rows(self.rows[cut:]))

    class Split(dict[str, Rows]):
        def map(self, function: Callable[[dict[str, list[Any]]], Any], *, batched: bool) -> Split:
            assert batched
            return Split({name: Rows(mapped(part.rows, function)) for name, part in self.items()})

    def mapped(rows: list[dict[str, Any]], function: Callable[[dict[str, list[Any]]], Any]) -> list[dict[str, Any]]:
        added = function({name: [row[name] for row in rows] for name in rows[0]})
        return [{**row, **{name: added[name][index] for name in added}} for index, row in enumerate(rows)]

    def load_dataset(name: str, split: str) -> Rows:
        assert (name, split) == ("imdb", "train[:1000]")
        return Rows([{"text": f"it was a {('bad', 'good')[row % 2]} film", "label": row % 2} for row in range(200)])

    made = types.ModuleType("datasets")
    made.load_dataset = load_dataset  # type: ignore[attr-defined]  # a module made here
    return made
