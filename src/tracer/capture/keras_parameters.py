"""What is known of a Keras training before it begins: optimizer, loss, epochs, size of the model and of a batch.

No callback is told the batch size, so the iterator that `fit` makes just before its callbacks is noted.
"""

# ruff: noqa: ANN401 -- Keras' objects

from __future__ import annotations

import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from tracer.capture.patching import Hook
from tracer.capture.portrayal import of_class, parameters, portrait

iterators = Hook("keras.batches")
#: The data that `fit` of this thread has just begun to read.
_here = threading.local()


def training_parameters(model: Any, params: Mapping[str, Any]) -> dict[str, object]:
    """Return what is known of a training before it begins."""
    optimizer: Any = getattr(model, "optimizer", None)
    loss = getattr(model, "loss", None)
    found: dict[str, object] = {"model": model.name, "epochs": params.get("epochs"), "steps": params.get("steps")}
    if hasattr(optimizer, "get_config"):
        with warnings.catch_warnings(
            action="ignore"
        ):  # of how Keras reads its own variables: we asked, not the program
            config = {name: _short(value) for name, value in optimizer.get_config().items()}
        found["optimizer"] = {"class": of_class(optimizer), **config}
    if loss is not None:
        found["loss"] = portrait(loss) if isinstance(loss, (str, list, tuple, dict)) else of_class(loss)
    if getattr(model, "built", False):
        found["parameters"] = model.count_params()
    data = getattr(_here, "iterator", lambda: None)()
    found["batch_size"] = getattr(getattr(data, "data_adapter", None), "batch_size", None)
    return parameters({name: value for name, value in found.items() if value is not None})


def _short(value: Any) -> Any:
    """Return a number that was kept in 32 bits as it was written: 0.001, not 0.0010000000474974513."""
    numpy = sys.modules.get("numpy")
    if not isinstance(value, float) or numpy is None:
        return value
    narrow = numpy.float32(value)
    return float(str(narrow)) if float(narrow) == value else value


def note_iterators(module: ModuleType) -> Callable[[], None]:
    """Note what is read by whom."""

    def make(original: Any) -> Any:
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            if iterators.is_on:
                with iterators:
                    _here.iterator = weakref.ref(self)

        return init

    return iterators.wrap(module.EpochIterator, "__init__", make, parameters=("self", "x", "y"))


__all__ = ["iterators", "note_iterators", "training_parameters"]
