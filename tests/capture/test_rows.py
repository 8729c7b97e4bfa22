"""The rows of a batch: taken by reference, and told by a loader without the program's help."""

from __future__ import annotations

import doctest
import math
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    SequentialSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from tracer.capture import rows
from tracer.capture.rows import Rows, with_rows
from tracer.testing import capture_events


class Squares(Dataset[dict[str, Any]]):
    """Samples as dictionaries, with a state that a program may change."""

    def __init__(self, count: int = 10) -> None:
        self.count, self.offset = count, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, place: int) -> dict[str, Any]:
        return {"x": torch.tensor([float(place), float(place**2)]), "name": f"row {place + self.offset}"}


class Pairs(Squares):
    """Samples as tuples."""

    def __getitem__(self, place: int) -> tuple[torch.Tensor, int]:  # type: ignore[override]
        return torch.tensor([float(place)]), place % 3


class Fetching(Squares):
    """A data set that fetches a whole batch at once."""

    def __getitems__(self, places: list[int]) -> list[dict[str, Any]]:
        return [self[place] for place in places]


class Stream(IterableDataset[torch.Tensor]):
    """Rows without places; each worker takes its share, as torch's documentation does it."""

    def __init__(self, count: int = 6) -> None:
        self.first, self.count = 0, count

    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(torch.arange(self.first, self.first + self.count))


def shift(worker: int) -> None:
    """Give each worker a part of the stream."""
    info = torch.utils.data.get_worker_info()
    assert info is not None
    info.dataset.first = 100 * worker


def told(loader: Iterable[object]) -> tuple[list[Any], list[list[Any]]]:
    """Return the batches of a loader, and the rows that were told with each."""
    with capture_events() as events:
        batches = list(loader)
    return batches, [one.arrived().ids.tolist() for one in events if isinstance(one, Rows)]


