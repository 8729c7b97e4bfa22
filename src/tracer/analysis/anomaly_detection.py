"""`AnomalyDetector`: reads a run from the store, asks the detectors of `anomalies`, and keeps what they found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.analysis import anomalies, goals
from tracer.events import Finding

if TYPE_CHECKING:
    from tracer.storage.backend import StorageBackend
    from tracer.storage.store import Store
    from tracer.storage.values import SeriesRow

_GRADIENTS = "gradients"
_GPU_MEMORY = frozenset({"memory_util", "memory_percent", "memory_utilization"})


class AnomalyDetector:
    """Find what went wrong in a run.

    Args:
        storage: The storage backend that holds the run.

    Example:
        >>> detector = AnomalyDetector(storage)  # doctest: +SKIP
        >>> detector.store_anomalies(detector.detect_all_anomalies("run1"))  # doctest: +SKIP
        2
    """

    def __init__(self, storage: StorageBackend) -> None:
        self.storage = storage

    def detect_all_anomalies(self, run_id: str) -> list[dict[str, Any]]:
        """Return what every detector finds, by step.

        Args:
            run_id: The run.

        Returns:
            Records `run_id checkpoint_id step anomaly_type severity details`; `details` says what was seen, and with
            `last_step` up to where.

        Raises:
            ValueError: There is no such run.

        Example:
            >>> [found["anomaly_type"] for found in detector.detect_all_anomalies("run1")]  # doctest: +SKIP
            ['loss_spike', 'nan_or_inf']
        """
        return _records(self._uid(run_id), detect(self._store, self._uid(run_id)))

    def detect_gradient_anomalies(
        self, run_id: str, explosion_threshold: float = 100.0, vanishing_threshold: float = 1e-7
    ) -> list[dict[str, Any]]:
        """Return exploding and vanishing gradients, one record for each unbroken stretch of a layer.

        Args:
            run_id: The run.
            explosion_threshold: The norm above which a gradient exploded.
            vanishing_threshold: The norm below which it vanished.

        Returns:
            Records as `detect_all_anomalies` gives them, with `layer`, `norm` and `threshold` in `details`.

        Raises:
            ValueError: There is no such run.

        Example:
            >>> detector.detect_gradient_anomalies("run1", explosion_threshold=10.0)  # doctest: +SKIP
            []
        """
        uid = self._uid(run_id)
        found = detect_gradients(self._store, uid, explosion_threshold, vanishing_threshold)
        return _records(uid, found)

    def detect_loss_anomalies(self, run_id: str, window_size: int = 10) -> list[dict[str, Any]]:
        """Return spikes and drops of every metric whose name is that of a loss.

        Args:
            run_id: The run.
            window_size: How many values before a point are what it is measured against.

        Returns:
            Records as `detect_all_anomalies` gives them, with `loss`, `window_mean` and `z_score` in `details`.

        Raises:
            ValueError: There is no such run.

        Example:
            >>> detector.detect_loss_anomalies("run1", window_size=20)  # doctest: +SKIP
            []
        """
        uid = self._uid(run_id)
        return _records(uid, detect_losses(self._store, uid, window_size))

    def detect_nan_inf(self, run_id: str) -> list[dict[str, Any]]:
        """Return where a metric or a layer's gradient is NaN or infinite.

        Args:
            run_id: The run.

        Returns:
            Records as `detect_all_anomalies` gives them, with `layer` or `metric`, `num_nans`, `num_infs` in `details`.

        Raises:
            ValueError: There is no such run.

        Example:
            >>> detector.detect_nan_inf("run1")  # doctest: +SKIP
            []
        """
        uid = self._uid(run_id)
        return _records(uid, detect_not_finite(self._store, uid))

    def detect_memory_spikes(self, run_id: str, threshold: float = 90.0) -> list[dict[str, Any]]:
        """Return where a GPU's memory, or the machine's, was nearly full.

        Args:
            run_id: The run.
            threshold: Per cent in use above which it is an anomaly.

        Returns:
            Records as `detect_all_anomalies` gives them, with `gpu` (None for the machine's own memory), `memory_util`
            and `threshold` in `details`.

        Raises:
            ValueError: There is no such run.

        Example:
            >>> detector.detect_memory_spikes("run1", threshold=80.0)  # doctest: +SKIP
            []
        """
        uid = self._uid(run_id)
        return _records(uid, detect_memory(self._store, uid, threshold))

    def store_anomalies(self, anomalies: Iterable[Mapping[str, Any]]) -> int:
        """Keep anomalies in the store; what is there already is not doubled.

        Args:
            anomalies: Records as the other methods give them.

        Returns:
            How many were new.

        Raises:
            ValueError: One names a run that does not exist.

        Example:
            >>> detector.store_anomalies(detector.detect_nan_inf("run1"))  # doctest: +SKIP
            1
        """
        by_run: dict[str, list[Finding]] = {}
        for record in anomalies:
            by_run.setdefault(record["run_id"], []).append(_finding(record))
        return sum(self._store.add_findings(self._uid(run_id), found) for run_id, found in by_run.items())

    @property
    def _store(self) -> Store:
        """The store underneath."""
        return self.storage.store

    def _uid(self, run_id: str) -> str:
        """Return the id of a run, or say that there is none."""
        return self._store.run(run_id).uid


def detect(store: Store, uid: str) -> list[Finding]:
    """Return what every detector finds in a run, by step."""
    found = [*detect_gradients(store, uid), *detect_losses(store, uid), *detect_not_finite(store, uid)]
    found += detect_memory(store, uid)
    return sorted(found, key=lambda one: (one.step, one.kind))


def detect_gradients(
    store: Store, uid: str, explosion_threshold: float = 100.0, vanishing_threshold: float = 1e-7
) -> list[Finding]:
    """Return exploding and vanishing gradients of the layers, and explosions of norms logged as metrics."""
    found: list[Finding] = []
    if store.layer_names(uid, _GRADIENTS):
        norms = store.layers(uid, "norm", axis=_GRADIENTS)
        found += anomalies.gradient_anomalies(
            norms.steps,
            norms.layers,
            norms.values,
            explosion_threshold=explosion_threshold,
            vanishing_threshold=vanishing_threshold,
        )
    for row in _numeric(store, uid):
        if goals.is_gradient_norm(row.metric):
            series = store.series(uid, row.metric, rank=row.rank)
            found += anomalies.norm_anomalies(
                series.step, series.value, metric=row.metric, explosion_threshold=explosion_threshold
            )
    return found


def detect_losses(store: Store, uid: str, window_size: int = 10, metrics: Sequence[str] | None = None) -> list[Finding]:
    """Return spikes and drops of the metrics given, or of all whose name is that of a loss."""
    found: list[Finding] = []
    for row in _numeric(store, uid):
        if row.metric in metrics if metrics is not None else goals.is_loss(row.metric):
            series = store.series(uid, row.metric, rank=row.rank)
            found += anomalies.loss_anomalies(series.step, series.value, window_size=window_size, metric=row.metric)
    return found


def detect_not_finite(store: Store, uid: str) -> list[Finding]:
    """Return NaN and infinities of any metric and of the layers' gradients."""
    found: list[Finding] = []
    for row in _numeric(store, uid):
        if row.nan or row.inf:  # the summary knows: a clean series is never read
            series = store.series(uid, row.metric, rank=row.rank)
            found += anomalies.nan_or_inf(series.step, series.value, metric=row.metric)
    if store.layer_names(uid, _GRADIENTS):
        nans, infs = (store.layers(uid, statistic, axis=_GRADIENTS) for statistic in ("nans", "infs"))
        found += anomalies.layer_nan_or_inf(nans.steps, nans.layers, nans.values, infs.values)
    return found


def detect_memory(store: Store, uid: str, threshold: float = 90.0) -> list[Finding]:
    """Return where memory was nearly full, from the system figures that the run recorded."""
    found: list[Finding] = []
    for row in _numeric(store, uid):
        gpu = _memory_of(row.metric)
        if gpu is None or row.max is None or row.max <= threshold:
            continue
        series = store.series(uid, row.metric, rank=row.rank)
        found += anomalies.memory_spikes(
            series.step, np.asarray(series.value), threshold=threshold, gpu=gpu or None, metric=row.metric
        )
    return found


def _numeric(store: Store, uid: str) -> list[SeriesRow]:
    """Return the series of numbers of a run."""
    return [row for row in store.metrics(uid) if not row.is_text]


def _memory_of(metric: str) -> str | None:
    """Return which GPU a memory percentage belongs to, `""` for the machine, None when it is something else."""
    parts = metric.split("/")
    if parts[0] != "system":
        return None
    if "gpu" in parts and parts[-1] in _GPU_MEMORY:
        return parts[parts.index("gpu") + 1]
    return "" if parts[1:] == ["memory", "percent"] else None


def _records(uid: str, found: Iterable[Finding]) -> list[dict[str, Any]]:
    """Return findings with the keys of the Tracer documents."""
    records = []
    for one in found:
        details = dict(one.details)
        if one.last_step is not None:
            details["last_step"] = one.last_step
        records.append(
            {
                "run_id": uid,
                "checkpoint_id": f"{uid}_step_{one.step}",
                "step": one.step,
                "anomaly_type": one.kind,
                "severity": one.severity,
                "details": details,
            }
        )
    return records


def _finding(record: Mapping[str, Any]) -> Finding:
    """Return the finding of such a record."""
    details = dict(record["details"])
    last_step = details.pop("last_step", None)
    return Finding(record["anomaly_type"], record["severity"], record["step"], details, last_step)


__all__ = ["AnomalyDetector", "detect", "detect_gradients", "detect_losses", "detect_memory", "detect_not_finite"]
