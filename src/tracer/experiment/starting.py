"""`start_logging`, `stop_logging`, `get_active_experiment`, `configure`: an experiment in one call."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tracer.experiment.options import ExperimentConfig

from tracer.errors import ConfigError
from tracer.experiment import current
from tracer.experiment.experiments import Experiment
from tracer.experiment.options import gather
from tracer.experiment.settings import TraceletSettings

_configured: TraceletSettings | None = None


def start_logging(
    exp_name: str | None = None,
    project: str | None = None,
    backend: object = None,
    api_key: str | None = None,
    backend_url: str | None = None,
    config: Mapping[str, object] | ExperimentConfig | TraceletSettings | None = None,
    settings: TraceletSettings | None = None,
) -> Experiment:
    """Begin an experiment: from now on what TensorBoard, Lightning and other frameworks log is recorded.

    An experiment or run that is active ends before, and says so; nothing of the new one goes into it.

    Args:
        exp_name: Name of the run; made from date and host when absent.
        project: Project of the run.
        backend: A name, names with commas, a plugin class or object, or a list of these.
        api_key: Key for the back end; never stored.
        backend_url: Address of the back end.
        config: Settings by name, an `ExperimentConfig` or a `TraceletSettings`; names of `Config` are taken too.
        settings: Settings; what is given beside them wins.

    Returns:
        The experiment; also a context manager that stops it.

    Raises:
        ConfigError: A setting or a back end is not known; the message names what comes near.
        MissingDependency: The client of a back end is not installed; the message names the command that brings it.
        StoreError: The store cannot be written.

    Example:
        >>> with start_logging("first", project="docs", config={"quiet": True}) as experiment:
        ...     experiment.log_metric("accuracy", 0.9, 0)
    """
    given = {
        "experiment_name": exp_name,
        "project": project,
        "backend": backend,
        "api_key": api_key,
        "backend_url": backend_url,
    }
    options = gather(given, config, settings, _configured)
    experiment = Experiment(config=config if not isinstance(config, TraceletSettings) else None, options=options)
    experiment.start()
    if options.settings.enable_automagic:
        experiment.capture_hyperparams()
    return experiment


def stop_logging() -> None:
    """End the active experiment: everything is delivered and stored. Without one nothing happens."""
    experiment = current.active()
    if experiment is not None:
        experiment.stop()


def get_active_experiment() -> Experiment | None:
    """Return the active experiment; None without one."""
    return current.active()


def configure(settings: TraceletSettings | Mapping[str, Any] | None = None, **fields: object) -> TraceletSettings:
    """Set what the experiments of this process begin with; arguments of `start_logging` win.

    Args:
        settings: Settings, or a dictionary of them. None and no fields: what the surroundings say.
        **fields: Fields of `TraceletSettings`.

    Returns:
        The settings.

    Raises:
        ConfigError: A field is not known or its value cannot be meant.
    """
    global _configured  # noqa: PLW0603 -- one per process, as `get_active_experiment` is
    if settings is None and not fields:
        _configured = None
        return TraceletSettings()
    if settings is not None and not isinstance(settings, TraceletSettings):
        if not isinstance(settings, dict):
            message = f"configure({settings!r}): a TraceletSettings or a dictionary is needed."
            raise ConfigError(message)
        settings = TraceletSettings.from_dict(settings)
    _configured = (settings or TraceletSettings()).model_copy(update=fields)
    return _configured


__all__ = ["configure", "get_active_experiment", "start_logging", "stop_logging"]
