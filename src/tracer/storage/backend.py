"""`StorageBackend`: the Tracer documents' storage interface, served from the store.

A thin class over `Store` for reading and one journal writer per open run for writing. What a write returned from is
seen by every reader at once, in this process or another.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from tracer import events, journal
from tracer.errors import RunNotFound
from tracer.storage.checkpoint_values import checkpoint_values
from tracer.storage.command_writer import CommandWriter

if TYPE_CHECKING:
    import sqlite3

    from tracer.storage.store import Store
    from tracer.storage.values import CheckpointRow, RunRow

_AXIS = "gradients"
_MICROSECONDS = 1_000_000
#: What `get_gradient_stats` calls the lists, in the order of `events.TENSOR_STATISTICS`.
_LISTS = ("norms", "means", "stds", "maxs", "mins", "zeros", "nans", "infs")
_COUNTS = frozenset({"zeros", "nans", "infs"})


class HasStoragePath(Protocol):
    """Whatever names a store: `tracer.TracerConfig`, or any object with `storage_path`."""

    @property
    def storage_path(self) -> str | os.PathLike[str]:
        """The folder of the store."""


class StorageBackend:
    """Write and read runs through the interface of the Tracer documents.

    Args:
        config: Its `storage_path` names the store, which is made if it is not there.

    Raises:
        StoreError: The folder cannot be made, or a newer Tracer wrote it.

    Example:
        >>> storage = StorageBackend(TracerConfig(project_name="test"))  # doctest: +SKIP
        >>> storage.create_run("123", "test", "run1", start_time=1000.0, config={})
    """

    def __init__(self, config: HasStoragePath) -> None:
        from tracer.storage.store import Store

        self.config = config
        self.base_path = Path(config.storage_path)
        self.db_path = self.base_path / "tracer.db"
        self.samples_dir = self.base_path / "samples"
        self._store: Store = Store.open(self.base_path, create=True)
        self._writers: dict[str, CommandWriter] = {}
        self._checkpoints: dict[str, set[int]] = {}
        self._conn: sqlite3.Connection | None = None
        self._lock = threading.RLock()

    @property
    def store(self) -> Store:
        """The store underneath."""
        return self._store

    @property
    def conn(self) -> sqlite3.Connection:
        """A connection on which the SQL of the Tracer documents runs: their tables are views of the catalog."""
        from tracer.storage.document_views import connect

        with self._lock:
            if self._conn is None:
                self._conn = connect(self)
            return self._conn

    def create_run(
        self,
        run_id: str,
        project_name: str,
        run_name: str,
        start_time: float,
        config: Mapping[str, Any],
        *,
        resume: bool = False,
    ) -> None:
        """Make a run.

        Args:
            run_id: Any text that no other run of the store has.
            project_name: Project of the run.
            run_name: Name of the run; several may share one.
            start_time: When it began, in seconds since 1970.
            config: Its hyperparameters.
            resume: Go on with the run of that id if there is one.

        Raises:
            ValueError: A run of that id exists.

        Example:
            >>> storage.create_run("123", "test", "run1", start_time=1000.0, config={})  # doctest: +SKIP
        """
        from tracer.storage.run_folder import create_run_folder, new_facts

        with self._lock:
            found = self._found(run_id)
            if found is not None and resume:
                self._writer(run_id, found)
                return
            if found is not None or any(row.uid == run_id for row in self._store.trash()):
                message = (
                    f"A run with the id {run_id!r} exists already. Choose another id, pass resume=True, or delete it "
                    "for good first."
                )
                raise ValueError(message)
            facts = new_facts(run_id, project_name, run_name, _micros(start_time), json.loads(_json(dict(config))))
            folder = create_run_folder(self.base_path, facts)
            self._writers[run_id] = CommandWriter(folder, run_id)
            self._checkpoints[run_id] = set()

    def write_checkpoint(
        self,
        run_id: str,
        step: int,
        timestamp: float,
        metrics: Mapping[str, Any],
        gradient_stats: Mapping[str, Mapping[str, float]],
        system_metrics: Mapping[str, Any],
        samples: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep what was current at a step; the same step again replaces what it says.

        Args:
            run_id: The run.
            step: The step; any order.
            timestamp: When, in seconds since 1970.
            metrics: Name → number, text, or anything JSON holds; nested dictionaries are flattened with `/`.
            gradient_stats: Layer → `norm mean std max min num_zeros num_nans num_infs`.
            system_metrics: `cpu`, `memory` and `gpu` as `SystemMetrics.capture` gives them.
            samples: `inputs`, `targets`, `predictions`, `loss_per_sample` and `indices` of some rows of the batch.

        Raises:
            ValueError: There is no such run.
            TypeError: A metric is nothing that can be kept.
            StoreError: The disk does not take it.

        Example:
            >>> storage.write_checkpoint("123", 100, 1100.0, {"loss": 0.5}, {}, {})  # doctest: +SKIP
        """
        values = checkpoint_values(metrics)
        step, system = int(step), json.loads(_json(dict(system_metrics)))
        with self._lock:
            writer = self._writer(run_id)
            kept = None if samples is None else self._write_samples(run_id, step, samples)
            writer.add_row({**values.numbers, **_system_row(system)}, step, timestamp)
            if values.typed:
                writer.add(journal.Kind.TYPED, {"values": values.typed}, step, timestamp)
            if gradient_stats:
                writer.add_layers(
                    _AXIS, list(gradient_stats), events.TENSOR_STATISTICS, _matrix(gradient_stats), step, timestamp
                )
            marker = {"values": values.given, "system": system or None, "samples": kept}
            writer.add(journal.Kind.CHECKPOINT, marker, step, timestamp)
            writer.write()
            self._checkpoints.setdefault(run_id, set()).add(step)

    def finalize_run(self, run_id: str, end_time: float, status: str, total_steps: int) -> None:
        """Say how a run ended.

        Args:
            run_id: The run.
            end_time: When it ended, in seconds since 1970.
            status: `completed`, `failed` or `crashed`; `running` leaves it open.
            total_steps: How many steps it took.

        Raises:
            ValueError: There is no such run or no such status.

        Example:
            >>> storage.finalize_run("123", end_time=1200.0, status="completed", total_steps=100)  # doctest: +SKIP
        """
        from tracer.storage.run_folder import finish_run

        if status not in events.STATUSES:
            message = f"{status!r} is no status of a run. Choose one of: {', '.join(events.STATUSES)}."
            raise ValueError(message)
        with self._lock:
            writer = self._writer(run_id)
            end = {
                "status": status,
                "reason": None,
                "exit_code": None,
                "ended": _micros(end_time),
                "steps": int(total_steps),
                "checkpoints": self._count_checkpoints(run_id),
            }
            writer.add(journal.Kind.END, end, int(total_steps), end_time)
            writer.close()
            del self._writers[run_id]
            finish_run(self._folder(run_id), end)

    def get_run(self, run_id: str) -> dict[str, Any] | None:
        """Return what is known of a run, or None.

        Args:
            run_id: The run.

        Returns:
            `run_id project_name run_name start_time end_time status config total_steps total_checkpoints created_at
            updated_at`; times in seconds, `config` as JSON text.

        Example:
            >>> storage.get_run("123")["status"]  # doctest: +SKIP
            'completed'
        """
        with self._lock:
            row = self._found(run_id)
            if row is None:
                return None
            # The row counts how often one was recorded, and nothing yet of a process that died.
            return {**_run(row), "total_checkpoints": len(self._store.checkpoints(run_id))}

    def list_runs(
        self, project_name: str | None = None, status: str | None = None, limit: int | None = 100
    ) -> list[dict[str, Any]]:
        """Return runs, the newest first.

        Args:
            project_name: Only this project.
            status: Only this status.
            limit: At most so many; None for all.

        Returns:
            One dictionary per run, as `get_run` gives it.

        Example:
            >>> [run["run_name"] for run in storage.list_runs(status="failed", limit=None)]  # doctest: +SKIP
            ['run7']
        """
        if status and status not in events.STATUSES:
            return []  # as a table that holds no such row answers
        with self._lock:
            rows = self._store.runs(project=project_name or None, status=status or None, limit=limit)
            return [_run(row) for row in rows]

    def get_checkpoints(self, run_id: str) -> list[dict[str, Any]]:
        """Return the checkpoints of a run in the order of their steps.

        Args:
            run_id: The run.

        Returns:
            `checkpoint_id run_id step timestamp metrics has_samples sample_path`; `metrics` as JSON text.

        Example:
            >>> json.loads(storage.get_checkpoints("123")[-1]["metrics"])  # doctest: +SKIP
            {'loss': 0.5}
        """
        with self._lock:
            row = self._found(run_id)
            if row is None:
                return []
            folder = os.path.join(self._store.path, "runs", row.folder)
            return [_checkpoint(run_id, folder, found) for found in self._store.checkpoints(run_id)]

    def get_metric_timeseries(self, run_id: str, metric_name: str) -> dict[str, list[Any]]:
        """Return every logged value of a metric, not only those at checkpoints.

        Args:
            run_id: The run.
            metric_name: The metric.

        Returns:
            `steps`, `timestamps` (seconds) and `values`, of equal length; empty for a name nobody logged.

        Example:
            >>> storage.get_metric_timeseries("123", "loss")  # doctest: +SKIP
            {'steps': [100], 'timestamps': [1100.0], 'values': [0.5]}
        """
        with self._lock:
            row = self._found(run_id)
            points = [] if row is None else self._points(run_id, metric_name)
        return {
            "steps": [point[0] for point in points],
            "timestamps": [point[1] for point in points],
            "values": [point[2] for point in points],
        }

    def get_gradient_stats(self, run_id: str, layer_name: str | None = None) -> dict[str, dict[str, list[Any]]]:
        """Return the statistics of each layer's gradients at every step they were sampled.

        Args:
            run_id: The run.
            layer_name: Only this layer.

        Returns:
            Layer → `steps` and `norms`, and beside them `means stds maxs mins zeros nans infs`.

        Example:
            >>> storage.get_gradient_stats("123")["fc1.weight"]["norms"]  # doctest: +SKIP
            [0.25]
        """
        with self._lock:
            if self._found(run_id) is None:
                return {}
            names = self._store.layer_names(run_id, _AXIS)
            if layer_name is not None:
                names = [name for name in names if name == layer_name]
            return self._gradient_lists(run_id, names) if names else {}

    def close(self) -> None:
        """Seal what was written and let go of the store; a second time does nothing."""
        with self._lock:
            for writer in self._writers.values():
                writer.close()
            self._writers.clear()
            if self._conn is not None:
                self._conn.close()
                self._conn = None
            self._store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write_record(self, run_id: str, kind: int, value: Mapping[str, object]) -> None:
        """Write a record of text into the journal of a run, sealed."""
        with self._lock:
            writer = self._writer(run_id)
            writer.add(kind, value)
            writer.sync()

    def let_go(self, run_id: str) -> bool:
        """Close this backend's own writer of a run, so that the run can be deleted; tell whether there was one."""
        with self._lock:
            writer = self._writers.pop(run_id, None)
            self._checkpoints.pop(run_id, None)
            if writer is not None:
                writer.close()
            return writer is not None

    def _found(self, run_id: str) -> RunRow | None:
        """Return the run of exactly this id."""
        return next((row for row in self._store.matches(run_id) if row.uid == run_id), None)

    def _folder(self, run_id: str) -> str:
        """Return the folder of a run, or say that there is no such run."""
        row = self._found(run_id)
        if row is None:
            message = f"There is no run with the id {run_id!r} in {self.base_path}. Make it with `create_run` first."
            raise RunNotFound(message)
        return os.path.join(self._store.path, "runs", row.folder)

    def _writer(self, run_id: str, row: RunRow | None = None) -> CommandWriter:
        """Return the writer of a run; a forked child gets one of its own."""
        writer = self._writers.get(run_id)
        if writer is None or writer.is_closed:
            folder = self._folder(run_id) if row is None else os.path.join(self._store.path, "runs", row.folder)
            writer = self._writers[run_id] = CommandWriter(folder, run_id)
        return writer

    def _count_checkpoints(self, run_id: str) -> int:
        """Return how many checkpoints a run has, other writers' included."""
        steps = self._checkpoints.get(run_id, set()) | {found.step for found in self._store.checkpoints(run_id)}
        return len(steps)

    def _write_samples(self, run_id: str, step: int, samples: Mapping[str, Any]) -> str:
        """Write the samples file of a checkpoint and link it where the documents' programs look; return its path."""
        from tracer.storage.retention import sample_link
        from tracer.storage.samples import samples_columns, write_samples

        folder = self._folder(run_id)
        inside = f"samples/{step}-0.parquet"
        whole = os.path.join(folder, inside)
        write_samples(whole, f"{run_id}_step_{step}", samples_columns(samples))
        self.samples_dir.mkdir(exist_ok=True)
        # The folder's name is safe as a file name; a run's id need not be.
        link = self.samples_dir / sample_link(os.path.basename(folder), os.path.basename(inside))
        link.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a file system without hard links: the run folder has the file
            os.link(whole, link)
        return inside

    def _points(self, run_id: str, metric: str) -> list[tuple[int, float, object]]:
        """Return (step, seconds, value) of a metric: numbers and texts, in the order of steps."""
        numbers = self._store.series(run_id, metric)
        columns = (numbers.step.tolist(), numbers.time.tolist(), numbers.value.tolist())
        points = [(step, time / _MICROSECONDS, value) for step, time, value in zip(*columns, strict=True)]
        texts = self._store.texts(run_id, metric)
        if texts:
            points += [(step, time / _MICROSECONDS, value) for step, time, value in texts]
            points.sort(key=lambda point: point[:2])
        if not points:  # what is neither number nor text, such as a list, stands in the checkpoints only
            points = [
                (found.step, found.time / _MICROSECONDS, found.metrics[metric])
                for found in self._store.checkpoints(run_id)
                if metric in found.metrics
            ]
        return points

    def _gradient_lists(self, run_id: str, names: list[str]) -> dict[str, dict[str, list[Any]]]:
        """Return the lists of `get_gradient_stats` for these layers."""
        import numpy as np

        matrices = [
            self._store.layers(run_id, statistic, axis=_AXIS, layers=names) for statistic in events.TENSOR_STATISTICS
        ]
        steps = np.asarray(matrices[0].steps)
        values = np.stack([np.asarray(matrix.values) for matrix in matrices])
        lists: dict[str, dict[str, list[Any]]] = {}
        for column, name in enumerate(matrices[0].layers):
            # A count is never NaN: where it is, the layer was not sampled at that step.
            there = ~np.isnan(values[:, :, column]).all(axis=0)
            lists[name] = {"steps": steps[there].tolist()}
            for key, row in zip(_LISTS, values[:, there, column], strict=True):
                lists[name][key] = row.astype(np.int64).tolist() if key in _COUNTS else row.tolist()
        return lists


