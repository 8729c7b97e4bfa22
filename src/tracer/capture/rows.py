"""Which rows of the data set a batch holds, and what each row's loss is: kept by reference, read later.

`with_rows` wraps a `DataLoader`, because only there the numbers of the rows are known whatever sampler, collate
function or number of workers is used: the data set hands them out beside its rows, and they are taken off again before
the batch reaches the program. torch is used and never imported: whoever has a loader has loaded it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

import copy
import sys

from tracer import clock, sink


class Rows:
    """The rows of one batch: an event for the run; `arrived` reads them, on a thread that may wait for a device.

    Args:
        ids: The rows' places in the data set: a list, an array or a tensor; None when only losses are known.
        loss: One number per row, or None.
        step: The step they belong to; filled by the run when None.

    Raises:
        TypeError: The loss is a single number.
        ValueError: There is not one loss for each row.
    """

    __slots__ = ("event", "ids", "loss", "step", "time")

    def __init__(self, ids: object, loss: object = None, step: int | None = None) -> None:
        self.ids, self.loss, self.step, self.time = _held(ids), _held(loss), step, clock.now()
        _check(self.ids, self.loss)
        self.event = _recorded_event(self.loss, self.ids)

    def arrived(self) -> Batch:
        """Return the rows as arrays; waits for the device that holds them."""
        import numpy as np

        if self.event is not None:
            self.event.synchronize()
        ids = None if self.ids is None else _identities(_on_host(self.ids))
        loss = None if self.loss is None else np.asarray(_on_host(self.loss), dtype=np.float64).reshape(-1)
        return Batch(self.step or 0, self.time, ids, loss)


class Batch:
    """Rows and losses in host memory; either may be None."""

    __slots__ = ("ids", "loss", "step", "time")

    def __init__(self, step: int, time: float, ids: Any, loss: Any) -> None:  # noqa: ANN401 -- NumPy arrays
        self.step, self.time, self.ids, self.loss = step, time, ids, loss


def with_rows(loader: Any) -> RowLoader:  # noqa: ANN401 -- a loader of torch, or of its like
    """Return a loader that gives the same batches and remembers which rows of the data set they hold.

    Works with every sampler, collate function and number of workers. The rows of an `IterableDataset` have no numbers
    of their own and are counted: with workers they are called `worker:number`.

    Args:
        loader: A `torch.utils.data.DataLoader`.

    Returns:
        A loader to be iterated in its place; its attributes are those of the loader.

    Raises:
        TypeError: It is no `DataLoader`.

    Example:
        >>> data = torch.utils.data.TensorDataset(torch.arange(4.0))
        >>> loader = with_rows(torch.utils.data.DataLoader(data, batch_size=2))
        >>> [batch[0].tolist() for batch in loader]
        [[0.0, 1.0], [2.0, 3.0]]
    """
    known = all(hasattr(loader, name) for name in ("dataset", "collate_fn", "batch_sampler", "num_workers"))
    if not known or not hasattr(loader, "__dict__"):
        message = (
            f"`with_rows` takes a torch.utils.data.DataLoader; got {type(loader).__name__}. "
            "Wrap the loader and not the data set, or name the rows yourself: tracer.rows(ids)."
        )
        raise TypeError(message)
    return RowLoader(loader)


class RowLoader:
    """A loader whose batches are the same, and whose rows are told to the run as each batch is handed out."""

    def __init__(self, loader: Any) -> None:  # noqa: ANN401 -- see `with_rows`
        self._loader = loader
        # A copy with another data set and collate function: sampler, generator and workers' settings are the same
        # objects, so the draws are the same. `DataLoader` refuses to set these, so its dictionary is written.
        self._numbered = copy.copy(loader)
        counted = not hasattr(loader.dataset, "__getitem__") or _is_iterable(loader.dataset)
        self._numbered.__dict__["dataset"] = (Counted if counted else Numbered)(loader.dataset)
        batched = loader.batch_sampler is not None
        self._numbered.__dict__["collate_fn"] = Apart(loader.collate_fn, pairs=counted and batched)
        self._numbered.__dict__["_iterator"] = None

    def __iter__(self) -> Iterator[Any]:
        for ids, batch in self._numbered:
            sink.emit(Rows(ids))
            yield batch

    def __len__(self) -> int:
        return len(self._loader)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- whatever the loader has
        if name in ("_loader", "_numbered"):  # while it is being copied or unpickled there is none yet
            raise AttributeError(name)
        # State and the like are the copy's, which is iterated; the data set is the user's own.
        return getattr(self._loader if name in ("dataset", "collate_fn") else self._numbered, name)


class _Stand:
    """Stands for a data set: what is asked of it, and what is set, goes to the data set itself."""

    def __init__(self, dataset: Any) -> None:  # noqa: ANN401 -- the user's data set
        self.__dict__["_dataset"] = dataset

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 -- as above
        if name == "_dataset":
            raise AttributeError(name)
        return getattr(self._dataset, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self._dataset, name, value)

    def __getstate__(self) -> object:
        return self._dataset

    def __setstate__(self, dataset: object) -> None:
        self.__dict__["_dataset"] = dataset

    def __len__(self) -> int:
        return len(self._dataset)


class Numbered(_Stand):
    """A data set with places: gives each row, or each batch of rows, together with its place."""

    def __getitem__(self, place: Any) -> tuple[Any, Any]:  # noqa: ANN401 -- what the sampler draws
        return place, self._dataset[place]

    def __getitems__(self, places: Any) -> tuple[Any, Any]:  # noqa: ANN401 -- torch asks for a whole batch here
        several = getattr(self._dataset, "__getitems__", None)
        return places, several(places) if several else [self._dataset[place] for place in places]


class Counted(_Stand):
    """A data set that only streams: its rows are counted; each worker of a loader counts its own."""

    def __iter__(self) -> Iterator[tuple[object, Any]]:
        data = getattr(sys.modules.get("torch"), "utils", None)
        worker = data.data.get_worker_info() if data is not None else None
        for number, row in enumerate(self._dataset):
            yield (number if worker is None else f"{worker.id}:{number}"), row


class Apart:
    """A collate function that leaves the rows' places beside the batch."""

    def __init__(self, collate: Callable[[Any], Any], *, pairs: bool) -> None:
        self._collate, self._pairs = collate, pairs

    def __call__(self, rows: Any) -> tuple[Any, Any]:  # noqa: ANN401 -- what the data set gave
        if self._pairs:
            places = [place for place, _ in rows]
            return _Places(places), self._collate([row for _, row in rows])
        places, rows = rows
        return _Places(places), self._collate(rows)


