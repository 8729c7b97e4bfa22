"""Tensors in events, read as TensorBoard's own code and torch would."""

# ruff: noqa: ANN401 -- the packages decide what they hand over, and of what type

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tracer import events
from tracer.capture.tensorboard_tensors import array
from tracer.testing import capture_events

TYPES = [
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.uint8, torch.int16, torch.int32,
    torch.int64, torch.bool, torch.complex64, torch.complex128,
]  # fmt: skip


@pytest.fixture
def heard() -> Any:
    """Listen to torch's writer."""
    import torch.utils.tensorboard  # noqa: F401

    from tracer.capture.patching import patches

    patches.start(["tensorboard"])
    with capture_events() as found:
        yield found
    patches.stop()


@pytest.mark.parametrize("kind", TYPES, ids=str)
def test_a_tensor_of_any_type_comes_back_as_it_was(heard: list[Any], tmp_path: Path, kind: torch.dtype) -> None:
    from torch.utils.tensorboard import SummaryWriter

    tensor = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(kind)
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_tensor("weights", tensor, 1)

    (found,) = [event for event in heard if isinstance(event, events.Media)]
    read = np.load(io.BytesIO(found.data or b""))
    expected = tensor.float() if kind == torch.bfloat16 else tensor
    assert (found.kind, found.suffix, found.fields["shape"]) == ("tensor", ".npy", [2, 3])
    assert read.dtype == expected.numpy().dtype
    assert np.array_equal(read, expected.numpy())


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i1", "u1", "i2", "u2", "i4", "i8", "?", "c8", "c16"])
def test_a_tensor_is_read_as_tensorboard_reads_it(kind: str) -> None:
    from tensorboard.util.tensor_util import make_ndarray, make_tensor_proto

    values = np.arange(6).reshape(2, 3).astype(kind)
    made = make_tensor_proto(values)

    assert np.array_equal(array(made), make_ndarray(made))
    assert np.array_equal(array(made), values)


def test_a_tensor_as_bytes_is_read() -> None:
    from tensorboard.compat.proto.tensor_pb2 import TensorProto

    values = np.arange(6, dtype="<f4").reshape(2, 3)
    made = TensorProto(dtype="DT_FLOAT", tensor_content=values.tobytes())
    for size in values.shape:
        made.tensor_shape.dim.add(size=size)

    assert np.array_equal(array(made), values)


def test_a_value_that_stands_for_many_is_repeated() -> None:
    from tensorboard.compat.proto.tensor_pb2 import TensorProto

    made = TensorProto(dtype="DT_FLOAT", float_val=[7.0])
    made.tensor_shape.dim.add(size=3)

    assert array(made).tolist() == [7.0, 7.0, 7.0]


def test_a_type_that_numpy_does_not_know_is_kept_as_the_message_it_came_in(heard: list[Any], tmp_path: Path) -> None:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.compat.proto.tensor_pb2 import TensorProto
    from torch.utils.tensorboard import SummaryWriter

    made = TensorProto(dtype="DT_QINT8", int_val=[1, 2])
    with SummaryWriter(str(tmp_path)) as writer:
        writer.file_writer.add_summary(Summary(value=[Summary.Value(tag="odd", tensor=made)]), 1)

    (found,) = [event for event in heard if isinstance(event, events.Media)]
    assert (found.kind, found.suffix, found.fields["content"]) == ("tensor", ".pb", "TensorProto")
    assert TensorProto.FromString(found.data or b"") == made
