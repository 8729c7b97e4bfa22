"""Every name, signature, default, variable and key that the Tracelet documents promise, as tables written from them."""

# ruff: noqa: ANN401 -- what the names mean has no type in common
from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

import tracelet
from tracelet.automagic import AutomagicConfig
from tracelet.core.artifacts import ArtifactType
from tracelet.core.orchestrator import MetricType
from tracelet.core.plugins import PluginState, PluginType
from tracelet.settings import TraceletSettings

NAMES = {
    "tracelet": (
        "start_logging get_active_experiment stop_logging Experiment ExperimentConfig TraceletArtifact ArtifactType "
        "get_backend available_backends available_frameworks automagic capture_hyperparams SystemMetricsCollector "
        "GitCollector PyTorchFramework LightningFramework get_available_backends get_available_frameworks "
        "is_available __version__ configure ConfigurationError"
    ),
    "tracelet.interface": "start_logging get_active_experiment stop_logging",
    "tracelet.settings": "TraceletSettings ConfigurationError",
    "tracelet.core.orchestrator": ("MetricType MetricData MetricSource MetricSink RoutingRule DataFlowOrchestrator"),
    "tracelet.core.plugins": (
        "PluginType PluginState PluginMetadata PluginInfo PluginBase BackendPlugin CollectorPlugin FrameworkPlugin "
        "PluginManager"
    ),
    "tracelet.core.interfaces": "FrameworkInterface BackendInterface CollectorInterface",
    "tracelet.core.experiment": "Experiment ExperimentConfig",
    "tracelet.core.artifacts": (
        "ArtifactType ArtifactFile ArtifactReference ArtifactObject ModelInfo ArtifactResult TraceletArtifact "
        "ArtifactHandler LARGE_FILE_THRESHOLD"
    ),
    "tracelet.core.artifact_manager": "ArtifactManager",
    "tracelet.backends": (
        "MLflowBackend WandbBackend ClearMLBackend AimBackend MLflowArtifactHandler WANDBArtifactHandler "
        "ClearMLArtifactHandler AiMArtifactHandler"
    ),
    "tracelet.automagic": (
        "AutomagicConfig AutomagicInstrumentor HyperparameterDetector ModelDetector DatasetDetector "
        "FrameworkHookRegistry TrainingMonitor ResourceMonitor PyTorchHook SklearnHook XGBoostHook LightningHook "
        "LightningArtifactHook PyTorchArtifactHook FileSystemArtifactDetector"
    ),
    "tracelet.collectors": "SystemMetricsCollector GitCollector",
    "tracelet.frameworks": "PyTorchFramework LightningFramework",
    "tracelet.utils.imports": (
        "ImportManager LazyImport is_available require try_import lazy_import get_available_frameworks "
        "get_available_backends reload_detection"
    ),
}

