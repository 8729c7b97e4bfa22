"""What a type checker sees of the facade's names; `make check` runs mypy on this file, nothing executes it."""

from __future__ import annotations

from typing import Any, assert_type

import tracelet
from tracelet import ArtifactType, Experiment, ExperimentConfig, TraceletArtifact
from tracelet.core.artifacts import ArtifactResult
from tracelet.core.orchestrator import DataFlowOrchestrator, MetricData, MetricType, RoutingRule
from tracelet.core.plugins import BackendPlugin, PluginManager, PluginMetadata, PluginType
from tracelet.settings import TraceletSettings


def train() -> None:
    """Use an experiment as a program does."""
    experiment = tracelet.start_logging("name", "project", "mlflow,wandb", config={"track_git": False})
    assert_type(experiment, Experiment)
    experiment.log_metric("loss", 0.5, 0)
    experiment.log_params({"lr": 0.1})
    artifact = experiment.create_artifact("model", ArtifactType.MODEL)
    assert_type(artifact, TraceletArtifact)
    assert_type(experiment.log_artifact(artifact), dict[str, ArtifactResult])
    assert_type(tracelet.get_active_experiment(), Experiment | None)
    tracelet.stop_logging()
    with tracelet.start_logging(
        settings=TraceletSettings(project="p"), config=ExperimentConfig(track_git=False)
    ) as one:
        assert_type(one, Experiment)


def configure() -> dict[str, Any]:
    """Use the settings as a program does."""
    settings = tracelet.configure(TraceletSettings(project="p", backend=["aim"])).model_copy(
        update={"track_env": False}
    )
    assert_type(settings, TraceletSettings)
    return settings.model_dump()


class Mine(BackendPlugin):
    """A plugin as the documents write it."""

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """Say what this is."""
        return PluginMetadata(name="mine", version="1.0.0", type=PluginType.BACKEND)

    def log_metric(self, name: str, value: float, iteration: int) -> None:
        """Take a value."""


def route(plugins: PluginManager) -> bool:
    """Use router and plugins as a program does."""
    router = DataFlowOrchestrator(max_queue_size=10)
    router.register_sink(Mine())
    router.add_routing_rule(RoutingRule("*", "mine", {MetricType.SCALAR}))
    assert_type(router.emit_metric(MetricData("a", 1.0, iteration=0)), bool)
    return plugins.start_plugin("mine") and router.stop()
