"""Rows that were planted are found, and clean data give nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from tracer.analysis.rows import RowLosses, attribution, standing_out
from tracer.capture.rows import Batch, Rows


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Keep these tiny matrices on one thread: handing them over costs more than they do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def batch(step: int, ids: list[int], loss: list[float] | None) -> Batch:
    return Batch(step, float(step), np.array(ids), None if loss is None else np.array(loss))


def trained(labels: dict[int, int], *, seed: int = 0, poisoned: int | None = None) -> list[Rows]:
    """Train a classifier on five clear clusters, with some labels wrong, and return the rows of every batch."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(5, 10, generator=generator) * 2
    targets = torch.randint(0, 5, (1000,), generator=generator)
    inputs = centres[targets] + torch.randn(1000, 10, generator=generator) * 0.5
    for row, shift in labels.items():
        targets[row] = (targets[row] + shift) % 5
    if poisoned is not None:
        inputs[poisoned] = math.nan
    model = torch.nn.Sequential(torch.nn.Linear(10, 32), torch.nn.ReLU(), torch.nn.Linear(32, 5))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    batches = []
    for step in range(200):
        if step % 20 == 0:
            order = torch.randperm(1000, generator=generator)
        rows = order[step % 20 * 50 : step % 20 * 50 + 50]
        loss = torch.nn.functional.cross_entropy(model(inputs[rows]), targets[rows], reduction="none")
        batches.append(Rows(rows, loss, step))
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    return batches


def found_in(batches: list[Rows], per_look: int = 20) -> list[object]:
    """Return the rows of the last finding, looked for as a live run does."""
    view, rows = RowLosses(), []
    for at in range(0, len(batches), per_look):
        view.add([one.arrived() for one in batches[at : at + per_look]])
        finding = view.finding()
        if finding is not None:
            listed = finding.details["rows"]
            assert isinstance(listed, list)
            rows = [one["row"] for one in listed]
    return rows


@pytest.mark.parametrize("seed", range(4))
def test_clean_data_give_nothing(seed: int) -> None:
    assert found_in(trained({}, seed=seed)) == []


@pytest.mark.parametrize("seed", range(3))
def test_wrong_labels_are_found(seed: int) -> None:
    assert sorted(map(int, map(str, found_in(trained({5: 1, 77: 2, 900: 3}, seed=seed))))) == [5, 77, 900]


def test_a_row_that_holds_nan_is_named_and_not_those_it_spoiled() -> None:
    assert found_in(trained({}, poisoned=500)) == [500]


def test_a_huge_row_that_comes_once_is_found_in_a_single_pass() -> None:
    rng, view = np.random.default_rng(0), RowLosses()
    view.add([Batch(step, 0.0, np.arange(32) + 32 * step, rng.lognormal(0, 0.7, 32)) for step in range(20)])
    calm = view.finding()
    losses = rng.lognormal(0, 0.7, 32)
    losses[3] = 5000.0
    view.add([Batch(20, 0.0, np.arange(32) + 640, losses)])
    finding = view.finding()

    assert calm is None
    assert finding is not None
    assert (finding.kind, finding.severity, finding.step) == ("bad_rows", "high", 20)
    [row] = finding.details["rows"]  # type: ignore[misc]
    assert row == {"row": 643, "loss": 5000.0, "share": pytest.approx(0.99, abs=0.01), "steps": [20], "times": 1}
    assert view.finding() is None


@pytest.mark.parametrize("spread", [0.3, 1.0, 1.8])
def test_heavy_tails_are_no_bad_rows(spread: float) -> None:
    rng, view = np.random.default_rng(3), RowLosses()
    for first in range(0, 600, 20):
        steps = range(first, first + 20)
        view.add([Batch(step, 0.0, rng.permutation(2000)[:64], rng.lognormal(0, spread, 64)) for step in steps])

    assert view.finding() is None


def test_losses_that_come_after_their_rows_belong_to_them_also_across_looks() -> None:
    view = RowLosses()
    view.add([batch(3, [7, 8, 9, 10], None)])
    view.add([Batch(4, 4.0, None, np.array([0.1, 9.0, 0.1, 0.1]))])

    assert view.of_spike(4, None)["rows"] == [{"row": 8, "loss": 9.0, "share": 0.9677, "steps": []}]


def test_a_program_that_counts_steps_itself_finds_its_batch_by_time() -> None:
    view = RowLosses()
    view.add([Batch(0, time, np.array([row]), None) for row, time in ((1, 10.0), (2, 20.0), (3, 30.0))])

    assert view.of_spike(500, 25.0) == {"rows": [{"row": 2, "steps": [500]}]}


def test_micro_batches_of_a_step_are_one_batch() -> None:
    view = RowLosses()
    view.add([batch(3, [1, 2, 3, 4], [0.1] * 4), batch(3, [5, 6, 7, 8], [0.1, 50.0, 0.1, 0.1])])

    assert [row["row"] for row in view.of_spike(3, None)["rows"]] == [6]  # type: ignore[attr-defined]


def test_a_load_that_is_spread_names_nobody() -> None:
    assert attribution(np.arange(32), np.linspace(1, 2, 32)) == []


def test_a_batch_that_is_bad_as_a_whole_names_nobody() -> None:
    assert attribution(np.arange(8), np.full(8, math.nan)) == []


def test_a_loss_that_is_no_number_carries_everything() -> None:
    [row] = attribution(np.arange(8), np.array([1.0] * 7 + [math.inf]))

    assert (row["row"], row["loss"], row["share"]) == (7, math.inf, 1.0)


def test_rows_may_have_names() -> None:
    rng, view = np.random.default_rng(0), RowLosses()
    names = [f"img_{at:03}.png" for at in range(100)]
    losses = rng.lognormal(0, 0.5, 100)
    losses[42] = 5000.0
    view.add([Rows(names, losses, 1).arrived()])
    finding = view.finding()

    assert finding is not None
    assert finding.details["rows"][0]["row"] == "img_042.png"  # type: ignore[index]


def test_memory_is_bounded() -> None:
    rng, view = np.random.default_rng(0), RowLosses()
    for step in range(40):
        losses = rng.lognormal(0, 0.3, 4096)
        losses[rng.random(4096) < 0.02] = 1e6
        view.add([Batch(step, 0.0, rng.integers(0, 10**9, 4096), losses)])

    assert len(view._known) <= 1000
    assert len(view._pool) <= 4096


def test_few_losses_are_no_measure() -> None:
    assert [one.tolist() for one in standing_out(np.array([500.0]), np.ones(10))] == [[0.0], [0.0]]
