"""What is learned by looking: hyper-parameters, models, data sets, files; and which packages are here."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest

import tracelet
from tracelet.automagic import (
    AutomagicConfig,
    AutomagicInstrumentor,
    DatasetDetector,
    FileSystemArtifactDetector,
    FrameworkHookRegistry,
    HyperparameterDetector,
    ModelDetector,
    TrainingMonitor,
)
from tracelet.utils import imports


def test_the_values_of_the_calling_function_become_parameters(calm: dict[str, Any], recorded: Any) -> None:  # noqa: ANN401
    def train(learning_rate: float = 0.1, layers: tuple[int, ...] = (8, 4)) -> None:
        batch_size = 32
        _private, data = 1, object()
        experiment.capture_hyperparams()
        del batch_size, _private, data, layers, learning_rate

    with tracelet.start_logging("x", config=calm) as experiment:
        train()

    assert recorded().facts["config"] == {"learning_rate": 0.1, "layers": [8, 4], "batch_size": 32}


def test_automagic_records_them_when_the_experiment_starts(calm: dict[str, Any], recorded: Any) -> None:  # noqa: ANN401
    def train(lr: float) -> None:
        with tracelet.start_logging("x", config={**calm, "enable_automagic": True}):
            assert lr

    train(0.5)

    assert recorded().facts["config"]["lr"] == 0.5


def test_attributes_of_self_are_found_unless_told_otherwise() -> None:
    class Trainer:
        """Something with settings of its own."""

        def __init__(self) -> None:
            self.momentum, self.model = 0.9, object()

        def fit(self, detector: HyperparameterDetector) -> dict[str, object]:
            """Look at this call."""
            epochs = 3
            found = detector.extract_from_frame(sys._getframe())
            return {**found, "epochs": epochs}

    assert Trainer().fit(HyperparameterDetector()) == {"epochs": 3, "momentum": 0.9}
    assert Trainer().fit(HyperparameterDetector(detect_class_attributes=False)) == {"epochs": 3}


def test_arguments_and_files_are_read() -> None:
    detector = HyperparameterDetector()
    Path("config.yaml").write_text("model:\n  depth: 4\nlr: 0.1\n")

    assert detector.extract_from_argparse(argparse.Namespace(lr=0.1, model=object())) == {"lr": 0.1}
    assert detector.extract_from_config_file("config.yaml") == {"model/depth": 4, "lr": 0.1}
    with pytest.raises(ValueError, match="cannot be read"):
        detector.extract_from_config_file("nowhere.yaml")


@pytest.mark.torch
def test_a_model_and_a_loader_are_described(calm: dict[str, Any], recorded: Any) -> None:  # noqa: ANN401
    torch = pytest.importorskip("torch", reason="needs torch")
    model = torch.nn.Sequential(torch.nn.Linear(4, 2), torch.nn.ReLU())
    model[0].bias.requires_grad_(requires_grad=False)
    rows = torch.utils.data.TensorDataset(torch.zeros(10, 4))
    loader = torch.utils.data.DataLoader(rows, batch_size=5)

    with tracelet.start_logging("x", config=calm) as experiment:
        experiment.capture_model(model)
        experiment.capture_dataset(loader)

    config = recorded().facts["config"]
    assert (config["model/parameters"], config["model/trainable_parameters"]) == (10, 8)
    assert config["model/layers"] == {"Linear": 1, "ReLU": 1}
    assert (config["dataset/length"], config["dataset/batch_size"]) == (2, 5)
    assert config["dataset/dataset"] == {"class": "TensorDataset", "length": 10}


def test_what_is_unknown_is_described_by_its_class() -> None:
    class Odd:
        """Says nothing of itself, and raises when asked."""

        def get_params(self, deep: bool) -> None:  # noqa: FBT001
            """Refuse."""
            raise RuntimeError(deep)

    assert ModelDetector().analyze_model(Odd())["class"] == "Odd"
    assert DatasetDetector().analyze_dataset(iter([1])) == {"class": "list_iterator"}


def test_the_instrumentor_attaches_listens_and_cleans_up(calm: dict[str, Any]) -> None:
    from tracer.capture.patching import patches

    with tracelet.start_logging("x", config=calm) as experiment:
        instrumentor = tracelet.automagic(experiment, AutomagicConfig(frameworks={"keras"}))
        assert instrumentor is AutomagicInstrumentor.get_instance()
        assert (patches.is_on("keras"), list(instrumentor.experiments)) == (True, [experiment.id])
        assert instrumentor.capture_dataset_info([1, 2], experiment) == {"class": "list", "length": 2}
        instrumentor.detach_experiment(experiment)
        instrumentor.cleanup()

    assert not patches.is_on("keras")
    assert AutomagicInstrumentor.get_instance() is not instrumentor


def test_hooks_are_kept_by_name() -> None:
    registry = FrameworkHookRegistry()

    assert set(registry.hooks) == {"pytorch", "lightning", "sklearn", "keras", "xgboost"}
    assert registry.get_hook("nothing") is None
    assert registry.install_hooks(["nothing"]) == []


def test_files_that_appear_are_kept(calm: dict[str, Any]) -> None:
    Path("out").mkdir()
    Path("out/old.txt").write_text("old")
    with tracelet.start_logging("x", config=calm) as experiment:
        detector = FileSystemArtifactDetector(experiment, ["out"])
        Path("out/model.pt").write_bytes(b"weights")
        assert detector.scan() == ["out/model.pt"]
        assert detector.scan() == []

    assert [(one.name, one.type.value) for one in experiment.list_artifacts()] == [("model.pt", "model")]


def test_a_monitor_counts_steps_and_epochs(clock: Any) -> None:  # noqa: ANN401
    monitor = TrainingMonitor(epoch_threshold_s=30.0)
    for seconds in (0, 1, 40, 1):
        clock.advance(seconds)
        monitor.step()

    assert monitor.get_status() == {"steps": 4, "epochs": 2}


def test_a_collector_records_into_the_active_experiment(calm: dict[str, Any], recorded: Any) -> None:  # noqa: ANN401
    collector = tracelet.SystemMetricsCollector(collect_interval=60)
    with tracelet.start_logging("x", config=calm) as experiment:
        collector.start()
        collector.stop()
        while "system/cpu_percent" not in experiment.metric_buffer:
            pass

    assert len(recorded().series("system/cpu_percent")) == 1


def test_packages_are_found_without_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    assert imports.is_available("json")
    assert not imports.is_available("nowhere_at_all")
    assert not imports.is_available("nowhere_at_all.deeper")
    assert imports.require("json").dumps(1) == "1"
    assert imports.lazy_import("json").loads("2") == 2
    assert imports.try_import("nowhere_at_all", 5) == 5
    with pytest.raises(
        ImportError, match=r"Plots needs the nowhere_at_all package, which is not installed. pip install"
    ):
        imports.require("nowhere_at_all", "Plots")
    monkeypatch.setenv("TRACELET_STRICT_IMPORTS", "1")
    with pytest.raises(ImportError):
        imports.try_import("nowhere_at_all")
    assert imports.ImportManager().is_available("json")
    imports.reload_detection()
    assert {"mlflow", "wandb", "clearml", "aim"} <= set(imports.get_available_backends())
