"""Artifacts of type `model` as MLflow's models: an entry that points at the run's artifact, no second copy."""

from __future__ import annotations

from collections.abc import Mapping

from tracer.backends.mlflow_client import Connection
from tracer.backends.mlflow_errors import is_missing
from tracer.transfer import File

_TAG, _VERSION = "tracer.artifact", "tracer.version"
_TYPE = "model"
_LONGEST = 200


class Models:
    """The models of one run; to be used inside `connection.calls()`."""

    def __init__(self, connection: Connection, experiment: str, run: str, options: Mapping[str, object]) -> None:
        self._client, self._experiment, self._run = connection.client, experiment, run
        self._registered = str(options.get("register_models") or "")
        self._known: set[tuple[str, str]] | None = None

    def tell(self, file: File) -> None:
        """Show an artifact as a model, once for each version."""
        if file.type != _TYPE or not hasattr(self._client, "create_logged_model"):  # since MLflow 3
            return
        if self._known is None:
            found = self._client.search_logged_models([self._experiment], f"source_run_id = '{self._run}'")
            self._known = {(model.tags.get(_TAG, ""), model.tags.get(_VERSION, "")) for model in found}
        if (file.name, file.version) in self._known:
            return
        from mlflow.entities import LoggedModelOutput

        made = self._client.create_logged_model(
            self._experiment,
            name=_name(file),
            source_run_id=self._run,
            tags={_TAG: file.name, _VERSION: file.version},
        )
        self._client.finalize_logged_model(made.model_id, "READY")
        self._client.log_outputs(self._run, [LoggedModelOutput(made.model_id, file.step or 0)])
        if self._registered:
            self._register(file)
        self._known.add((file.name, file.version))

    def _register(self, file: File) -> None:
        """Add a version to the registry, which is made where it is missing."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_registered_model(self._registered)
        except MlflowException as error:
            if not is_missing(error):
                raise
            self._client.create_registered_model(self._registered)
        self._client.create_model_version(self._registered, f"runs:/{self._run}/{file.name}", self._run)


def _name(file: File) -> str:
    """Return the name of a model: not the artifact's, since MLflow would look below it for files of the model."""
    return "".join("_" if one in "/:.%\"'" else one for one in f"{file.name}-{file.version}")[:_LONGEST]
