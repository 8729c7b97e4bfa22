"""Samples of a checkpoint in a small Parquet file.

Its columns are `checkpoint_id, batch_index, inputs` (or `input_<key>`)`, targets, predictions, loss`, as far as known.
An array of any shape is kept as a flat list; its shape and type stand in the footer, so that `read_samples` gives back
what was kept and any other reader still opens the file. The file is complete before its record is written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tracer.errors import StoreError

if TYPE_CHECKING:
    import numpy as np

    Column = np.ndarray[Any, np.dtype[Any]]

_SHAPES, _TYPES = "tracer.shapes", "tracer.types"
_OWN = ("checkpoint_id", "batch_index")
#: What Parquet and DuckDB have no type for, and what it is kept as; the footer names the type to turn it back into.
_KEPT_AS = {"float16": "float32", "complex64": "float32", "complex128": "float64"}


def samples_columns(samples: Mapping[str, Any]) -> dict[str, Sequence[object]]:
    """Return the columns of a samples dictionary as the Tracer documents form it.

    Args:
        samples: `inputs` (rows, or a dictionary of rows) and, where known, `num_samples`, `indices`, `targets`,
            `predictions` and `loss_per_sample`.

    Returns:
        One sequence of rows per column, all of the same length.

    Raises:
        ValueError: Columns differ in length.

    Example:
        >>> samples_columns({"inputs": [[1.0], [2.0]], "targets": [0, 1]})
        {'batch_index': [0, 1], 'inputs': [[1.0], [2.0]], 'targets': [0, 1]}
    """
    columns: dict[str, Sequence[object]] = {}
    inputs = samples.get("inputs")
    if isinstance(inputs, Mapping):
        columns |= {f"input_{key}": _rows(value) for key, value in inputs.items()}
    elif inputs is not None:
        columns["inputs"] = _rows(inputs)
    for name, key in (("targets", "targets"), ("predictions", "predictions"), ("loss", "loss_per_sample")):
        if samples.get(key) is not None:
            columns[name] = _rows(samples[key])
    lengths = {name: len(rows) for name, rows in columns.items()}
    count = int(samples.get("num_samples", max(lengths.values(), default=0)))
    indices = samples.get("indices")
    lengths["indices"] = len(index := [int(row) for row in _rows(range(count) if indices is None else indices)])
    wrong = {name: length for name, length in lengths.items() if length != count}
    if wrong:
        message = f"The samples hold {count} rows, but {wrong!r} differ. Give every column one entry per row."
        raise ValueError(message)
    return {"batch_index": index, **columns}


def write_samples(path: str | os.PathLike[str], checkpoint_id: str, columns: Mapping[str, Sequence[object]]) -> int:
    """Write a samples file: complete, synced and then renamed into place.

    Args:
        path: Where it goes; a file that is there is replaced.
        checkpoint_id: The checkpoint the rows belong to.
        columns: One sequence of rows per column: arrays, tensors, numbers, lists or texts.

    Returns:
        How many rows were written.

    Raises:
        TypeError: A row is nothing that can be kept.
        StoreError: The disk does not take the file.

    Example:
        >>> write_samples("10-0.parquet", "run_step_10", {"inputs": [[1.0]], "targets": [0]})  # doctest: +SKIP
        1
    """
    import duckdb
    import numpy as np

    count = max((len(rows) for rows in columns.values()), default=0)
    index = columns.get("batch_index", range(count))
    table: dict[str, Column] = {
        "checkpoint_id": np.array([checkpoint_id] * count, dtype=object),
        "batch_index": np.array(index, dtype=np.int64),
    }
    shapes: dict[str, list[list[int]]] = {}
    types: dict[str, str] = {}
    for name, rows in columns.items():
        if name not in _OWN:
            table[name], shapes[name], types[name] = _column(name, rows)
    path = os.fspath(path)
    part = f"{path}.part"
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with duckdb.connect(config={"threads": 1}) as connection:
            connection.register("samples", table)
            chosen = ", ".join(_kept(name, shapes.get(name), types.get(name, "")) for name in table)
            connection.execute(
                f"COPY (SELECT {chosen} FROM samples) TO '{_quoted(part)}' "  # noqa: S608 -- names and path are quoted
                f"(FORMAT parquet, COMPRESSION zstd, "
                f"KV_METADATA {{'{_SHAPES}': ?, '{_TYPES}': ?}})",
                [json.dumps(shapes), json.dumps(types)],
            )
        _sync(part)
        os.replace(part, path)
        _sync(os.path.dirname(path) or ".")
    except (OSError, duckdb.IOException) as error:
        message = f"The samples file {path} cannot be written ({error}). Free space or mend the rights of the folder."
        raise StoreError(message) from error
    finally:
        if os.path.exists(part):
            os.unlink(part)
    return count


def read_samples(path: str | os.PathLike[str]) -> dict[str, list[Any]]:
    """Read a samples file back, every array in its shape and type.

    Args:
        path: The file.

    Returns:
        The columns; rows are NumPy arrays, numbers or texts.

    Raises:
        StoreError: The file is not there or is no samples file.

    Example:
        >>> read_samples(storage.get_checkpoints("abc")[-1]["sample_path"])["inputs"][0].shape  # doctest: +SKIP
        (3, 32, 32)
    """
    import duckdb

    path = os.fspath(path)
    try:
        with duckdb.connect(config={"threads": 1}) as connection:
            result = connection.execute("SELECT * FROM read_parquet(?)", [path])
            names = [column[0] for column in result.description or ()]
            columns = dict(zip(names, zip(*result.fetchall(), strict=True), strict=False))
            footer = dict(connection.execute("SELECT key, value FROM parquet_kv_metadata(?)", [path]).fetchall())
    except (duckdb.IOException, duckdb.InvalidInputException) as error:
        message = f"The samples file {path} cannot be read ({error})."
        raise StoreError(message) from error
    shapes = json.loads(footer.get(_SHAPES.encode(), b"{}"))
    types = json.loads(footer.get(_TYPES.encode(), b"{}"))
    return {name: _restored(columns.get(name, ()), shapes.get(name), types.get(name, "")) for name in names}


def _rows(value: object) -> Sequence[Any]:
    """Return a batch as a sequence of its rows; a tensor's rows are cut along its first dimension."""
    if hasattr(value, "detach") or hasattr(value, "__array__"):
        return list(_array(value))
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return value
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return list(value)
    message = f"Samples are given as rows: a list, an array or a tensor; got {type(value).__name__}."
    raise TypeError(message)