def _run(row: RunRow) -> dict[str, Any]:
    """Return a run with the keys of the Tracer documents."""
    ended = None if row.ended is None else row.ended / _MICROSECONDS
    return {
        "run_id": row.uid,
        "project_name": row.project,
        "run_name": row.name,
        "start_time": row.started / _MICROSECONDS,
        "end_time": ended,
        "status": row.status,
        "config": _json({**row.settings, **row.config}),
        "total_steps": row.steps,
        "total_checkpoints": row.checkpoints,
        "created_at": _date(row.started),
        "updated_at": _date(row.ended or row.heartbeat or row.started),
    }


def _checkpoint(run_id: str, folder: str, found: CheckpointRow) -> dict[str, Any]:
    """Return a checkpoint with the keys of the Tracer documents."""
    return {
        "checkpoint_id": f"{run_id}_step_{found.step}",
        "run_id": run_id,
        "step": found.step,
        "timestamp": found.time / _MICROSECONDS,
        "metrics": _json(found.metrics),
        "has_samples": int(found.samples is not None),
        "sample_path": None if found.samples is None else os.path.abspath(os.path.join(folder, found.samples)),
    }


def _matrix(gradient_stats: Mapping[str, Mapping[str, float]]) -> bytes:
    """Return the statistics as float32, one statistic after the other; what was not measured is NaN, a count 0."""
    import array

    matrix = array.array("f")
    for key in events.DOCUMENTED_STATISTICS:
        absent = 0.0 if key.startswith("num_") else float("nan")
        for stats in gradient_stats.values():
            value = stats.get(key)
            matrix.append(absent if value is None else _single(float(value)))
    return matrix.tobytes()


