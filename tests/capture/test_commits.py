"""The moments around an optimizer's step, with a closure and without."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from tracer.capture import commits

pytestmark = pytest.mark.torch


class Plain:
    """Takes what every listener is told."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def before_commit(self, optimizer: Optimizer, *, closure: bool) -> None:  # noqa: ARG002 -- the listener's signature
        """Take it."""
        self.seen.append(f"before{' with closure' * closure}")

    def after_commit(self, optimizer: Optimizer, *, closure: bool) -> None:  # noqa: ARG002 -- the listener's signature
        """Take it."""
        self.seen.append(f"after{' with closure' * closure}")


class Inside(Plain):
    """Wants to look into closures too."""

    def after_closure(self, optimizer: Optimizer) -> None:  # noqa: ARG002 -- as above
        """Take it."""
        self.seen.append("closure")


@pytest.fixture
def listening() -> Iterator[Callable[[Plain], Plain]]:
    ends = []

    def listen(listener: Plain) -> Plain:
        ends.append(commits.listen(listener))
        return listener

    yield listen
    for end in ends:
        end()


def closure_of(model: nn.Module) -> Callable[[], torch.Tensor]:
    def closure() -> torch.Tensor:
        model.zero_grad()
        loss = model(torch.ones(4, 2)).square().sum()
        loss.backward()
        return loss

    return closure


def test_a_step_is_told_before_and_after(listening: Callable[[Plain], Plain]) -> None:
    model, told = nn.Linear(2, 1), listening(Inside())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    optimizer.step()

    assert told.seen == ["before", "after"]


@pytest.mark.parametrize("by_name", [False, True])
def test_a_closure_is_looked_into_and_returns_what_it_returned(
    listening: Callable[[Plain], Plain], *, by_name: bool
) -> None:
    model, told = nn.Linear(2, 1), listening(Inside())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    closure = closure_of(model)

    loss = optimizer.step(closure=closure) if by_name else optimizer.step(closure)

    assert told.seen == ["before with closure", "closure", "after with closure"]
    assert loss == closure()


def test_each_call_of_a_closure_is_told(listening: Callable[[Plain], Plain]) -> None:
    model, told = nn.Linear(2, 1), listening(Inside())

    torch.optim.LBFGS(model.parameters(), max_iter=2).step(closure_of(model))

    assert told.seen.count("closure") > 1


def test_a_closure_is_left_alone_while_nobody_wants_to_look_inside(listening: Callable[[Plain], Plain]) -> None:
    model, told = nn.Linear(2, 1), listening(Plain())
    seen = []

    def closure() -> float:
        seen.append(torch.is_grad_enabled())
        return 1.0

    assert torch.optim.SGD(model.parameters(), lr=0.1).step(closure) == 1.0
    assert (told.seen, seen) == (["before with closure", "after with closure"], [True])


def test_who_has_ended_is_told_nothing() -> None:
    told = Plain()
    end = commits.listen(told)
    end()
    end()

    torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1).step()

    assert told.seen == []
