"""`QueryEngine`: the Tracer documents' questions to a store, answered with plain dictionaries."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

from tracer import events
from tracer.config import Config

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tracer.analysis.curves import Parting
    from tracer.storage.store import Store
    from tracer.storage.values import FindingRow, RunRow

_SECOND = 1_000_000
_COUNTS = frozenset(("num_zeros", "num_nans", "num_infs"))


class QueryEngine:
    """Ask a store for summaries, comparisons and anomalies.

    Args:
        storage_path: The folder of the store; it is made if it is not there.

    Raises:
        StoreError: The folder cannot be made, or a newer Tracer wrote it.

    Example:
        >>> query = QueryEngine(storage_path="./.tracer")  # doctest: +SKIP
        >>> query.get_run_summary("abc-123")["final_metrics"]  # doctest: +SKIP
        {'loss': 0.31}
    """

    def __init__(self, storage_path: str | os.PathLike[str] = "./.tracer") -> None:
        from tracer.storage.backend import StorageBackend

        self.storage = StorageBackend(Config(project_name="query", storage_path=os.fspath(storage_path)))

    def get_run_summary(self, run_id: str) -> dict[str, Any]:
        """Return what is known of a run at a glance.

        Args:
            run_id: The id of the run, or anything that names it on the command line.

        Returns:
            `run_id project_name run_name status start_time end_time duration_seconds total_steps total_checkpoints
            final_metrics anomalies config`; times in seconds since 1970, the duration of a running run so far,
            `final_metrics` the last value of each metric, `anomalies` how many there are of each type.

        Raises:
            ValueError: There is no such run.

        Example:
            >>> query.get_run_summary("abc-123")["total_steps"]  # doctest: +SKIP
            1000
        """
        run = self._store.run(run_id)
        return {
            "run_id": run.uid,
            "project_name": run.project,
            "run_name": run.name,
            "status": run.status,
            "start_time": run.started / _SECOND,
            "end_time": None if run.ended is None else run.ended / _SECOND,
            "duration_seconds": run.duration_s,
            "total_steps": run.steps,
            "total_checkpoints": run.checkpoints,
            "final_metrics": self._final_metrics(run.uid),
            "anomalies": dict(Counter(found.kind for found in self._store.findings(run.uid))),
            "config": _config(run),
        }

    def compare_runs(self, run_id1: str, run_id2: str, metrics: Sequence[str] | None = None) -> dict[str, Any]:
        """Compare two runs.

        Args:
            run_id1: One run.
            run_id2: The other.
            metrics: Which metrics to lay beside each other; `["loss"]` when absent.

        Returns:
            `run1` and `run2` with `run_id` and `run_name`; `config_diff` with every key that differs;
            `metrics_comparison` with both series and their last values; `divergence_analysis`, which is None or says
            where the curves part beyond their noise: `step`, `loss_run1`, `loss_run2`, `relative_diff`, `metric`.

        Raises:
            ValueError: There is no such run.

        Example:
            >>> query.compare_runs("run1", "run2", metrics=["loss"])["config_diff"]  # doctest: +SKIP
            {'lr': {'run1': 0.1, 'run2': 0.2}}
        """
        runs = [self._store.run(run_id) for run_id in (run_id1, run_id2)]
        first, second = runs
        chosen = ["loss"] if metrics is None else [metrics] if isinstance(metrics, str) else list(metrics)
        compared = {}
        for metric in chosen:
            one, other = (self.storage.get_metric_timeseries(run.uid, metric) for run in runs)
            compared[metric] = {
                "run1": one,
                "run2": other,
                "final_value_run1": one["values"][-1] if one["values"] else None,
                "final_value_run2": other["values"][-1] if other["values"] else None,
            }
        return {
            "run1": {"run_id": first.uid, "run_name": first.name},
            "run2": {"run_id": second.uid, "run_name": second.name},
            "config_diff": _config_diff(_config(first), _config(second)),
            "metrics_comparison": compared,
            "divergence_analysis": self._divergence(first, second, chosen),
        }

    def find_anomalous_checkpoints(
        self, run_id: str, anomaly_types: Sequence[str] | None = None
    ) -> list[dict[str, Any]]:
        """Return the anomalies that were found in a run, by step.

        Args:
            run_id: The run.
            anomaly_types: Only these types, such as `gradient_explosion` or `nan_or_inf`.

        Returns:
            `id run_id checkpoint_id step anomaly_type severity details detected_at`; `details` is JSON text.

        Raises:
            ValueError: There is no such run.

        Example:
            >>> query.find_anomalous_checkpoints("run1", anomaly_types=["nan_or_inf"])  # doctest: +SKIP
            []
        """
        run = self._store.run(run_id)
        found = self._store.findings(run.uid, list(anomaly_types) if anomaly_types else None)
        return [_anomaly(row) for row in sorted(found, key=lambda row: (row.step, row.kind))]

    def get_gradient_stats(
        self,
        run_id: str,
        layer: str | Sequence[str] | None = None,
        statistic: str | Sequence[str] | None = None,
        steps: int | tuple[int | None, int | None] | None = None,
        *,
        axis: str = "gradients",
        rank: int = 0,
    ) -> dict[str, dict[str, list[Any]]]:
        """Return the statistics of layers, step by step.

        Args:
            run_id: The run.
            layer: Only this layer, or these; all when absent.
            statistic: Only this statistic, or these: `norm mean std max min num_zeros num_nans num_infs`, or another
                that was recorded; all when absent.
            steps: Only this step, or from the first of two up to, not including, the second; either may be None.
            axis: What was measured: `gradients`, `weights`, `updates`, `optimizer` or `activations`.
            rank: Whose values, in a run of several processes.

        Returns:
            Layer → `steps` and a list of the same length for each statistic. Where a statistic was not taken at a step
            at which another was, it is NaN.

        Raises:
            ValueError: There is no such run, layer or statistic.

        Example:
            >>> query.get_gradient_stats("abc-123", "fc1.weight", "norm", steps=(0, 2))  # doctest: +SKIP
            {'fc1.weight': {'steps': [0, 1], 'norm': [0.25, 0.5]}}
        """
        import numpy as np

        run = self._store.run(run_id)
        known = next((one for one in self._store.layer_axes(run.uid) if one.axis == axis), None)
        if known is None:
            return {}
        names = _documented(known.statistics)
        layers = _chosen("layer", layer, known.layers)
        wanted = _chosen("statistic", statistic, tuple(names))
        start, stop = (steps, steps + 1) if isinstance(steps, int) else steps or (None, None)
        matrices = {
            name: self._store.layers(run.uid, names[name], axis=axis, layers=layers, rank=rank, start=start, stop=stop)
            for name in wanted
        }
        found: dict[str, dict[str, list[Any]]] = {}
        every = np.unique(np.concatenate([matrix.steps for matrix in matrices.values()]))
        tables = np.full((len(matrices), len(layers), len(every)), np.nan)
        for table, matrix in zip(tables, matrices.values(), strict=True):
            table[:, np.searchsorted(every, matrix.steps)] = matrix.values.T
        there = [np.isin(every, matrix.steps) for matrix in matrices.values()]
        for row, name in enumerate(layers):
            columns = tables[:, row]
            # Where all of a layer is NaN it was not measured, unless the statistics are but one, which may be NaN.
            kept = ~np.isnan(columns).all(axis=0) if len(columns) > 1 else there[0]
            found[name] = {"steps": every[kept].tolist()}
            for statistic_name, values in zip(wanted, columns, strict=True):
                found[name][statistic_name] = _plain(statistic_name, values[kept])
        return found

    def close(self) -> None:
        """Let go of the store."""
        self.storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def _store(self) -> Store:
        """The store underneath."""
        return self.storage.store

    def _final_metrics(self, uid: str) -> dict[str, object]:
        """Return the last value of each metric; of several ranks that of the lowest."""
        final: dict[str, object] = {}
        for row in sorted(self._store.metrics(uid), key=lambda row: (row.metric, row.rank)):
            if row.metric.startswith(events.BESIDE):
                continue  # what the machine did is no result of the run
            value: object = row.last
            if row.is_text:
                texts = self._store.texts(uid, row.metric)
                value = texts[-1][2] if texts else None
            final.setdefault(row.metric, value)
        return final

    def _divergence(self, first: RunRow, second: RunRow, metrics: Sequence[str]) -> dict[str, Any] | None:
        """Return where the curves part, of the loss if both have one, else of the first metric that both have."""
        from tracer.analysis import curves

        known = [{row.metric for row in self._store.metrics(run.uid) if not row.is_text} for run in (first, second)]
        wanted = [*metrics, "loss"] if "loss" not in metrics else ["loss", *metrics]
        metric = next((name for name in wanted if all(name in names for names in known)), None)
        if metric is None:
            return None
        one, other = (self._store.series(run.uid, metric) for run in (first, second))
        found = curves.parting(curves.align(one.step, one.value, other.step, other.value))
        return None if found is None else _divergence(found, metric)


def _documented(statistics: Sequence[str]) -> dict[str, str]:
    """Return statistics by the name that the Tracer documents have for them, where they have one."""
    names = dict(zip(events.TENSOR_STATISTICS, events.DOCUMENTED_STATISTICS, strict=True))
    return {names.get(one, one): one for one in statistics}


def _chosen(kind: str, wanted: str | Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """Return what was asked for, or all; what nobody recorded is an error that says what was."""
    if wanted is None:
        return list(known)
    chosen = [wanted] if isinstance(wanted, str) else list(wanted)
    missing = [one for one in chosen if one not in known]
    if missing:
        some = ", ".join(known[:8]) + (", …" if len(known) > 8 else "")  # noqa: PLR2004 -- as many as fit a line
        message = f"There is no {kind} {missing[0]!r}. There are: {some}."
        raise ValueError(message)
    return chosen


def _plain(name: str, values: npt.NDArray[np.float64]) -> list[Any]:
    """Return values as Python's own: counts as whole numbers."""
    plain: list[Any] = values.tolist()
    return [one if math.isnan(one) else int(one) for one in plain] if name in _COUNTS else plain


def _config(run: RunRow) -> dict[str, Any]:
    """Return settings and hyperparameters in one dictionary, as the Tracer documents have them."""
    return {**run.settings, **run.config}


def _config_diff(first: dict[str, Any], second: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every key that differs."""
    keys = sorted({*first, *second})
    return {key: {"run1": first.get(key), "run2": second.get(key)} for key in keys if first.get(key) != second.get(key)}


def _divergence(found: Parting, metric: str) -> dict[str, Any]:
    """Return a parting with the keys of the Tracer documents."""
    size = abs(found.left) or abs(found.right)
    return {
        "step": found.step,
        "loss_run1": found.left,
        "loss_run2": found.right,
        "relative_diff": abs(found.right - found.left) / size if size else 0.0,
        "metric": metric,
    }


def _anomaly(row: FindingRow) -> dict[str, Any]:
    """Return a finding with the keys of the Tracer documents."""
    return {
        "id": row.id,
        "run_id": row.run,
        "checkpoint_id": f"{row.run}_step_{row.step}",
        "step": row.step,
        "anomaly_type": row.kind,
        "severity": row.severity,
        "details": json.dumps(dict(row.details)),
        "detected_at": row.detected / _SECOND,
    }


__all__ = ["QueryEngine"]