SIGNATURES = {
    "tracelet:start_logging": (
        "exp_name=None, project=None, backend=None, api_key=None, backend_url=None, config=None, settings=None"
    ),
    "tracelet:stop_logging": "",
    "tracelet:get_active_experiment": "",
    "tracelet:automagic": "experiment, config=None",
    "tracelet:capture_hyperparams": "experiment",
    "tracelet:get_backend": "name",
    "tracelet:Experiment": (
        "name=None, config=None, backend=None, tags=None, automagic=False, automagic_config=None, artifacts=False, "
        "automagic_artifacts=False"
    ),
    "tracelet:ExperimentConfig": (
        "track_metrics=True, track_environment=True, track_args=True, track_stdout=True, track_checkpoints=True, "
        "track_system_metrics=True, track_git=True, enable_automagic=False, automagic_frameworks=None, "
        "enable_artifacts=False, automagic_artifacts=False, artifact_watch_dirs=None, watch_filesystem=False"
    ),
    "tracelet.core.orchestrator:MetricData": (
        "name, value, type=*, iteration=None, timestamp=None, source=None, metadata=None"
    ),
    "tracelet.core.orchestrator:RoutingRule": "source_pattern, sink_id, metric_types=None, filter_func=None",
    "tracelet.core.orchestrator:RoutingRule.matches": "metric",
    "tracelet.core.orchestrator:DataFlowOrchestrator": "max_queue_size=10000, num_workers=4",
    "tracelet.core.orchestrator:DataFlowOrchestrator.register_source": "*",
    "tracelet.core.orchestrator:DataFlowOrchestrator.register_sink": "*",
    "tracelet.core.orchestrator:DataFlowOrchestrator.add_routing_rule": "rule",
    "tracelet.core.orchestrator:DataFlowOrchestrator.emit_metric": "metric",
    "tracelet.core.orchestrator:DataFlowOrchestrator.start": "",
    "tracelet.core.orchestrator:DataFlowOrchestrator.stop": "timeout=10.0",
    "tracelet.core.orchestrator:DataFlowOrchestrator.batch_emit": "source_id",
    "tracelet.core.orchestrator:DataFlowOrchestrator.get_stats": "",
    "tracelet.core.plugins:PluginMetadata": (
        "name, version, type, description='', author='', dependencies=*, config_schema=None, capabilities=*"
    ),
    "tracelet.core.plugins:PluginInfo": "metadata, module_path, class_name, state=*, instance=None, error=None",
    "tracelet.core.plugins:PluginManager": "plugin_paths=None, use_default_paths=True",
    "tracelet.core.plugins:PluginManager.discover_plugins": "",
    "tracelet.core.plugins:PluginManager.load_plugin": "plugin_name",
    "tracelet.core.plugins:PluginManager.validate_plugin": "plugin_name",
    "tracelet.core.plugins:PluginManager.initialize_plugin": "plugin_name, config=None",
    "tracelet.core.plugins:PluginManager.start_plugin": "plugin_name",
    "tracelet.core.plugins:PluginManager.stop_plugin": "plugin_name",
    "tracelet.core.plugins:PluginManager.get_plugin_instance": "plugin_name",
    "tracelet.core.plugins:PluginManager.get_plugins_by_type": "plugin_type",
    "tracelet.core.plugins:PluginManager.resolve_dependencies": "plugin_names",
    "tracelet.core.plugins:PluginManager.load_config": "config_path",
    "tracelet.core.plugins:PluginManager.get_status": "",
    "tracelet.core.artifacts:TraceletArtifact": "name, artifact_type, description=None, metadata=None",
    "tracelet.core.artifacts:TraceletArtifact.add_object": "obj, name, serializer='pickle'",
    "tracelet.core.artifacts:TraceletArtifact.add_model": (
        "model, framework=None, input_example=None, signature=None, description=None"
    ),
    "tracelet.core.artifacts:ArtifactResult": "version, uri, size_bytes, backend, metadata=*",
    "tracelet.core.artifact_manager:ArtifactManager": "backend_instances=*",
    "tracelet.collectors:SystemMetricsCollector": "collect_interval=10.0",
    "tracelet.collectors:GitCollector": "repo_path=None",
    "tracelet.automagic:FileSystemArtifactDetector": "artifact_manager, watch_dirs",
    "tracelet.utils.imports:require": "framework, feature=None",
}

