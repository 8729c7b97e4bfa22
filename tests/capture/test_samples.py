"""Which rows of a batch are kept, and in what form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tracer.capture.samples import chosen_samples
from tracer.events import Samples


def kept(samples: Samples | None) -> dict[str, list[object]]:
    """Return the columns as plain lists."""
    assert samples is not None
    return {
        name: [row.tolist() if isinstance(row, (np.ndarray, np.generic)) else row for row in rows]
        for name, rows in samples.columns.items()
    }


def test_the_rows_with_the_highest_loss_are_kept() -> None:
    samples = chosen_samples(
        limit=2,
        step=7,
        inputs=torch.arange(8.0).reshape(4, 2),
        targets=np.array([0, 1, 2, 3]),
        predictions=["a", "b", "c", "d"],
        loss=torch.tensor([0.1, 3.0, 0.2, 2.0], requires_grad=True),
    )

    assert samples is not None
    assert (samples.step, samples.count) == (7, 2)
    assert kept(samples) == {
        "batch_index": [1, 3],
        "inputs": [[2.0, 3.0], [6.0, 7.0]],
        "targets": [1, 3],
        "predictions": ["b", "d"],
        "loss": [3.0, 2.0],
    }


def test_a_nan_loss_is_the_highest() -> None:
    assert kept(chosen_samples(limit=2, step=0, loss=[1.0, float("inf"), float("nan")]))["batch_index"] == [1, 2]


def test_without_a_loss_the_first_rows_are_kept() -> None:
    assert kept(chosen_samples(limit=2, step=0, inputs=[[1], [2], [3]])) == {
        "batch_index": [0, 1],
        "inputs": [[1], [2]],
    }


def test_indices_name_the_rows_by_their_place_in_the_data_set() -> None:
    samples = chosen_samples(limit=1, step=0, targets=[5, 6], loss=[0.0, 1.0], indices=torch.tensor([100, 200]))

    assert kept(samples)["batch_index"] == [200]


def test_a_dictionary_becomes_a_column_per_key() -> None:
    batch = {"input_ids": torch.tensor([[1, 2], [3, 4]]), "attention_mask": [[1, 1], [1, 0]], "labels": None}

    assert kept(chosen_samples(limit=1, step=0, inputs=batch, targets={"x": [7, 8]})) == {
        "batch_index": [0],
        "input_input_ids": [[1, 2]],
        "input_attention_mask": [[1, 1]],
        "target_x": [7],
    }


def test_what_is_kept_does_not_change_with_the_batch() -> None:
    tensor, array = torch.ones(2, 2), np.ones((2, 2))
    samples = chosen_samples(limit=5, step=0, inputs=tensor, targets=array)
    tensor.zero_()
    array[:] = 0

    assert kept(samples)["inputs"] == kept(samples)["targets"] == [[1.0, 1.0], [1.0, 1.0]]


def test_bfloat16_is_kept_as_single_precision() -> None:
    samples = chosen_samples(limit=1, step=0, inputs=torch.tensor([[1.5]], dtype=torch.bfloat16))

    assert samples is not None
    assert samples.columns["inputs"][0].dtype == np.float32  # type: ignore[attr-defined]


@pytest.mark.parametrize("limit", [0, 5])
def test_nothing_to_keep_is_none(limit: int) -> None:
    assert chosen_samples(limit=limit, step=0, inputs=[] if limit else [1.0]) is None


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            {"inputs": [1, 2], "targets": [1]},
            ValueError,
            "The samples differ in their number of rows: inputs 2, targets 1. Give every argument one entry per row",
        ),
        ({"inputs": [1, 2], "indices": [1]}, ValueError, "inputs 2, indices 1"),
        ({"loss": torch.tensor(1.0)}, TypeError, "loss is a single number; .* Compute it with reduction='none'"),
        ({"inputs": "text"}, TypeError, "inputs is str; samples are given as tensors, arrays or lists"),
        ({"inputs": [object()]}, TypeError, "inputs holds object; samples keep numbers, arrays and texts"),
        ({"inputs": [[[1], [1, 2]]]}, ValueError, "A row of inputs is a list of unequal lists"),
    ],
)
def test_what_cannot_be_kept_is_refused(given: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        chosen_samples(limit=5, step=0, **given)  # type: ignore[arg-type]
