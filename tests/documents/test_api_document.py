"""Every Python block of the API document, unchanged: signatures against ours, programs run and their effect read."""

# ruff: noqa: ANN401 -- what a document makes, and what the frameworks pass, has no type here
from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tracer
from tracer import TracerConfig
from tracer.analysis import AnomalyDetector, QueryEngine
from tracer.storage import StorageBackend

DOCUMENT = "tracer-api"
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def storage() -> Iterator[StorageBackend]:
    """The default store of a program that runs here."""
    with StorageBackend(TracerConfig(project_name="read")) as backend:
        yield backend


@pytest.fixture
def stored_runs(storage: StorageBackend) -> StorageBackend:
    """The runs that the document's questions are about, really recorded."""
    for run_id, slope in (("abc-123", 1.0), ("run1", 1.0), ("run2", 0.5)):
        storage.create_run(run_id, "test", f"name of {run_id}", 1000.0, {"lr": slope})
        for step in range(1, 21):
            gradients = {"fc.weight": {"norm": 5000.0 if step == 20 else 1.0, "num_nans": int(step == 10)}}
            metrics = {"loss": slope / step, "accuracy": step / 20}
            storage.write_checkpoint(run_id, step, 1000.0 + step, metrics, gradients, {})
        storage.finalize_run(run_id, 1100.0, "completed", 20)
    return storage


def names(storage: StorageBackend) -> list[str]:
    return [run["run_name"] for run in storage.list_runs(limit=None)]


def test_every_block_of_the_document_has_its_test(blocks: Callable[[str], list[str]], covered: set[int]) -> None:
    assert covered == set(range(len(blocks(DOCUMENT))))


@pytest.mark.block(0)
def test_init_has_the_signature_of_the_document(block: str, same_signature: Callable[..., None]) -> None:
    same_signature(block, tracer.init)


@pytest.mark.block(1)
def test_init_makes_the_run_of_the_example(run_block: Run, storage: StorageBackend) -> None:
    run_block(tracer=tracer)
    tracer.finish()

    (run,) = storage.list_runs(project_name="gpt-finetuning")
    assert (run["run_name"], run["status"]) == ("experiment-001", "completed")


@pytest.mark.block(2)
def test_log_has_the_signature_of_the_document(block: str, same_signature: Callable[..., None]) -> None:
    same_signature(block, tracer.log)


@pytest.mark.block(3)
def test_log_keeps_the_values_of_the_example(run_block: Run, storage: StorageBackend) -> None:
    tracer.init(project="test")
    run_id = tracer.get_run_id()

    run_block(tracer=tracer)
    tracer.finish()

    kept = {
        name: storage.get_metric_timeseries(run_id, name)["values"] for name in ("loss", "accuracy", "learning_rate")
    }
    assert kept == {"loss": [2.34], "accuracy": [0.89], "learning_rate": [1e-4]}


@pytest.mark.block(4)
def test_step_has_the_signature_of_the_document(block: str, same_signature: Callable[..., None]) -> None:
    same_signature(block, tracer.step)


@pytest.mark.block(5)
def test_the_loop_of_the_step_example_records_every_batch(run_block: Run, storage: StorageBackend) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    run_id = tracer.init(project="test", checkpoint_interval=4).run_id

    run_block(tracer=tracer, dataloader=range(10), train_step=lambda batch: torch.tensor(float(batch)))
    assert tracer.get_step() == 10
    tracer.finish()

    assert storage.get_metric_timeseries(run_id, "loss")["values"] == [float(batch) for batch in range(10)]
    assert {4, 8} <= {found["step"] for found in storage.get_checkpoints(run_id)}


@pytest.mark.block(6)
def test_watch_has_the_signature_of_the_document(block: str, same_signature: Callable[..., None]) -> None:
    same_signature(block, tracer.watch)


@pytest.mark.block(7)
def test_the_watched_model_of_the_example_has_gradient_statistics(run_block: Run, storage: StorageBackend) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    run_id = tracer.init(project="test", checkpoint_interval=1).run_id

    model = run_block(tracer=tracer, MyModel=lambda: torch.nn.Linear(2, 1))["model"]
    model(torch.ones(3, 2)).sum().backward()
    tracer.log({"loss": 1.0})
    tracer.step()
    tracer.finish()

    stats = storage.get_gradient_stats(run_id)
    assert stats["weight"]["norms"] == pytest.approx([18**0.5])
    assert stats["bias"]["norms"] == pytest.approx([3.0])


@pytest.mark.block(8)
def test_finish_has_the_signature_of_the_document(block: str, same_signature: Callable[..., None]) -> None:
    same_signature(block, tracer.finish)


@pytest.mark.block(9)
def test_finish_closes_the_run_although_training_raised(run_block: Run, storage: StorageBackend) -> None:
    run_id = tracer.init(project="test").run_id

    def train() -> None:
        tracer.log({"loss": 1.0})
        message = "out of memory"
        raise MemoryError(message)

    with pytest.raises(MemoryError):
        run_block(tracer=tracer, train=train)

    run = storage.get_run(run_id)
    assert run is not None
    assert run["status"] != "running"
    assert storage.get_metric_timeseries(run_id, "loss")["values"] == [1.0]


@pytest.mark.block(10)
def test_the_configuration_has_the_fields_and_defaults_of_the_document(block: str) -> None:
    written = dict(re.findall(r"^    (\w+): [^=\n]+? = (.+?),$", block, re.MULTILINE))
    defaults = {name: eval(text) for name, text in written.items()}  # noqa: S307 -- literals of the document

    config = TracerConfig(project_name="test")

    assert len(defaults) >= 12
    assert config.storage_path == str(Path(defaults.pop("storage_path")).resolve())
    assert defaults.pop("run_name") is None
    assert config.run_name
    assert {name: getattr(config, name) for name in defaults} == defaults


