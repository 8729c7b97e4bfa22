"""What people log to look at → encoded bytes: arrays and pictures as PNG, texts as UTF-8, files as they are."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from tracer.events import MEDIA, Media
from tracer.render.png import pixels_to_png

#: First bytes of a file → its ending.
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", ".png"), (b"\xff\xd8\xff", ".jpg"), (b"GIF8", ".gif"), (b"RIFF", ".wav"), (b"ID3", ".mp3"),
    (b"fLaC", ".flac"), (b"OggS", ".ogg"), (b"\x1aE\xdf\xa3", ".webm"),
)  # fmt: skip
_KINDS = {
    "image": ".png .jpg .jpeg .gif .webp .bmp .svg .tif .tiff", "video": ".mp4 .webm .avi .mov .mkv",
    "audio": ".wav .mp3 .flac .ogg .m4a", "text": ".txt .md .log", "html": ".html .htm", "table": ".csv .tsv .parquet",
}  # fmt: skip
_BY_ENDING = {ending: kind for kind, endings in _KINDS.items() for ending in endings.split()}
_CHANNELS = (1, 3, 4)
_PLANES = 3


def media_event(
    name: str,
    value: Any,  # noqa: ANN401 -- see the docstring
    *,
    kind: str | None = None,
    step: int | None = None,
    caption: str | None = None,
    fields: Mapping[str, object] | None = None,
) -> Media:
    """Return the event for something to look at or to listen to.

    Args:
        name: What it is called.
        value: A path, encoded bytes, text, a dictionary or list, an array or tensor of pixels (height by width, or with
            1, 3 or 4 channels last or first; floats from 0 to 1), a figure of matplotlib, or a picture of Pillow.
        kind: One of `events.MEDIA`; found out where possible.
        step: The step; the run's own counter when absent.
        caption: A sentence below it.
        fields: What is small and belongs to it.

    Raises:
        TypeError: Nothing is known of such a value.
        ValueError: The kind is not known, or cannot be found out.
    """
    if kind is not None and kind not in MEDIA:
        message = f"kind={kind!r} is no kind of media. Known: {', '.join(MEDIA)}."
        raise ValueError(message)
    data, suffix, found, more = _encoded(value)
    chosen = kind or found
    if chosen is None:
        message = (
            f"What {name!r} is cannot be told from its bytes or its ending {suffix!r}. Give kind='image' or another."
        )
        raise ValueError(message)
    return Media(name, chosen, data=data, suffix=suffix, step=step, caption=caption, fields={**more, **(fields or {})})


def _encoded(value: Any) -> tuple[bytes | None, str, str | None, Mapping[str, object]]:  # noqa: ANN401 -- as above
    """Return bytes, ending, kind and what else is known."""
    if isinstance(value, str):
        is_page = value.lstrip()[:15].lower().startswith(("<!doctype", "<html"))
        return value.encode("utf-8", "replace"), ".html" if is_page else ".txt", "html" if is_page else "text", {}
    if isinstance(value, os.PathLike):
        suffix = os.path.splitext(os.fspath(value))[1].lower()
        with open(value, "rb") as file:
            return file.read(), suffix, _BY_ENDING.get(suffix), {}
    if isinstance(value, (bytes, bytearray, memoryview)):
        data = bytes(value)
        suffix = next((ending for magic, ending in _MAGIC if data.startswith(magic)), "")
        return data, suffix, _BY_ENDING.get(suffix), {}
    if isinstance(value, (Mapping, list)):
        return None, "", "table", value if isinstance(value, Mapping) else {"rows": value}
    picture = encoded_picture(value)
    width, height = (int.from_bytes(picture[at : at + 4], "big") for at in (16, 20))  # where a PNG says it
    return picture, ".png", "image", {"height": height, "width": width}


def encoded_picture(value: Any) -> bytes:  # noqa: ANN401 -- a figure, a picture, pixels
    """Return a figure of matplotlib, a picture of Pillow, or an array or tensor of pixels as a PNG.

    Raises:
        TypeError: It is none of these.
    """
    return _drawn(value) or pixels_to_png(_pixels(value))


def _drawn(value: Any) -> bytes | None:  # noqa: ANN401 -- a figure, a picture
    """Return a figure of matplotlib or a picture of Pillow as a PNG, or None for anything else."""
    file = io.BytesIO()
    if hasattr(value, "savefig"):
        value.savefig(file, format="png", bbox_inches="tight")
    elif hasattr(value, "save") and hasattr(value, "mode"):
        value.save(file, format="PNG")
    return file.getvalue() or None


def _pixels(value: Any) -> Any:  # noqa: ANN401 -- a tensor or an array
    """Return an array or tensor as rows of pixels of bytes."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().numpy()
    array = np.asarray(value)
    if array.dtype == object or array.ndim not in (2, _PLANES):
        message = (
            f"A value of type {type(value).__name__} with shape {array.shape} is no picture. Give a path, bytes, text, "
            "a figure, or an array of height by width, with 1, 3 or 4 channels."
        )
        raise TypeError(message)
    if array.ndim == _PLANES and array.shape[-1] not in _CHANNELS and array.shape[0] in _CHANNELS:
        array = np.moveaxis(array, 0, -1)
    if array.ndim == _PLANES and array.shape[-1] not in _CHANNELS:
        message = f"A picture has 1, 3 or 4 channels; this array has the shape {array.shape}."
        raise TypeError(message)
    if array.dtype.kind == "f":
        array = np.rint(np.clip(np.nan_to_num(array), 0.0, 1.0) * 255.0)
    elif array.dtype == bool:
        array = array * 255
    return np.ascontiguousarray(np.clip(array, 0, 255).astype(np.uint8))


__all__ = ["encoded_picture", "media_event"]
