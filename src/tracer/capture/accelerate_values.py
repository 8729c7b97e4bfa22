"""What a program gives to accelerate's trackers, as events: values at their steps, and pictures."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tracer import events
from tracer.state import _state

ORIGIN = "accelerate"


class Steps:
    """The step of values that came without one: the last that was given, or the next where a name has that already.

    Example:
        >>> steps = Steps()
        >>> [steps.of(["loss"], step) for step in (None, None, 5, None)]
        [0, 1, 5, 6]
        >>> steps.of(["accuracy"], None)
        6
    """

    def __init__(self) -> None:
        self._run: str | None = None
        self._last = 0
        self._seen: dict[str, int] = {}

    def of(self, names: Iterable[str], step: int | None) -> int:
        """Return the step of the values of these names."""
        if self._run != _state.run_id:
            self._run, self._last, self._seen = _state.run_id, 0, {}
        names = tuple(names)
        if step is None:
            step = max([self._last, *(self._seen[name] + 1 for name in names if name in self._seen)])
        self._last = step
        self._seen.update(dict.fromkeys(names, step))
        return step


_steps = Steps()


def tell(emit: Callable[[object], None], values: Mapping[str, object], step: int | None) -> None:
    """Tell values as events.

    Args:
        emit: Where events go.
        values: What `Accelerator.log` was given.
        step: The caller's step; None where it gave none.
    """
    emit(events.Scalars(dict(values), _steps.of(values, step), origin=ORIGIN))


def tell_images(emit: Callable[[object], None], values: Mapping[str, Any], step: int | None) -> None:
    """Tell pictures as events, each as a PNG.

    Args:
        emit: Where events go.
        values: Name → pictures: arrays, tensors or those of Pillow.
        step: The caller's step.
    """
    for name, pictures in values.items():
        encoded = [_png(one) for one in pictures]
        for number, data in enumerate(encoded):
            full = name if len(encoded) == 1 else f"{name}/{number}"
            emit(events.Media(full, "image", data=data, suffix=".png", step=step, origin=ORIGIN))


def _png(picture: Any) -> bytes:  # noqa: ANN401 -- whatever holds a picture
    """Return a picture as a PNG: one of Pillow, or an array with its channels first or last."""
    from PIL import Image

    if not hasattr(picture, "save"):
        import numpy as np

        array = np.asarray(picture.detach().cpu() if hasattr(picture, "detach") else picture)
        if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[-1] not in (1, 3, 4):  # noqa: PLR2004 -- axes and channels
            array = np.moveaxis(array, 0, -1)
        if array.dtype != np.uint8:
            array = np.clip(np.rint(array * 255 if array.dtype.kind == "f" else array), 0, 255).astype(np.uint8)
        picture = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


__all__ = ["ORIGIN", "Steps", "tell", "tell_images"]
