"""`AnomalyDetector`: a run of the store is searched with all rules; what they find is put together, explained, kept.

The methods with thresholds are those of the Tracer documents, and judge by these thresholds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tracer.analysis import causes, finiteness, gradients, groups, kinds, losses, memory, rules, similarity, subjects
from tracer.analysis import windows as window_names
from tracer.analysis.readings import Readings
from tracer.events import Finding

if TYPE_CHECKING:
    from tracer.storage.backend import StorageBackend
    from tracer.storage.store import Store

#: Of so many episodes the causes are looked for in the records; a run with more of them needs no reason for each.
_EXPLAINED = 60
#: A course is judged by the training loss; the validation loss is compared with it.
_COURSE = (kinds.LOSS_DIVERGENCE, kinds.LOSS_PLATEAU)


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
        """Return what every rule finds, as episodes by step.

        Args:
            run_id: The run.

        Returns:
            Records `run_id checkpoint_id step anomaly_type severity details`; `details` says what was seen, with
            `last_step` up to where, `layers` and `count` of what was put together, and `explanation`, `remedy` and
            `cause` in words.

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
        return sum(keep(self._store, self._uid(run_id), found) for run_id, found in by_run.items())

    @property
    def _store(self) -> Store:
        """The store underneath."""
        return self.storage.store

    def _uid(self, run_id: str) -> str:
        """Return the id of a run, or say that there is none."""
        return self._store.run(run_id).uid


def detect(store: Store, uid: str, wanted: Iterable[str] | None = None) -> list[Finding]:
    """Return what the rules find in a run, as explained episodes, by step.

    Args:
        store: The store.
        uid: The run.
        wanted: Only these kinds; all when None.
    """
    readings = Readings(store, uid)
    chosen = None if wanted is None else frozenset(wanted)
    found = groups.episodes(_in_metrics(readings, chosen), readings.stride)
    in_layers, stride = _in_layers(readings, chosen)
    found = groups.with_spread([*found, *in_layers], max(stride, readings.stride))
    if chosen is None or kinds.SIMILAR_ACROSS_RUNS in chosen:
        found += similarity.similar_runs(store, uid)
    found.sort(key=lambda one: (one.step, one.kind))
    explained = []
    for place, one in enumerate(found):
        explained += causes.explained([one], readings.around(one.step) if place < _EXPLAINED else (), among=found)
    return explained


def keep(store: Store, uid: str, found: Sequence[Finding]) -> int:
    """Store findings that are not known yet, and return how many there were; see `groups.unknown`."""
    fresh = groups.unknown(found, store.findings(uid), Readings(store, uid).stride)
    return store.add_findings(uid, fresh) if fresh else 0


def _in_metrics(readings: Readings, wanted: frozenset[str] | None) -> list[Finding]:
    """Return what the rules find in everything that is one value per step."""
    found: list[Finding] = []
    for window in readings.metrics():
        here = rules.findings_in(window, wanted)
        if subjects.is_validation(window.name):
            here = [one for one in here if one.kind not in _COURSE]
        found += _of_rank(here, window.rank)
    overfitted = {one.details.get("metric") for one in found if one.kind == kinds.OVERFITTING}
    return [one for one in found if one.kind != kinds.OVERTRAINING or one.details.get("metric") not in overfitted]


def _in_layers(readings: Readings, wanted: frozenset[str] | None) -> tuple[list[Finding], float]:
    """Return the episodes that the rules find in the layers, each axis with its own stride, and the largest stride."""
    found: dict[str, list[Finding]] = {}
    strides: dict[str, float] = {}
    for window, is_first in readings.layers():
        here = rules.findings_in(window, wanted, live=not is_first)
        found.setdefault(window.name, []).extend(here)
        strides[window.name] = (int(window.steps[-1]) - int(window.steps[0])) / max(len(window) - 1, 1) or 1.0
    each = [one for axis, here in found.items() for one in groups.episodes(here, strides[axis])]
    largest = max(strides.values(), default=1.0)
    return groups.episodes(each, largest), largest


def _of_rank(found: list[Finding], rank: int) -> list[Finding]:
    """Return findings that name the rank they come from, where it is not the first."""
    if not rank:
        return found
    return [
        Finding(one.kind, one.severity, one.step, {**one.details, "rank": one.details.get("rank", rank)}, one.last_step)
        for one in found
    ]


def detect_gradients(
    store: Store, uid: str, explosion_threshold: float = 100.0, vanishing_threshold: float = 1e-7
) -> list[Finding]:
    """Return exploding and vanishing gradients by thresholds, and explosions of norms logged as metrics."""
    readings = Readings(store, uid)
    found: list[Finding] = []
    if store.layer_names(uid, window_names.GRADIENTS):
        norms = readings.layer_window(window_names.GRADIENTS, ("norm",), None, None)
        found += gradients.gradient_anomalies(
            norms.steps,
            norms.layers,
            norms.tables["norm"],
            explosion_threshold=explosion_threshold,
            vanishing_threshold=vanishing_threshold,
        )
    for window in readings.metrics():
        if window.subject == window_names.NORM:
            found += gradients.logged_norm_explosions(window, explosion_threshold=explosion_threshold)
    return found


def detect_losses(store: Store, uid: str, window_size: int = 10) -> list[Finding]:
    """Return spikes and drops of all metrics whose name is that of a loss."""
    return [
        found
        for window in Readings(store, uid).metrics()
        if window.subject == window_names.LOSS
        for found in losses.departures(window, window_size=window_size)
    ]


def detect_not_finite(store: Store, uid: str) -> list[Finding]:
    """Return NaN and infinities of any metric and of the layers' gradients."""
    readings = Readings(store, uid)
    found: list[Finding] = []
    for window in readings.metrics():
        if window.subject == window_names.METRIC:
            found += finiteness.nan_or_inf(window.steps, window.values, metric=window.name)
    for window, _ in readings.layers():
        if window.subject == window_names.GRADIENTS and window.has("nans", "infs"):
            found += finiteness.layers_not_finite(window)
    return found


def detect_memory(store: Store, uid: str, threshold: float = 90.0) -> list[Finding]:
    """Return where memory was nearly full, from the system figures that the run recorded."""
    return [
        found
        for window in Readings(store, uid).metrics()
        if window.subject == window_names.MEMORY
        for found in memory.spikes(window, threshold=threshold)
    ]


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


__all__ = ["AnomalyDetector", "detect", "keep"]