class _Places:
    """The places of a batch; neither a sequence nor a mapping, so that pinning memory does not walk through them."""

    __slots__ = ("places",)

    def __init__(self, places: object) -> None:
        self.places = places


def _is_iterable(dataset: object) -> bool:
    """Tell whether a data set is one of torch's that only stream."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(dataset, torch.utils.data.IterableDataset)


def _held(value: Any) -> Any:  # noqa: ANN401 -- a list, an array, a tensor
    """Return a reference that keeps no graph alive."""
    if isinstance(value, _Places):
        value = value.places
    if value is None or isinstance(value, (list, tuple)):
        return value
    if isinstance(value, (int, str)) and not isinstance(value, bool):
        return [value]
    return value.detach() if hasattr(value, "detach") else value


def _check(ids: Any, loss: Any) -> None:  # noqa: ANN401 -- as above
    """Say what is wrong with rows that cannot be meant; shapes are known without waiting for a device."""
    for name, value in (("ids", ids), ("loss", loss)):
        if value is not None and not hasattr(value, "__len__"):
            message = f"{name} is {type(value).__name__}; the rows of a batch are a list, an array or a tensor."
            raise TypeError(message)
    if loss is not None and getattr(loss, "shape", None) == ():
        message = "loss is a single number; one entry per row is needed. Compute it with reduction='none'."
        raise TypeError(message)
    if ids is not None and loss is not None and len(ids) != len(loss):
        message = f"There are {len(ids)} rows and {len(loss)} losses. Give one loss for each row of the batch."
        raise ValueError(message)


def _recorded_event(*values: Any) -> Any:  # noqa: ANN401 -- as above
    """Return what tells when the present work of a CUDA device is done; None where nothing lies on one."""
    for value in values:
        if getattr(value, "is_cuda", False):
            cuda = sys.modules["torch"].cuda
            event = cuda.Event()
            event.record(cuda.current_stream(value.device))
            return event
    return None


def _on_host(value: Any) -> Any:  # noqa: ANN401 -- as above
    """Return a value in host memory, as NumPy can take it."""
    if hasattr(value, "detach"):
        tensor = value.detach().cpu()
        return tensor.float() if str(tensor.dtype) == "torch.bfloat16" else tensor
    return [part.item() if hasattr(part, "item") else part for part in value] if _is_list(value) else value


def _is_list(value: object) -> bool:
    """Tell whether a value is a plain list or tuple."""
    return isinstance(value, (list, tuple))


def _identities(given: Any) -> Any:  # noqa: ANN401 -- as above
    """Return ids as an array of whole numbers, or of texts where they are none."""
    import numpy as np

    if _is_list(given) and any(isinstance(one, (list, tuple)) for one in given):  # places of several parts
        given = [str(one) for one in given]
    ids = np.asarray(given).reshape(-1)
    return ids.astype(np.int64) if ids.dtype.kind in "iub" else ids.astype(str)


__all__ = ["Batch", "RowLoader", "Rows", "with_rows"]
