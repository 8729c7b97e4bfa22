"""What differs between two versions: files, and of files of tensors which tensors and by how much; without torch."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.storage.artifact_contents import open_regular
from tracer.storage.tensor_files import READABLE, Tensor, tensors_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tracer.storage.artifacts import Artifact

ADDED, REMOVED, CHANGED = "added", "removed", "changed"
_PIECE = 1 << 20


@dataclass(frozen=True, slots=True)
class TensorChange:
    """One tensor that is not the same in both."""

    name: str
    what: str
    before: str | None
    after: str | None
    #: The largest difference of two values; None where type or shape differ, or a value is not a number.
    largest: float | None = None
    #: How many values differ, of how many.
    differing: int | None = None
    count: int | None = None


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file that is not the same in both; `tensors` is None where nobody can look into it."""

    path: str
    what: str
    before: int | None
    after: int | None
    tensors: tuple[TensorChange, ...] | None = None
    #: Tensors that are the same in both.
    same: int = 0


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs between two versions."""

    before: Artifact
    after: Artifact
    files: tuple[FileChange, ...]
    #: Files that are the same in both.
    same: int
    #: Key → the values before and after, of metadata.
    metadata: dict[str, tuple[Any, Any]]

    @property
    def is_empty(self) -> bool:
        """Tell whether there is no difference."""
        return not self.files and not self.metadata


def difference(before: Artifact, after: Artifact) -> Difference:
    """Compare two versions of artifacts; their files are verified first.

    Args:
        before: One version.
        after: Another, of the same name or not.

    Raises:
        StoreError: A file is missing or damaged.
    """
    old, new = ({entry.path: entry for entry in one.entries} for one in (before, after))
    if before.record.form == after.record.form == "file" and old.keys() != new.keys():
        # Two single files are compared, whatever each is called.
        (only,) = old.values()
        old = {next(iter(new)): only}
    places = [{entry.path: path for entry, path in one.sources()} for one in (before, after)]
    changes: list[FileChange] = []
    for path in sorted(old.keys() | new.keys()):
        if path not in new:
            changes.append(FileChange(path, REMOVED, old[path].bytes, None))
        elif path not in old:
            changes.append(FileChange(path, ADDED, None, new[path].bytes))
        elif old[path].digest != new[path].digest or old[path].digest is None:
            tensors, same = _tensors(places[0][old[path].path], places[1][path], old[path].path, path)
            changes.append(FileChange(path, CHANGED, old[path].bytes, new[path].bytes, tensors, same))
    keys = sorted(before.metadata.keys() | after.metadata.keys())
    said = {key: (before.metadata.get(key), after.metadata.get(key)) for key in keys}
    changed = {key: pair for key, pair in said.items() if pair[0] != pair[1]}
    return Difference(before, after, tuple(changes), len(old.keys() & new.keys()) - _count(changes), changed)


def _count(changes: list[FileChange]) -> int:
    """Return how many files are in both and differ."""
    return sum(change.what == CHANGED for change in changes)


def _tensors(before: str, after: str, *names: str) -> tuple[tuple[TensorChange, ...] | None, int]:
    """Compare the tensors of two files; None where they are no files of tensors."""
    if not all(name.lower().endswith(READABLE) for name in names):
        return None, 0
    with contextlib.ExitStack() as stack:
        old, new = (
            tensors_of(stack.enter_context(open_regular(path)), name)
            for path, name in zip((before, after), names, strict=True)
        )
        changes = [change for name in sorted(old.keys() | new.keys()) for change in _compare(name, old, new)]
        return tuple(changes), len(old.keys() | new.keys()) - len(changes)


def _compare(name: str, old: dict[str, Tensor], new: dict[str, Tensor]) -> Iterator[TensorChange]:
    """Yield the change of one tensor, if there is one."""
    before, after = old.get(name), new.get(name)
    if before is None or after is None:
        what = ADDED if before is None else REMOVED
        yield TensorChange(name, what, _told(before), _told(after))
    elif before.shape != after.shape:
        yield TensorChange(name, "shape", str(before), str(after))
    elif before.dtype != after.dtype:
        yield TensorChange(name, "dtype", str(before), str(after))
    else:
        one, other = np.asarray(before.read()).reshape(-1), np.asarray(after.read()).reshape(-1)
        if one.tobytes() != other.tobytes():
            yield TensorChange(name, "values", str(before), str(after), *_apart(one, other), one.size)


def _told(tensor: Tensor | None) -> str | None:
    """Return what a tensor is, in words."""
    return None if tensor is None else str(tensor)


def _apart(one: Any, other: Any) -> tuple[float | None, int]:  # noqa: ANN401 -- arrays
    """Return the largest difference of two arrays, and how many values differ; piece by piece, for large ones."""
    largest, differing = 0.0, 0
    for at in range(0, one.size, _PIECE):
        left, right = one[at : at + _PIECE], other[at : at + _PIECE]
        differing += int(np.count_nonzero((left != right) & ~(_nan(left) & _nan(right))))
        with np.errstate(all="ignore"):
            piece = np.abs(left.astype(np.float64) - right.astype(np.float64))
        piece = piece[left != right]
        if piece.size:
            largest = max(largest, float(piece.max())) if not np.isnan(piece).any() else float("nan")
        if largest != largest:  # noqa: PLR0124 -- a value on one side is not a number
            return None, differing + int(np.count_nonzero(one[at + _PIECE :] != other[at + _PIECE :]))
    return largest, differing


def _nan(values: Any) -> Any:  # noqa: ANN401 -- an array
    """Return where values are not numbers."""
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)


__all__ = ["ADDED", "CHANGED", "REMOVED", "Difference", "FileChange", "TensorChange", "difference"]
