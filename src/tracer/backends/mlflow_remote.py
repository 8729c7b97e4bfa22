"""Runs of an MLflow server, read through MLflow's client."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tracer.backends.base import BackendError
from tracer.backends.mlflow_client import Connection
from tracer.backends.mlflow_found import Found, Model, Series

if TYPE_CHECKING:
    from mlflow.entities import Metric, Run

_PAGE, _EXPERIMENTS = 500, 1000
_DEEPEST = 64


class Remote:
    """A server, or a database that only MLflow's client can open.

    Args:
        uri: Its address.
        token: A bearer token, if any.
        notes: Where it is said what could not be read.
    """

    def __init__(self, uri: str, token: str, notes: list[str]) -> None:
        self._connection, self._notes = Connection(uri, token), notes

    def runs(self, *, deleted: bool) -> Iterator[Found]:
        """Yield the runs, page by page."""
        from mlflow.entities import ViewType

        view = ViewType.ALL if deleted else ViewType.ACTIVE_ONLY
        token: str | None = None
        names: dict[str, str] = {}
        while True:
            with self._connection.calls():
                page = self._connection.client.search_experiments(view, _EXPERIMENTS, page_token=token)
                names |= {str(one.experiment_id): str(one.name) for one in page}
            token = page.token
            if not token:
                break
        for experiment, name in names.items():
            token = None
            while True:
                with self._connection.calls():
                    client = self._connection.client
                    runs = client.search_runs([experiment], "", view, _PAGE, ["attributes.start_time"], token)
                    models = self._models(experiment) if runs else {}
                for run in runs:
                    yield _found(run, name, models.get(run.info.run_id, ()))
                token = runs.token
                if not token:
                    break

    def series(self, found: Found) -> Iterator[Series]:
        """Yield the metrics of a run."""
        with self._connection.calls():
            names = sorted(self._connection.client.get_run(found.id).data.metrics)
        for name in names:
            with self._connection.calls():
                held = self._connection.client.get_metric_history(found.id, name)
            if held:
                yield _series(name, held)

    def one(self, found: Found, path: str, aside: str) -> str | None:
        """Fetch one artifact; None where there is none."""
        try:
            with self._connection.calls():
                return self._fetched(found.id, path, aside)
        except BackendError:
            return None

    def fetch(self, found: Found, aside: str) -> None:
        """Fetch all artifacts of a run into a folder of ours."""
        self._fetch(found, "", aside, 0)

    def fetch_model(self, found: Found, model: Model, aside: str) -> None:
        """Fetch the files of a model."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        try:
            with self._connection.calls():
                # By its place: `models:/<id>` is looked up at the process's own tracking server.
                place = get_artifact_repository(model.location, tracking_uri=self._connection.uri)
                place.download_artifacts("", aside)  # type: ignore[no-untyped-call]
        except BackendError as error:
            self._notes.append(f"{found.name}: the model {model.name!r} could not be fetched: {error}")

    def _fetch(self, found: Found, folder: str, aside: str, depth: int) -> None:
        """Fetch what lies in a folder of a run's artifacts."""
        try:
            with self._connection.calls():
                listed = self._connection.client.list_artifacts(found.id, folder or None)
        except BackendError as error:
            self._notes.append(f"{found.name}: its artifacts cannot be listed: {error}")
            return
        for one in listed:
            if one.is_dir:
                if depth < _DEEPEST and one.path != folder:
                    self._fetch(found, one.path, aside, depth + 1)
                continue
            try:
                with self._connection.calls():
                    self._fetched(found.id, one.path, aside)
            except BackendError as error:
                self._notes.append(f"{found.name}: the artifact {one.path!r} could not be fetched: {error}")

    def _fetched(self, uid: str, path: str, aside: str) -> str | None:
        """Return where a fetched artifact lies: in our folder, or it is not used."""
        root = os.path.realpath(aside) + os.sep
        folder = os.path.realpath(os.path.join(aside, os.path.dirname(path))) + os.sep
        if not folder.startswith(root):
            return None
        os.makedirs(folder, exist_ok=True)
        landed = os.path.realpath(self._connection.client.download_artifacts(uid, path, folder))
        return landed if landed.startswith(root) else None

    def _models(self, experiment: str) -> dict[str, tuple[Model, ...]]:
        """Return the models of an experiment by the run that made each; before MLflow 3 there are none."""
        if not hasattr(self._connection.client, "search_logged_models"):
            return {}
        found: dict[str, tuple[Model, ...]] = {}
        for one in self._connection.client.search_logged_models([experiment]):
            made = Model(str(one.model_id), str(one.name), str(one.artifact_location))
            found[str(one.source_run_id)] = (*found.get(str(one.source_run_id), ()), made)
        return found


def _found(run: Run, experiment: str, models: tuple[Model, ...]) -> Found:
    """Return a run as it was found."""
    tags = dict(run.data.tags)
    return Found(
        id=str(run.info.run_id),
        experiment=experiment,
        name=str(tags.get("mlflow.runName") or run.info.run_name or run.info.run_id),
        status=str(run.info.status),
        started=int(run.info.start_time or 0),
        ended=int(run.info.end_time) if run.info.end_time else None,
        artifacts=str(run.info.artifact_uri or ""),
        params=dict(run.data.params),
        tags=tags,
        models=models,
    )


def _series(name: str, held: list[Metric]) -> Series:
    """Return the values of a metric as columns."""
    import numpy as np

    return Series(
        name,
        np.array([one.step for one in held], np.int64),
        np.array([one.timestamp for one in held], np.int64),
        np.array([one.value for one in held], np.float64),
    )
