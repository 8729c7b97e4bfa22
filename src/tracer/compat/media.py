"""The media classes of Weights & Biases, as bytes of ours: `Image Video Audio Html Table Histogram`."""

from __future__ import annotations

import io
import json
import os
import wave
from collections.abc import Sequence
from typing import Any

import numpy as np

from tracer.capture.wandb_values import Medium
from tracer.render.encoding import encoded_picture


class Image:
    """A picture: the path of a file, an array, a tensor, a PIL image or a matplotlib figure.

    Args:
        data_or_path: The picture; arrays are (height, width), or with 3 or 4 colours last; floats go from 0 to 1.
        caption: What stands below it.
        **_: What else theirs takes (masks, boxes, groups) is not kept.

    Raises:
        TypeError: It is no picture.

    Example:
        >>> Image(np.zeros((2, 2), dtype=np.uint8), caption="black").medium().suffix
        '.png'
    """

    def __init__(self, data_or_path: Any, caption: str | None = None, **_: object) -> None:  # noqa: ANN401 -- as theirs
        self.caption = caption
        self._data, self._suffix = _picture(data_or_path)

    def medium(self) -> Medium:
        """Return the bytes."""
        return Medium("image", self._data, self._suffix, self.caption)


class _File:
    """A file, or bytes of a known kind."""

    kind, suffix = "text", ".txt"

    def __init__(self, data_or_path: Any, caption: str | None = None, **_: object) -> None:  # noqa: ANN401 -- as theirs
        self.caption = caption
        if isinstance(data_or_path, (str, os.PathLike)) and os.path.isfile(data_or_path):
            with open(data_or_path, "rb") as file:
                self.data, self.suffix = file.read(), os.path.splitext(os.fspath(data_or_path))[1]
        elif isinstance(data_or_path, bytes):
            self.data = data_or_path
        else:
            self.data = self._encoded(data_or_path)

    def _encoded(self, data: Any) -> bytes:  # noqa: ANN401 -- as above
        """Return bytes of what is not a file."""
        message = f"{type(self).__name__} takes the path of a file or its bytes, not {type(data).__name__}."
        raise TypeError(message)

    def medium(self) -> Medium:
        """Return the bytes."""
        return Medium(self.kind, self.data, self.suffix, self.caption)


class Video(_File):
    """A film: the path of a file, or its bytes.

    Example:
        >>> Video(b"...", caption="run").medium().kind
        'video'
    """

    kind, suffix = "video", ".mp4"


class Html(_File):
    """A page: the path of a file, or its text.

    Example:
        >>> Html("<b>done</b>").medium().data
        b'<b>done</b>'
    """

    kind, suffix = "html", ".html"

    def _encoded(self, data: Any) -> bytes:  # noqa: ANN401 -- as above
        """Return text as bytes."""
        return str(data).encode()


class Audio(_File):
    """A sound: the path of a file, or samples between -1 and 1.

    Args:
        data_or_path: The file or the samples.
        sample_rate: Samples in a second.
        caption: What stands below it.

    Example:
        >>> Audio([0.0, 0.5], sample_rate=8000).medium().suffix
        '.wav'
    """

    kind, suffix = "audio", ".wav"

    def __init__(
        self,
        data_or_path: Any,  # noqa: ANN401 -- as theirs
        sample_rate: int | None = None,
        caption: str | None = None,
        **_: object,
    ) -> None:
        self._rate = sample_rate or 44_100
        super().__init__(data_or_path, caption)

    def _encoded(self, data: Any) -> bytes:  # noqa: ANN401 -- as above
        """Return samples as a WAV file of 16 bits."""
        samples = np.clip(np.asarray(data, dtype=np.float64), -1, 1)
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
            file.setsampwidth(2)
            file.setframerate(self._rate)
            file.writeframes((samples * (2**15 - 1)).astype("<i2").tobytes())
        return buffer.getvalue()


class Histogram:
    """How values are spread.

    Args:
        sequence: The values.
        np_histogram: Counts and limits instead, as `np.histogram` returns them.
        num_bins: How many bins.

    Example:
        >>> Histogram([1, 1, 2], num_bins=2).histogram
        [2, 1]
    """

    def __init__(
        self,
        sequence: Any = None,  # noqa: ANN401 -- as theirs
        np_histogram: tuple[Any, Any] | None = None,
        num_bins: int = 64,
    ) -> None:
        counts, limits = np.histogram(np.asarray(sequence), bins=num_bins) if np_histogram is None else np_histogram
        self.histogram, self.bins = np.asarray(counts).tolist(), np.asarray(limits).tolist()


class Table:
    """Rows and columns.

    Args:
        columns: The names of the columns; Input, Output, Expected when absent, as theirs.
        data: The rows.
        rows: Another name for them.
        dataframe: A data frame instead.

    Example:
        >>> table = Table(columns=["x", "y"])
        >>> table.add_data(1, 2)
        >>> table.data
        [[1, 2]]
    """

    def __init__(
        self,
        columns: Sequence[str] | None = None,
        data: Sequence[Sequence[object]] | None = None,
        rows: Sequence[Sequence[object]] | None = None,
        dataframe: Any = None,  # noqa: ANN401 -- as theirs
        **_: object,
    ) -> None:
        if dataframe is not None:
            columns, data = list(dataframe.columns), dataframe.to_numpy().tolist()
        self.columns = list(columns or ("Input", "Output", "Expected"))
        self.data = [list(row) for row in (rows if data is None else data) or ()]

    def add_data(self, *row: object) -> None:
        """Add a row.

        Raises:
            ValueError: It has more or fewer cells than there are columns.
        """
        if len(row) != len(self.columns):
            message = f"The table has {len(self.columns)} columns; the row {row!r} has {len(row)} cells."
            raise ValueError(message)
        self.data.append(list(row))

    def add_column(self, name: str, data: Sequence[object]) -> None:
        """Add a column."""
        self.columns.append(name)
        for row, cell in zip(self.data, data, strict=True):
            row.append(cell)


def _picture(given: Any) -> tuple[bytes, str]:  # noqa: ANN401 -- as above
    """Return the bytes and the suffix of a picture."""
    if isinstance(given, (str, os.PathLike)):
        with open(given, "rb") as file:
            return file.read(), os.path.splitext(os.fspath(given))[1]
    if isinstance(given, bytes):
        return given, ".png"
    return encoded_picture(np.asarray(given) if isinstance(given, (list, tuple)) else given), ".png"


def as_json(value: object) -> bytes:
    """Return an object as bytes of JSON; what has no such form is written as text."""
    return json.dumps(value, default=str, indent=1).encode()


__all__ = ["Audio", "Histogram", "Html", "Image", "Table", "Video", "as_json"]
