"""Two versions are compared: their files, and the tensors in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from keepers import begin

from tracer.errors import StoreError
from tracer.storage.artifact_diff import difference


def test_files_that_came_went_and_changed() -> None:
    with begin() as run:
        Path("d").mkdir()
        for name in ("same", "gone", "changed"):
            Path("d", name).write_text(name)
        before = run.log_artifact("d", metadata={"lr": 1})
        Path("d/gone").unlink()
        Path("d/changed").write_text("other")
        Path("d/new").write_text("new")
        after = run.log_artifact("d", metadata={"lr": 2})
        found = difference(before, after)

    assert [(one.path, one.what) for one in found.files] == [
        ("changed", "changed"), ("gone", "removed"), ("new", "added"),
    ]  # fmt: skip
    assert (found.same, found.metadata) == (1, {"lr": (1, 2)})


def test_tensors_that_differ_and_by_how_much() -> None:
    common = {"same": np.ones(3), "nan": np.array([np.nan, 1.0])}
    one = {
        **common,
        "w": np.zeros((2, 2), np.float32),
        "gone": np.ones(1),
        "t": np.zeros(2, np.int64),
        "s": np.ones(2),
    }
    other = {
        **common,
        "w": np.array([[0, 0.5], [0, -2]], np.float32),
        "new": np.ones(1),
        "t": np.zeros(2),
        "s": np.ones(3),
    }
    with begin() as run:
        before, after = (run.log_artifact(state, name="w") for state in (one, other))
        (change,) = difference(before, after).files

    assert change.tensors is not None
    assert [(t.name, t.what, t.before, t.after, t.largest, t.differing) for t in change.tensors] == [
        ("gone", "removed", "F64[1]", None, None, None),
        ("new", "added", None, "F64[1]", None, None),
        ("s", "shape", "F64[2]", "F64[3]", None, None),
        ("t", "dtype", "I64[2]", "F64[2]", None, None),
        ("w", "values", "F32[2, 2]", "F32[2, 2]", 2.0, 2),
    ]
    assert change.same == 2


def test_archives_of_numpy_are_looked_into_and_pickles_are_not() -> None:
    np.savez("a.npz", w=np.zeros(2))
    np.savez("b.npz", w=np.ones(2))
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with begin() as run:
        a, b, objects = (run.log_artifact(name) for name in ("a.npz", "b.npz", "objects.npy"))
        (change,) = difference(a, b).files

        assert change.tensors is not None
        assert [(t.name, t.largest) for t in change.tensors] == [("w", 1.0)]
        with pytest.raises(StoreError, match="cannot be read as tensors"):
            objects.arrays()