def _single(value: float) -> float:
    """Return a number as float32 holds it; beyond its range that is ±Inf."""
    largest = 3.4028234663852886e38
    return value if not abs(value) > largest else float("inf") if value > 0 else float("-inf")


def _system_row(system: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a system sample as metrics below `system/`."""
    found: dict[str, float] = {}

    def collect(prefix: str, value: object) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                collect(f"{prefix}/{key}", inner)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found[prefix] = float(value)

    collect("system", {key: value for key, value in system.items() if key != "timestamp"})
    return found


def _json(value: object) -> str:
    """Return JSON text; NaN and ±Inf as Python's JSON writes and reads them."""
    return json.dumps(value, default=_as_given)


def _as_given(value: object) -> object:
    """Return something JSON can hold for what it cannot: a path or a set in a config is no reason to fail."""
    if hasattr(value, "tolist"):  # an array or a scalar of NumPy or torch
        return value.tolist()
    return list(value) if isinstance(value, (set, frozenset, tuple)) else str(value)


def _micros(seconds: float) -> int:
    """Return a time in microseconds since 1970."""
    return round(float(seconds) * _MICROSECONDS)


def _date(micros: int) -> str:
    """Return a time as SQLite's CURRENT_TIMESTAMP writes it."""
    moment = dt.datetime.fromtimestamp(micros / _MICROSECONDS, tz=dt.UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S")


__all__ = ["HasStoragePath", "StorageBackend"]
