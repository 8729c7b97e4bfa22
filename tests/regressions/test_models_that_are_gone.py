"""What is watched may go before the run does; the rest of the program must not notice."""

from __future__ import annotations

import gc

import pytest

import tracer


def test_a_watched_model_that_is_gone_does_not_stop_another_from_training() -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    from torch.optim.optimizer import register_optimizer_step_pre_hook

    run = tracer.init(project="test", checkpoint_interval=1)
    gone = torch.nn.Linear(2, 1)
    run.watch(gone)
    del gone
    run.model = None
    gc.collect()
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    later = register_optimizer_step_pre_hook(lambda *_: seen.append("later"))

    for _ in range(2):
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        tracer.step()
    later.remove()

    assert seen == ["later", "later"]