METHODS = {
    "tracelet:Experiment": (
        "start stop end finish log_metric log_params log_param log_hyperparameter log_hyperparameters set_iteration "
        "create_artifact log_artifact log_file_artifact upload_artifact get_artifact list_artifacts "
        "capture_hyperparams capture_model capture_dataset get_source_id emit_metric add_tag set_tags add_backend "
        "get_active_backends"
    ),
    "tracelet.core.orchestrator:MetricSource": "get_source_id emit_metric",
    "tracelet.core.orchestrator:MetricSink": "get_sink_id receive_metric can_handle_type",
    "tracelet.core.plugins:PluginBase": "get_metadata initialize start stop get_status",
    "tracelet.core.plugins:BackendPlugin": (
        "get_metadata initialize start stop get_status receive_metric log_metric log_params log_artifact "
        "save_experiment"
    ),
    "tracelet.core.interfaces:FrameworkInterface": "initialize start_tracking stop_tracking log_metric",
    "tracelet.core.interfaces:BackendInterface": "initialize log_metric log_params log_artifact save_experiment",
    "tracelet.core.interfaces:CollectorInterface": "initialize collect start stop",
    "tracelet.core.artifacts:TraceletArtifact": (
        "add_file add_reference add_object add_model serialize_object to_dict"
    ),
    "tracelet.core.artifacts:ArtifactHandler": (
        "log_artifact get_artifact list_artifacts should_handle_type get_large_file_score"
    ),
    "tracelet.core.artifact_manager:ArtifactManager": "log_artifact get_artifact list_artifacts get_stats clear_cache",
    **{
        f"tracelet.backends:{name}": (
            "get_metadata initialize start stop get_status receive_metric log_metric log_params log_artifact "
            "save_experiment"
        )
        for name in ("MLflowBackend", "WandbBackend", "ClearMLBackend", "AimBackend")
    },
    "tracelet.automagic:AutomagicInstrumentor": (
        "get_instance attach_experiment detach_experiment capture_hyperparameters capture_model_info "
        "capture_dataset_info cleanup"
    ),
    "tracelet.automagic:HyperparameterDetector": "extract_from_frame extract_from_argparse extract_from_config_file",
    "tracelet.automagic:ModelDetector": "analyze_model",
    "tracelet.automagic:DatasetDetector": "analyze_dataset",
    "tracelet:SystemMetricsCollector": "initialize collect start stop",
    "tracelet:PyTorchFramework": "initialize start_tracking stop_tracking log_metric",
    "tracelet:LightningFramework": "initialize start_tracking stop_tracking log_metric",
    "tracelet.settings:TraceletSettings": "model_dump model_copy dict copy from_dict",
}

SETTINGS: dict[str, Any] = {
    "project": "default",
    "experiment_name": None,
    "backend": ["mlflow"],
    "api_key": None,
    "backend_url": None,
    "track_tensorboard": True,
    "track_lightning": True,
    "track_system": True,
    "track_git": True,
    "track_env": True,
    "metrics_interval": 10.0,
    "enable_automagic": False,
    "automagic_frameworks": None,
    "enable_artifacts": False,
    "automagic_artifacts": False,
    "watch_filesystem": False,
    "artifact_watch_dirs": None,
    "mlflow_tracking_uri": None,
    "mlflow_experiment_name": None,
    "wandb_project": None,
    "wandb_entity": None,
    "clearml_project": None,
    "clearml_task_name": None,
    "aim_repo": None,
    "aim_experiment": None,
    "track_gpu": True,
    "track_disk": True,
    "track_network": True,
}

