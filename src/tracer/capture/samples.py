"""Rows of a batch that the user chose to keep: cut to the few that matter and copied at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tracer.events import Samples

_PREFIX = {"inputs": "input", "targets": "target", "predictions": "prediction"}


def chosen_samples(
    *,
    limit: int,
    step: int,
    inputs: object = None,
    targets: object = None,
    predictions: object = None,
    loss: object = None,
    indices: object = None,
) -> Samples | None:
    """Return the rows of a batch that are kept: those with the highest loss, or the first ones when no loss is given.

    A NaN loss counts as the highest. Tensors are detached, cut on their device and copied from it: this waits for the
    device, once for each tensor given.

    Args:
        limit: How many rows are kept at most.
        step: The step they belong to.
        inputs: What went in: a tensor or array cut along its first dimension, a list of rows, or a dictionary of them.
        targets: What was expected, in the same forms.
        predictions: What came out, in the same forms.
        loss: One number per row.
        indices: One whole number per row, such as its place in the data set; the place in the batch when not given.

    Returns:
        The samples, with columns `batch_index`, `inputs` or `input_<key>`, `targets`, `predictions` and `loss`;
        None when nothing is to be kept.

    Raises:
        TypeError: Something given is no batch of rows.
        ValueError: The rows differ in number.

    Example:
        >>> samples = chosen_samples(limit=1, step=7, inputs=["a", "b"], targets=[0, 1], loss=[0.2, 3.0])
        >>> {name: [str(row) for row in rows] for name, rows in samples.columns.items()}
        {'batch_index': ['1'], 'inputs': ['b'], 'targets': ['1'], 'loss': ['3.0']}
    """
    columns = _columns({"inputs": inputs, "targets": targets, "predictions": predictions, "loss": loss})
    count = _common_length(columns if indices is None else {**columns, "indices": indices})
    if limit < 1 or not count:
        return None
    places = _places(columns.get("loss"), count, limit)
    index = places if indices is None else _picked("indices", indices, places)
    kept: dict[str, Sequence[object]] = {"batch_index": [int(place) for place in index]}
    kept.update((name, _picked(name, rows, places)) for name, rows in columns.items())
    return Samples(step, len(places), kept)


def _columns(given: Mapping[str, object]) -> dict[str, object]:
    """Return what was given by the names of its columns."""
    columns: dict[str, object] = {}
    for name, rows in given.items():
        if isinstance(rows, Mapping) and name in _PREFIX:
            columns.update((f"{_PREFIX[name]}_{key}", value) for key, value in rows.items() if value is not None)
        elif rows is not None:
            columns[name] = rows
    return columns


def _common_length(columns: Mapping[str, object]) -> int:
    """Return how many rows all columns have, or say which differ."""
    lengths = {name: _length(name, rows) for name, rows in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in lengths.items())
        message = (
            f"The samples differ in their number of rows: {told}. Give every argument one entry per row of the batch."
        )
        raise ValueError(message)
    return next(iter(lengths.values()), 0)


def _length(name: str, rows: object) -> int:
    """Return how many rows a column has."""
    shape = getattr(rows, "shape", None)
    if shape is not None:
        if len(shape):
            return int(shape[0])
        hint = " Compute it with reduction='none'." if name == "loss" else ""
        message = f"{name} is a single number; samples need one entry per row of the batch.{hint}"
        raise TypeError(message)
    if isinstance(rows, Sequence) and not isinstance(rows, (str, bytes)):
        return len(rows)
    message = f"{name} is {type(rows).__name__}; samples are given as tensors, arrays or lists, one entry per row."
    raise TypeError(message)


def _places(loss: object, count: int, limit: int) -> list[int]:
    """Return which rows are kept, the highest loss first."""
    if loss is None:
        return list(range(min(count, limit)))
    losses = np.asarray([float(row) for row in _picked("loss", loss, range(count))])
    order = np.argsort(-np.where(np.isnan(losses), np.inf, losses), kind="stable")
    return [int(place) for place in order[:limit]]


def _picked(name: str, rows: Any, places: Sequence[int]) -> list[Any]:  # noqa: ANN401 -- whatever a batch is made of
    """Return copies of some rows: text as it is, everything else as NumPy values."""
    if hasattr(rows, "index_select"):
        import torch

        rows = rows.detach()
        return list(_copied(name, rows.index_select(0, torch.tensor(places, device=rows.device))))
    if hasattr(rows, "shape"):
        return list(_copied(name, rows[np.asarray(places)]))
    return [row if isinstance(row := rows[place], str) else _copied(name, row) for place in places]


def _copied(name: str, value: Any) -> Any:  # noqa: ANN401 -- whatever a batch is made of
    """Return a copy in host memory that nobody else can change."""
    if hasattr(value, "index_select"):
        tensor = value.detach().cpu()
        try:
            return np.array(tensor.numpy())
        except TypeError:  # bfloat16 and the like, which NumPy does not know
            return np.array(tensor.float().numpy())
    if hasattr(value, "shape") and hasattr(value, "get"):  # CuPy converts only when asked
        value = value.get()
    try:
        copy = np.array(value)
    except ValueError as error:
        message = f"A row of {name} is a list of unequal lists ({error}). Pad them, or keep them as text."
        raise ValueError(message) from error
    if copy.dtype.kind not in "biufc":
        message = f"{name} holds {type(value).__name__}; samples keep numbers, arrays and texts. Convert it first."
        raise TypeError(message)
    return copy


__all__ = ["chosen_samples"]