@pytest.mark.block(11)
def test_a_query_engine_opens_the_default_store(run_block: Run, stored_runs: StorageBackend) -> None:
    query = run_block()["query"]

    assert {run["run_id"] for run in query.storage.list_runs()} == {run["run_id"] for run in stored_runs.list_runs()}


@pytest.mark.block(12)
@pytest.mark.usefixtures("stored_runs")
def test_the_summary_example_prints_steps_and_final_metrics(run_block: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run_block(query=QueryEngine())

    steps, metrics = capsys.readouterr().out.splitlines()
    assert (int(steps), ast.literal_eval(metrics)) == (20, {"loss": 0.05, "accuracy": 1.0})


@pytest.mark.block(13)
@pytest.mark.usefixtures("stored_runs")
def test_the_comparison_example_holds_both_runs(run_block: Run) -> None:
    comparison = run_block(query=QueryEngine())["comparison"]

    assert comparison["config_diff"] == {"lr": {"run1": 1.0, "run2": 0.5}}
    assert set(comparison["metrics_comparison"]) == {"loss", "accuracy"}
    assert comparison["metrics_comparison"]["loss"]["final_value_run2"] == 0.025


@pytest.mark.block(14)
def test_the_anomalies_example_returns_the_stored_kinds(run_block: Run, stored_runs: StorageBackend) -> None:
    detector = AnomalyDetector(stored_runs)
    detector.store_anomalies(detector.detect_all_anomalies("run1"))

    anomalies = run_block(query=QueryEngine())["anomalies"]

    assert {(found["anomaly_type"], found["step"]) for found in anomalies} == {
        ("gradient_explosion", 20),
        ("nan_or_inf", 10),
    }


@pytest.mark.block(15)
def test_a_detector_is_made_from_a_backend(run_block: Run, stored_runs: StorageBackend) -> None:
    detector = run_block(storage_backend=stored_runs)["detector"]

    assert detector.detect_nan_inf("run2")[0]["step"] == 10


@pytest.mark.block(16)
def test_the_detection_example_stores_what_it_found(run_block: Run, stored_runs: StorageBackend) -> None:
    anomalies = run_block(detector=AnomalyDetector(stored_runs))["anomalies"]

    assert anomalies
    assert len(QueryEngine().find_anomalous_checkpoints("run1")) == len(anomalies)


@pytest.mark.block(17)
def test_the_transformers_example_trains_and_is_recorded(
    run_block: Run, storage: StorageBackend, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    config = transformers.DistilBertConfig(vocab_size=20, dim=8, hidden_dim=8, n_layers=1, n_heads=2)
    model = transformers.DistilBertForSequenceClassification(config)
    rows = [{"input_ids": torch.tensor([1, 2, 3]), "labels": torch.tensor(number % 2)} for number in range(8)]
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"), max_steps=4, logging_steps=1, per_device_train_batch_size=2,
        report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True,
    )  # fmt: skip

    class Trainer(transformers.Trainer):  # type: ignore[misc]
        """The block passes no data: this is where the program has it from."""

        def __init__(self, **arguments: Any) -> None:
            super().__init__(train_dataset=rows, **arguments)

    with pytest.MonkeyPatch.context() as patch:
        # Not the name above: transformers puts another module in its own place while it is imported.
        patch.setattr(sys.modules["transformers"], "Trainer", Trainer)
        run_block(model=model, training_args=arguments)

    (run,) = storage.list_runs(project_name="my-project")
    assert run["status"] == "completed"
    assert len(storage.get_metric_timeseries(run["run_id"], "loss")["values"]) == 4


@pytest.mark.block(18)
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of Lightning about torch
def test_the_lightning_example_trains_and_is_recorded(run_block: Run, storage: StorageBackend) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    lightning = pytest.importorskip("pytorch_lightning", reason="needs pytorch_lightning")

    class Model(lightning.LightningModule):  # type: ignore[misc, name-defined]
        """A line through noise."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(4, 1)

        def training_step(self, batch: Any, _: int) -> Any:
            loss = self.layer(batch).square().mean()
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

        def train_dataloader(self) -> Any:
            return torch.utils.data.DataLoader(torch.randn(32, 4), batch_size=8)

    trainer_class = lightning.Trainer
    quiet = {
        "max_epochs": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1,
    }  # fmt: skip

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lightning, "Trainer", lambda **arguments: trainer_class(**quiet, **arguments))
        run_block(model=Model())

    (run,) = storage.list_runs(project_name="my-project")
    assert run["status"] == "completed"
    assert len(storage.get_metric_timeseries(run["run_id"], "loss")["values"]) == 4


@pytest.mark.block(19)
def test_the_storage_example_writes_a_run_and_finds_it(run_block: Run) -> None:
    left = run_block()

    assert [run["run_name"] for run in left["runs"]] == ["run1"]
    assert [(found["step"], found["timestamp"]) for found in left["checkpoints"]] == [(100, 1100.0)]
    left["storage"].close()


@pytest.mark.block(20)
def test_logging_before_init_raises_what_the_document_says(run_block: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run_block(tracer=tracer)

    assert capsys.readouterr().out == "Tracer not initialized!\n"


@pytest.mark.block(21)
def test_the_types_of_the_document_can_be_imported(block: str, run_block: Run) -> None:
    run_block()
    namespace: dict[str, Any] = {}
    for line in block.splitlines():
        if line.startswith("    from "):
            exec(line.strip(), namespace)  # noqa: S102 -- what only a type checker would run

    assert (namespace["TracerConfig"], namespace["TrainingTracer"]) == (tracer.TracerConfig, tracer.TrainingTracer)