#: Variable → text, field, what it becomes.
VARIABLES: dict[str, tuple[str, str, object]] = {
    "TRACELET_PROJECT": ("vision", "project", "vision"),
    "TRACELET_EXPERIMENT_NAME": ("first", "experiment_name", "first"),
    "TRACELET_BACKEND": ("mlflow,wandb", "backend", ["mlflow", "wandb"]),
    "TRACELET_API_KEY": ("k", "api_key", "k"),
    "TRACELET_BACKEND_URL": ("http://localhost:5000", "backend_url", "http://localhost:5000"),
    "TRACELET_TRACK_TENSORBOARD": ("false", "track_tensorboard", False),
    "TRACELET_TRACK_LIGHTNING": ("0", "track_lightning", False),
    "TRACELET_TRACK_SYSTEM": ("no", "track_system", False),
    "TRACELET_TRACK_GIT": ("off", "track_git", False),
    "TRACELET_TRACK_ENV": ("False", "track_env", False),
    "TRACELET_METRICS_INTERVAL": ("2.5", "metrics_interval", 2.5),
    "TRACELET_ENABLE_AUTOMAGIC": ("1", "enable_automagic", True),
    "TRACELET_AUTOMAGIC_FRAMEWORKS": ("pytorch,keras", "automagic_frameworks", ["pytorch", "keras"]),
    "TRACELET_ENABLE_ARTIFACTS": ("1", "enable_artifacts", True),
    "TRACELET_AUTOMAGIC_ARTIFACTS": ("yes", "automagic_artifacts", True),
    "TRACELET_WATCH_FILESYSTEM": ("true", "watch_filesystem", True),
    "TRACELET_ARTIFACT_WATCH_DIRS": ('["a", "b"]', "artifact_watch_dirs", ["a", "b"]),
    "TRACELET_MAX_QUEUE_SIZE": ("50", "max_queue_size", 50),
    "TRACELET_NUM_WORKERS": ("2", "num_workers", 2),
    "TRACELET_TRACK_ARGS": ("0", "track_args", False),
    "TRACELET_TRACK_STDOUT": ("0", "track_stdout", False),
    "TRACELET_TRACK_CHECKPOINTS": ("0", "track_checkpoints", False),
    "TRACELET_TRACK_MODEL_ARCHITECTURE": ("0", "track_model_architecture", False),
    "TRACELET_DETECT_FUNCTION_ARGS": ("0", "detect_function_args", False),
    "TRACELET_DETECT_CLASS_ATTRIBUTES": ("0", "detect_class_attributes", False),
    "TRACELET_MLFLOW_TRACKING_URI": ("sqlite:///m.db", "mlflow_tracking_uri", "sqlite:///m.db"),
    "TRACELET_MLFLOW_EXPERIMENT_NAME": ("e", "mlflow_experiment_name", "e"),
    "TRACELET_WANDB_PROJECT": ("p", "wandb_project", "p"),
    "TRACELET_WANDB_ENTITY": ("t", "wandb_entity", "t"),
    "TRACELET_WANDB_API_KEY": ("w", "wandb_api_key", "w"),
    "TRACELET_CLEARML_PROJECT": ("p", "clearml_project", "p"),
    "TRACELET_CLEARML_TASK_NAME": ("t", "clearml_task_name", "t"),
    "TRACELET_AIM_REPO": ("./aim", "aim_repo", "./aim"),
    "TRACELET_AIM_EXPERIMENT": ("e", "aim_experiment", "e"),
}

AUTOMAGIC: dict[str, Any] = {
    **dict.fromkeys(
        [
            "detect_function_args",
            "detect_class_attributes",
            "detect_argparse",
            "detect_config_files",
            "track_model_architecture",
            "track_model_checkpoints",
            "track_dataset_info",
            "monitor_training_loop",
            "monitor_loss_curves",
            "monitor_learning_rate",
            "monitor_gpu_memory",
            "monitor_cpu_usage",
            "track_git_info",
            "track_file_hashes",
        ],
        True,
    ),
    "track_model_gradients": False,
    "track_data_samples": False,
    "epoch_detection_threshold_seconds": 30.0,
    "frameworks": {"pytorch", "lightning", "sklearn", "keras", "xgboost"},
}


def found(path: str) -> Any:
    """Return what `module:Name.attribute` means."""
    module, _, names = path.partition(":")
    value: Any = importlib.import_module(module)
    for name in names.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize("module", NAMES)
def test_a_module_has_its_names_and_lists_them(module: str) -> None:
    there = importlib.import_module(module)

    names = NAMES[module].split()
    assert [name for name in names if not hasattr(there, name)] == []
    assert [name for name in names if name not in there.__all__] == []


