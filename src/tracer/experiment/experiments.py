"""`Experiment`: a run under the name, attributes and methods that the Tracelet documents give it.

There is one run underneath, begun by `tracer.init`: what an experiment cannot do itself, such as `watch` or `step`, the
run does.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Any, Self

    from tracer.experiment.artifacts import ArtifactResult, ArtifactType, TraceletArtifact
    from tracer.experiment.plugged import Plugged
    from tracer.mirroring.asking import Chosen
    from tracer.mirroring.starting import Wanted
    from tracer.routing import MetricData
    from tracer.run import Run

import os

from tracer import clock, sink
from tracer.active import init
from tracer.errors import UsageError
from tracer.experiment import artifact_store, current
from tracer.experiment.options import ExperimentConfig, Options, gather


class Experiment:
    """One experiment: records into a run from `start` to `stop`.

    Args:
        name: Name of the run.
        config: What is collected; a dictionary, an `ExperimentConfig` or a `TraceletSettings`.
        backend: Back ends: names, plugin classes or objects.
        tags: Tags of the run.
        automagic: Also record the values of the function that starts it.
        automagic_config: What automagic looks at.
        artifacts: Accepted; artifacts can always be logged.
        automagic_artifacts: Keep files that appear in the watched folders.
        options: What `start_logging` gathered; the arguments before it are not looked at then.

    Raises:
        ConfigError: A setting or a back end is not known.
        MissingDependency: The client of a back end is not installed.

    Example:
        >>> with Experiment("first", config={"project": "docs", "quiet": True}) as experiment:
        ...     experiment.log_metric("loss", 0.5, 0)
        ...     experiment.name
        'first'
    """

    def __init__(  # noqa: PLR0913 -- the documents' parameters
        self,
        name: str | None = None,
        config: Mapping[str, object] | ExperimentConfig | None = None,
        backend: object = None,
        tags: Sequence[str] | None = None,
        automagic: bool = False,  # noqa: FBT001, FBT002 -- the documents pass it by name and by place
        automagic_config: object = None,
        artifacts: bool = False,  # noqa: FBT001, FBT002 -- as above
        automagic_artifacts: bool = False,  # noqa: FBT001, FBT002 -- as above
        *,
        options: Options | None = None,
    ) -> None:
        if options is None:
            flags = {
                "enable_automagic": automagic,
                "enable_artifacts": artifacts,
                "automagic_artifacts": automagic_artifacts,
            }
            named = {"experiment_name": name, "backend": backend}
            chosen = {key: value for key, value in flags.items() if value}
            options = gather({**named, **chosen}, config)
        from tracer.mirroring.asking import choose

        self._options, self._chosen = options, choose(options.backend)
        self.config = config if isinstance(config, ExperimentConfig) else ExperimentConfig.of(options.settings)
        self.automagic_config = automagic_config
        self.created_at = clock.now()
        self._tags = list(tags or ())
        self._run: Run | None = None
        self._plugged: Plugged | None = None
        self._given_name = options.settings.experiment_name or ""

    # Beginning and end.

    def start(self) -> Self:
        """Begin the run, listen to frameworks, connect the back ends; an experiment that is active ends before.

        Returns:
            The experiment.

        Raises:
            StoreError: The store cannot be written.
        """
        if self.is_active:
            return self
        from tracer.experiment.plugged import Plugged, check

        options = self._options.for_backends()
        check(self._chosen, options)
        wanted = self._wanted(self._chosen)
        settings = self._options.for_init()
        settings["tags"] = [*settings.get("tags", ()), *self._tags]
        if not settings["tags"]:
            del settings["tags"]  # it may come from the environment
        run = init(**settings)
        self._run = run
        self.config.answer_for(run.config)
        current.enter(self)
        run.when_finished.append(self._ended)
        if run.rank == 0:  # one rank speaks for the job; each records its own part
            self._plugged = Plugged(run, self._chosen.registry, options)
            self._plugged.start()
            run.mirror([*wanted, *self._plugged.wanted(self._chosen)])
        for name in self._options.without_effect():
            sink.say(
                f"tracer: {name}=False changes nothing yet; track_system=False turns all figures of the system off"
            )
        return self

    def stop(self) -> None:
        """End the run: everything that was recorded is delivered and stored. Calling it again does nothing."""
        if self._run is not None:
            self._run.finish()

    end = finish = stop

    def _ended(self) -> None:
        """Let go; called whoever ends the run."""
        current.leave(self)
        if self._plugged is not None:
            self._plugged.stop()

    def _wanted(self, chosen: Chosen) -> list[Wanted]:
        """Return the back ends of the table that were chosen, each with what it is told."""
        told = self._options.for_backends()
        settings = self._options.settings
        return chosen.wanted(
            {name: told.get(name, {}) for name in chosen.mirrors}, url=settings.backend_url, api_key=settings.api_key
        )

    @property
    def is_active(self) -> bool:
        """Whether it records now."""
        return current.active() is self

    @property
    def run(self) -> Run:
        """The run underneath.

        Raises:
            UsageError: The experiment was not started yet.
        """
        if self._run is None:
            message = f"The experiment {self._given_name!r} was not started yet. Call start(), or write `with`."
            raise UsageError(message)
        return self._run

    # Attributes.

    @property
    def id(self) -> str:
        """The id of the run."""
        return self.run.run_id

    @property
    def name(self) -> str:
        """The name of the run."""
        return self._run.name if self._run is not None else self._given_name

    @property
    def tags(self) -> list[str]:
        """The tags of the run."""
        if self._run is None:
            return list(self._tags)
        tags: list[str] = list(self._run.facts.get("tags") or ())
        return tags

    @property
    def iteration(self) -> int:
        """How many steps were ended, or what `set_iteration` said."""
        return self._run.step_count if self._run is not None else 0

    @property
    def backend(self) -> list[str]:
        """The back ends that were asked for."""
        return [*self._chosen.mirrors, *self._chosen.plugins]

    # Values.

    def log_metric(self, name: str, value: object, iteration: int | None = None) -> None:
        """Record a value.

        Args:
            name: Name of the metric.
            value: A number of any kind; see `Run.log`.
            iteration: The step; 0 is a step. The experiment's own iteration when None.
        """
        self.run.log({name: value}, step=iteration)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Record parameters; the same name again replaces the value."""
        self.run.change({"config": dict(params)})

    log_hyperparameters = log_params

    def log_param(self, name: str, value: object) -> None:
        """Record a parameter."""
        self.log_params({name: value})

    log_hyperparameter = log_param

    def set_iteration(self, iteration: int) -> None:
        """Say at which step the training is: values without one belong there."""
        self.run.go_on_at(iteration)

    def add_tag(self, tag: str) -> None:
        """Add a tag."""
        self.set_tags([*self.tags, *([] if tag in self.tags else [tag])])

    def set_tags(self, tags: Sequence[str]) -> None:
        """Replace the tags."""
        self._tags = list(tags)
        if self._run is not None:
            self._run.change({"tags": list(tags)})

    def get_source_id(self) -> str:
        """Return the name under which a router knows the experiment."""
        return f"experiment.{self.name}"

    def emit_metric(self, metric: MetricData) -> None:
        """Record a metric of a router: numbers as metrics, parameters as parameters."""
        from tracer.experiment.emitted import record_metric

        record_metric(self, metric)

    # Back ends.

    def add_backend(self, backend: object) -> None:
        """Mirror to one more back end; it gets the run from its beginning.

        Args:
            backend: A name, a plugin class or an object of one.
        """
        from tracer.mirroring.asking import choose

        if self._run is None:
            self._chosen = choose([*self._options.backend, backend])
            self._options.backend.append(backend)
            return
        from tracer.experiment.plugged import check

        chosen = choose([backend])
        check(chosen, self._options.for_backends())
        if self._plugged is not None:
            self.run.mirror([*self._wanted(chosen), *self._plugged.wanted(chosen)])

    def get_active_backends(self) -> list[str]:
        """Return the back ends that were asked for and have not failed."""
        lanes = self._run.backends if self._run is not None else self._chosen.names
        return [name for name in lanes if self._run is None or self._run.backend(name).state != "refused"]

    # Artifacts.

    def create_artifact(
        self, name: str, artifact_type: ArtifactType | str, description: str | None = None
    ) -> TraceletArtifact:
        """Return an empty artifact to put files and objects into; `log_artifact` keeps it."""
        from tracer.experiment.artifacts import TraceletArtifact

        return TraceletArtifact(name, artifact_type, description)

    def log_artifact(
        self, artifact: TraceletArtifact | str, artifact_path: str | None = None
    ) -> dict[str, ArtifactResult]:
        """Keep an artifact, or a file by its path.

        Args:
            artifact: What `create_artifact` made, or the path of a file or folder.
            artifact_path: Name of a file's artifact; the file's own when absent.

        Returns:
            Place → what became of it there; `local` is our own store.
        """
        return artifact_store.keep(self.run, artifact, artifact_path)

    def log_file_artifact(self, local_path: str, artifact_path: str | None = None) -> dict[str, ArtifactResult]:
        """Keep a file or folder; see `log_artifact`."""
        return artifact_store.keep(self.run, os.fspath(local_path), artifact_path)

    upload_artifact = log_file_artifact

    def get_artifact(self, name: str, version: str = "latest", backend: str | None = None) -> TraceletArtifact:
        """Return an artifact that was kept: its files lie where `files` says.

        Args:
            name: Its name.
            version: `latest`, `v0`, `v1` …, or an alias.
            backend: Only `local` holds artifacts.
        """
        return artifact_store.read(self.run, name, version, backend)

    def list_artifacts(
        self, type_filter: ArtifactType | None = None, backend: str | None = None
    ) -> list[TraceletArtifact]:
        """Return the artifacts of this experiment."""
        return artifact_store.listed(self.run, type_filter, backend)

    # Automagic.

    def capture_hyperparams(self) -> dict[str, object]:
        """Record the values of the function that calls this, as parameters; see `HyperparameterDetector`."""
        from tracer.experiment.detectors import HyperparameterDetector, calling_frame

        found = HyperparameterDetector().extract_from_frame(calling_frame())
        self.log_params(found)
        return found

    def capture_model(self, model: object) -> dict[str, object]:
        """Record size and layers of a model, as parameters `model/…`."""
        from tracer.experiment.detectors import ModelDetector

        found = ModelDetector().analyze_model(model)
        self.log_params({f"model/{name}": value for name, value in found.items()})
        return found

    def capture_dataset(self, dataset: object) -> dict[str, object]:
        """Record what is known of a data set or loader, as parameters `dataset/…`."""
        from tracer.experiment.detectors import DatasetDetector

        found = DatasetDetector().analyze_dataset(dataset)
        self.log_params({f"dataset/{name}": value for name, value in found.items()})
        return found

    def __enter__(self) -> Self:
        """Start, if that has not been done."""
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; an exception marks the run failed."""
        if self._run is not None:
            self._run.__exit__(kind, error, trace)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever a run has
        """Answer with what the run can do: `log`, `step`, `watch`, `rows`, `run_id` and so on."""
        run = self.__dict__.get("_run")
        if run is None or name.startswith("_"):
            hint = " before start()" if not name.startswith("_") and run is None else ""
            message = f"Experiment has no attribute {name!r}{hint}."
            raise AttributeError(message)
        return getattr(run, name)

    def __repr__(self) -> str:
        """Name the experiment."""
        state = "active" if self.is_active else "not started" if self._run is None else "stopped"
        return f"<Experiment {self.name!r}: {state}>"


__all__ = ["Experiment"]
