"""Samples files: what was kept comes back in its shape and type, and other readers open the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tracer.errors import StoreError
from tracer.storage.samples import read_samples, samples_columns, write_samples


def test_arrays_of_any_shape_and_type_come_back_as_they_were(tmp_path: Path) -> None:
    columns = {
        "inputs": [np.arange(12, dtype=np.float32).reshape(3, 2, 2), np.zeros((0, 2), dtype=np.float32)],
        "targets": [np.array([[True]]), np.array([[False, True]])],
        "predictions": [np.array([0.5, np.nan, -np.inf], dtype=np.float16), np.array([-0.0], dtype=np.float16)],
        "phase": [np.array([1 + 2j]), np.array([[3j]])],
    }

    count = write_samples(tmp_path / "it's.parquet", "run_step_1", columns)
    found = read_samples(tmp_path / "it's.parquet")

    assert count == 2
    for name, rows in columns.items():
        for kept, row in zip(found[name], rows, strict=True):
            np.testing.assert_array_equal(kept, row)
            assert (kept.dtype, kept.shape) == (row.dtype, row.shape)
    assert np.signbit(found["predictions"][1][0])


def test_numbers_and_texts_are_plain_columns_that_others_read(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")

    write_samples(
        tmp_path / "a.parquet", "r_step_5", {"inputs": ["a", None], "targets": [1, 2], "loss": [0.5, float("nan")]}
    )

    table = parquet.read_table(tmp_path / "a.parquet").to_pydict()
    assert table.pop("loss") == pytest.approx([0.5, float("nan")], nan_ok=True)
    assert table == {
        "checkpoint_id": ["r_step_5", "r_step_5"],
        "batch_index": [0, 1],
        "inputs": ["a", None],
        "targets": [1, 2],
    }
    assert np.isnan(read_samples(tmp_path / "a.parquet")["loss"][1])


def test_the_dictionary_of_the_documents_becomes_their_columns() -> None:
    samples = {
        "num_samples": 2,
        "indices": np.array([7, 3]),
        "inputs": {"ids": [[1], [2]], "mask": np.ones((2, 1))},
        "targets": [0, 1],
        "loss_per_sample": [0.1, 0.2],
    }

    columns = samples_columns(samples)

    assert list(columns) == ["batch_index", "input_ids", "input_mask", "targets", "loss"]
    assert columns["batch_index"] == [7, 3]


def test_tensors_are_taken_from_where_they_are(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    weights = torch.ones(2, 3, requires_grad=True) * 2

    columns = samples_columns({"inputs": weights, "targets": torch.tensor([1, 0], dtype=torch.bfloat16)})
    write_samples(tmp_path / "a.parquet", "r_step_1", columns)

    found = read_samples(tmp_path / "a.parquet")
    assert [row.tolist() for row in found["inputs"]] == [[2.0] * 3] * 2
    assert found["targets"] == [1.0, 0.0]


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"hold 2 rows, but \{'targets': 1\} differ"):
        samples_columns({"num_samples": 2, "inputs": [1, 2], "targets": [1]})


def test_what_is_neither_number_nor_text_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="column 'inputs' holds object"):
        write_samples(tmp_path / "a.parquet", "r_step_1", {"inputs": [object()]})

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_said_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(StoreError, match=r"file/a\.parquet cannot be written"):
        write_samples(tmp_path / "file" / "a.parquet", "r_step_1", {"inputs": [1]})


def test_a_file_that_is_no_samples_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"not Parquet at all")

    with pytest.raises(StoreError, match="cannot be read"):
        read_samples(tmp_path / "a.parquet")
    with pytest.raises(StoreError, match="cannot be read"):
        read_samples(tmp_path / "none.parquet")


def test_the_same_path_again_is_replaced(tmp_path: Path) -> None:
    for value in (1, 2):
        write_samples(tmp_path / "a.parquet", "r_step_1", {"inputs": [value]})

    assert read_samples(tmp_path / "a.parquet")["inputs"] == [2]
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]