def _array(value: object) -> Column:
    """Return an array, whatever library it came from and wherever it lies."""
    import numpy as np

    if hasattr(value, "detach"):  # a tensor: it may need gradients and lie on a device
        tensor = value.detach().cpu()
        try:
            return np.asarray(tensor.numpy())
        except TypeError:  # bfloat16 and the like, which NumPy does not know
            return np.asarray(tensor.float().numpy())
    return np.asarray(value)


def _column(name: str, rows: Sequence[object]) -> tuple[Column, list[list[int]], str]:
    """Return one column as DuckDB takes it, the shape of each row, and the type to turn it back into."""
    import numpy as np

    if all(row is None or isinstance(row, str) for row in rows):
        return np.array([*rows, None], dtype=object)[:-1], [], "text"
    arrays = [_array(row) for row in rows]
    kind = np.result_type(*arrays)
    if kind.kind not in "biufc":
        example = next(row for row, array in zip(rows, arrays, strict=True) if array.dtype.kind not in "biufc")
        message = f"Samples keep numbers, arrays and texts; column {name!r} holds {type(example).__name__}."
        raise TypeError(message)
    shapes = [list(array.shape) for array in arrays]
    kept = np.dtype(_KEPT_AS.get(kind.name, "float64" if kind.kind == "f" and kind.itemsize > 8 else kind.name))  # noqa: PLR2004 -- bytes of a double
    if kind.kind != "c" and not any(shapes):
        return np.array(arrays).astype(kept), [], kind.name
    flat = np.empty(len(arrays), dtype=object)
    for position, array in enumerate(arrays):
        whole = np.ascontiguousarray(array, dtype=kind).ravel()
        flat[position] = whole.view(kept) if kind.kind == "c" else whole.astype(kept)
    return flat, shapes, kind.name


def _restored(column: Sequence[Any], shapes: list[list[int]] | None, kind: str) -> list[Any]:
    """Return the rows of a column as they were given."""
    import numpy as np

    if not shapes:
        scalar = np.dtype(kind).type if kind not in ("", "text") else None
        return [row if scalar is None or row is None else scalar(row).item() for row in column]
    restored = []
    for row, shape in zip(column, shapes, strict=True):
        flat = np.array(row, dtype=_KEPT_AS.get(kind, kind))
        restored.append((flat.view(kind) if kind.startswith("complex") else flat.astype(kind)).reshape(shape))
    return restored


def _kept(name: str, shapes: list[list[int]] | None, kind: str) -> str:
    """Return a column for the query that writes it: DuckDB reads NaN in an array as NULL, and this turns it back."""
    column = _name(name)
    if not kind.startswith(("float", "complex")):
        return column
    if shapes:
        return f"list_transform({column}, lambda value: coalesce(value, 'nan')) AS {column}"
    return f"coalesce({column}, 'nan') AS {column}"


def _name(text: str) -> str:
    """Return a column's name for SQL."""
    return '"' + text.replace('"', '""') + '"'


def _quoted(text: str) -> str:
    """Return text for a literal of SQL."""
    return text.replace("'", "''")


def _sync(path: str) -> None:
    """Make a file or the names in a folder survive a crash of the machine."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__ = ["read_samples", "samples_columns", "write_samples"]