@pytest.mark.parametrize("path", SIGNATURES)
def test_a_signature_is_the_promised_one(path: str) -> None:
    target = found(path)
    parameters = list(inspect.signature(target).parameters.values())
    if inspect.isfunction(target) and "." in path.partition(":")[2]:
        parameters = parameters[1:]
    promised = [part.strip() for part in SIGNATURES[path].split(",") if part.strip()]
    if promised == ["*"]:
        assert len(parameters) == 1
        return

    for number, written in enumerate(promised):
        name, equals, default = written.partition("=")
        assert parameters[number].name == name
        if equals and default != "*":
            assert repr(parameters[number].default) == default
        elif not equals:
            assert parameters[number].default is inspect.Parameter.empty
    assert all(one.default is not one.empty or one.kind is one.VAR_KEYWORD for one in parameters[len(promised) :])


@pytest.mark.parametrize("path", METHODS)
def test_a_class_has_its_methods(path: str) -> None:
    target = found(path)

    assert [name for name in METHODS[path].split() if not callable(getattr(target, name, None))] == []


def test_enumerations_have_their_members_and_values() -> None:
    types = (
        "SCALAR TENSOR ARTIFACT PARAMETER SYSTEM CUSTOM HISTOGRAM IMAGE TEXT FIGURE EMBEDDING VIDEO AUDIO MESH HPARAMS"
    )
    artifacts = "MODEL CHECKPOINT WEIGHTS DATASET SAMPLE IMAGE AUDIO VIDEO VISUALIZATION REPORT CONFIG CODE CUSTOM"
    states = "DISCOVERED LOADED VALIDATED INITIALIZED ACTIVE ERROR STOPPED"

    assert {one.name: one.value for one in MetricType} == {name: name.lower() for name in types.split()}
    assert {one.name: one.value for one in PluginType} == {
        name: name.lower() for name in ("BACKEND", "COLLECTOR", "FRAMEWORK", "PROCESSOR")
    }
    assert {one.name: one.value for one in PluginState} == {
        name: number for number, name in enumerate(states.split(), start=1)
    }
    assert {one.name: one.value for one in ArtifactType} == {
        name: name.lower() if name != "VISUALIZATION" else "viz" for name in artifacts.split()
    }
    assert found("tracelet.core.artifacts:LARGE_FILE_THRESHOLD") == 100 * 1024 * 1024
    assert found("tracelet.core.plugins:CollectorPlugin")._collection_interval == 60


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_has_its_default(name: str) -> None:
    assert getattr(TraceletSettings(), name) == SETTINGS[name]


@pytest.mark.parametrize("name", VARIABLES)
def test_a_variable_sets_its_field(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, field, value = VARIABLES[name]
    monkeypatch.setenv(name, text)

    assert getattr(TraceletSettings(), field) == value


@pytest.mark.parametrize("name", AUTOMAGIC)
def test_a_field_of_automagic_has_its_default(name: str) -> None:
    assert getattr(AutomagicConfig(), name) == AUTOMAGIC[name]


def test_the_version_has_one_source() -> None:
    import tracer

    assert tracelet.__version__ == tracer.__version__


@pytest.mark.parametrize("name", ["mlflow", "wandb", "clearml", "aim"])
def test_a_back_end_of_the_table_is_found_by_its_name(name: str) -> None:
    metadata = tracelet.get_backend(name).get_metadata()

    assert (metadata.name, metadata.type) == (name, PluginType.BACKEND)


def test_the_system_collector_has_its_keys() -> None:
    figures = tracelet.SystemMetricsCollector().collect()

    keys = (
        "platform python_version cpu_count cpu_count_physical memory_total hostname cpu_percent memory_percent "
        "memory_available gpu"
    )
    assert set(figures) == set(keys.split())
    assert 0 < figures["memory_available"] < figures["memory_total"]


def test_the_git_collector_has_its_keys(git_repository: str) -> None:
    facts = tracelet.GitCollector(git_repository).collect()

    keys = (
        "git_available branch commit_hash commit_message commit_author commit_datetime is_dirty untracked_files diff "
        "remotes"
    )
    assert set(keys.split()) <= set(facts)
    assert (facts["git_available"], facts["commit_message"], facts["is_dirty"]) == (True, "first", True)
    assert facts["untracked_files"] == ["new.py"]
