"""Clipping is noticed in both places, changes nothing, and is put back."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad

from tracer.capture import clipping
from tracer.capture.clipping import Clipped

pytestmark = pytest.mark.torch

ORIGINALS = (clip_grad.clip_grad_norm_, clip_grad.clip_grad_value_)


class Notes:
    """Takes what it is told."""

    def __init__(self) -> None:
        self.clips: list[Clipped] = []

    def clipped(self, clip: Clipped) -> None:
        """Take it."""
        self.clips.append(clip)


@pytest.fixture
def notes() -> Iterator[Notes]:
    found = Notes()
    end = clipping.listen(found)
    yield found
    end()
    assert (nn.utils.clip_grad_norm_, nn.utils.clip_grad_value_) == ORIGINALS
    assert (clip_grad.clip_grad_norm_, clip_grad.clip_grad_value_) == ORIGINALS


def graded() -> nn.Linear:
    model = nn.Linear(2, 1)
    model(torch.ones(4, 2)).sum().backward()
    return model


@pytest.mark.parametrize("place", [nn.utils, clip_grad])
def test_a_clipping_by_norm_is_noticed_with_its_result(notes: Notes, place: object) -> None:
    model, plain = graded(), graded()

    total = place.clip_grad_norm_(model.parameters(), 1.0)  # type: ignore[attr-defined]  # one of the two modules
    wanted = ORIGINALS[0](plain.parameters(), 1.0)

    [clip] = notes.clips
    assert (clip.kind, clip.limit, clip.norm_type, clip.waits) == ("norm", 1.0, 2.0, False)
    assert [id(one) for one in clip.parameters] == [id(one) for one in model.parameters()]
    assert total == wanted
    assert clip.total_norm == wanted
    assert model.bias.grad is not None
    assert torch.equal(model.bias.grad, plain.bias.grad)


def test_a_clipping_by_value_is_noticed(notes: Notes) -> None:
    model = graded()

    nn.utils.clip_grad_value_(model.parameters(), 0.5)

    [clip] = notes.clips
    assert (clip.kind, clip.limit, clip.total_norm) == ("value", 0.5, None)
    assert model.bias.grad == 0.5


def test_a_single_tensor_and_all_arguments_go_through(notes: Notes) -> None:
    model = graded()

    nn.utils.clip_grad_norm_(model.bias, max_norm=1, norm_type=1, error_if_nonfinite=True, foreach=False)

    [clip] = notes.clips
    assert (clip.norm_type, clip.waits, len(clip.parameters)) == (1.0, True, 1)


def test_torchs_own_warning_and_error_come_through(notes: Notes) -> None:
    model = graded()
    assert model.bias.grad is not None
    model.bias.grad.fill_(float("nan"))

    with pytest.raises(RuntimeError, match="non-finite"):
        nn.utils.clip_grad_norm_(model.parameters(), 1.0, error_if_nonfinite=True)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        nn.utils.clip_grad_norm_((one for one in ()), 1.0)

    assert ["empty generator" in str(one.message) for one in seen] == [True]
    assert [len(clip.parameters) for clip in notes.clips] == [0]


def test_the_last_listener_puts_torchs_functions_back() -> None:
    ends = [clipping.listen(Notes()), clipping.listen(Notes())]
    patched = nn.utils.clip_grad_norm_
    ends[0]()

    assert nn.utils.clip_grad_norm_ is patched
    ends[1]()
    ends[1]()
    assert nn.utils.clip_grad_norm_ is ORIGINALS[0]
    assert patched(graded().parameters(), 1.0) > 1  # whoever kept ours goes on as without it


def test_who_wraps_ours_stays_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    end = clipping.listen(Notes())
    ours = nn.utils.clip_grad_norm_

    def theirs(*arguments: object) -> object:
        return ours(*arguments)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", theirs)
    end()

    assert nn.utils.clip_grad_norm_ is theirs
    assert clip_grad.clip_grad_norm_ is ORIGINALS[0]
    monkeypatch.undo()
    nn.utils.clip_grad_norm_ = ORIGINALS[0]