def same(one: object, other: object) -> bool:
    """Tell whether two batches are the same, types included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.parametrize("dataset", [Squares(), Pairs(), Fetching(), TensorDataset(torch.arange(10.0))])
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_and_their_rows_are_told(dataset: Dataset[Any], workers: int) -> None:
    def loader() -> DataLoader[Any]:
        generator = torch.Generator().manual_seed(3)
        return DataLoader(dataset, batch_size=4, shuffle=True, num_workers=workers, generator=generator)

    plain, _ = told(loader())
    batches, rows = told(with_rows(loader()))

    assert len(batches) == len(plain) == 3
    assert all(map(same, batches, plain))
    assert sorted(chain.from_iterable(rows)) == list(range(10))
    firsts = [batch["x"][:, 0] if isinstance(batch, dict) else batch[0].reshape(-1) for batch in batches]
    assert [first.long().tolist() for first in firsts] == rows


def test_wrapping_draws_no_random_number() -> None:
    torch.manual_seed(0)
    list(DataLoader(Squares(), batch_size=2, shuffle=True))
    plain = torch.rand(1)
    torch.manual_seed(0)
    list(with_rows(DataLoader(Squares(), batch_size=2, shuffle=True)))

    assert torch.equal(torch.rand(1), plain)


def test_samplers_and_collate_functions_are_kept() -> None:
    generator = torch.Generator().manual_seed(0)
    sampler = WeightedRandomSampler([0.0, 1.0, 0.0, 1.0], 6, generator=generator)
    loader = DataLoader(
        Squares(4), batch_size=3, sampler=sampler, collate_fn=lambda rows: [row["name"] for row in rows]
    )
    batches, rows = told(with_rows(loader))

    assert batches == [[f"row {row}" for row in part] for part in rows]
    assert set(chain.from_iterable(rows)) == {1, 3}


def test_a_batch_sampler_and_no_batching_work_too() -> None:
    own = DataLoader(Pairs(6), batch_sampler=BatchSampler(SequentialSampler(range(6)), 4, drop_last=False))
    single = DataLoader(Pairs(3), batch_size=None)

    assert told(with_rows(own))[1] == [[0, 1, 2, 3], [4, 5]]
    assert told(with_rows(single))[1] == [[0], [1], [2]]


def test_rows_of_a_stream_are_counted_from_the_beginning_of_each_pass() -> None:
    loader = with_rows(DataLoader(Stream(), batch_size=4))

    assert [told(loader)[1] for _ in range(2)] == [[[0, 1, 2, 3], [4, 5]]] * 2


def test_workers_of_a_stream_count_their_own_and_reach_their_data_set() -> None:
    loader = with_rows(DataLoader(Stream(3), batch_size=3, num_workers=2, worker_init_fn=shift))
    batches, rows = told(loader)

    assert [batch.tolist() for batch in batches] == [[0, 1, 2], [100, 101, 102]]
    assert rows == [["0:0", "0:1", "0:2"], ["1:0", "1:1", "1:2"]]


def test_a_change_of_the_data_set_reaches_the_batches() -> None:
    data = Squares(2)
    loader = with_rows(DataLoader(data, batch_size=2))
    data.offset = 100

    assert next(iter(loader))["name"] == ["row 100", "row 101"]


def test_the_wrapped_loader_answers_like_the_loader() -> None:
    inner = DataLoader(Squares(7), batch_size=2)
    loader = with_rows(inner)

    assert (len(loader), loader.batch_size, loader.dataset, loader.collate_fn) == (
        4,
        2,
        inner.dataset,
        inner.collate_fn,
    )
    assert len(list(inner)) == 4  # and the loader itself is as it was
    assert isinstance(next(iter(inner)), dict)


def test_persistent_workers_serve_one_pass_after_the_other() -> None:
    loader = with_rows(DataLoader(Pairs(4), batch_size=2, num_workers=1, persistent_workers=True))

    assert [told(loader)[1] for _ in range(2)] == [[[0, 1], [2, 3]]] * 2
    loader._iterator._shutdown_workers()


def test_what_is_no_loader_is_refused_with_the_remedy() -> None:
    with pytest.raises(TypeError, match=r"takes a torch.utils.data.DataLoader; got Squares.*tracer.rows\(ids\)"):
        with_rows(Squares())


@pytest.mark.parametrize(
    "ids",
    [[4, 5], (4, 5), np.array([4, 5]), torch.tensor([4, 5]), [np.int64(4), np.int64(5)], [torch.tensor(4), 5]],
)
def test_ids_may_be_of_any_kind(ids: object) -> None:
    assert Rows(ids).arrived().ids.tolist() == [4, 5]


def test_ids_may_be_names_and_places_of_several_parts() -> None:
    assert Rows(["a.png", "b.png"]).arrived().ids.tolist() == ["a.png", "b.png"]
    assert Rows([(0, 3), (1, 4)]).arrived().ids.tolist() == ["(0, 3)", "(1, 4)"]


def test_losses_are_read_without_their_graph_in_any_precision() -> None:
    weight = torch.ones(2, requires_grad=True)
    loss = (weight * torch.tensor([0.5, math.nan])).to(torch.bfloat16)
    rows = Rows([1, 2], loss)

    assert rows.loss.grad_fn is None
    assert rows.arrived().loss.tolist() == pytest.approx([0.5, math.nan], nan_ok=True)


def test_nothing_is_copied_when_rows_are_given() -> None:
    loss, ids = torch.ones(3), torch.arange(3)
    rows = Rows(ids, loss)

    assert rows.loss.data_ptr() == loss.data_ptr()
    assert rows.ids.data_ptr() == ids.data_ptr()


def test_a_mean_is_refused_with_the_remedy() -> None:
    with pytest.raises(TypeError, match=r"reduction='none'"):
        Rows([1, 2], torch.tensor(0.5))


def test_losses_must_be_as_many_as_rows() -> None:
    with pytest.raises(ValueError, match="There are 3 rows and 2 losses"):
        Rows([1, 2, 3], [0.1, 0.2])


def test_what_has_no_rows_is_refused() -> None:
    with pytest.raises(TypeError, match="ids is float"):
        Rows(0.5)


def test_the_examples_in_the_docstrings_run() -> None:
    results = doctest.testmod(rows, extraglobs={"torch": torch})

    assert results.attempted > 0
    assert results.failed == 0
