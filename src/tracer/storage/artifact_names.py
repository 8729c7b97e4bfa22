"""Names of artifacts, of their versions and of the files in them; nothing that a user types here becomes a path.

A reference is `name`, `name:v3` or `name:alias`, with the project or the run before it where that is needed:
`project/name:v3`. A name may hold slashes, a version or an alias may not.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from tracer.storage.names import clean_text

LATEST = "latest"
_LONGEST_NAME, _LONGEST_PATH, _LONGEST_PART = 250, 4000, 255
_VERSION = re.compile(r"v?(\d{1,9})")
_ALIAS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNSAFE = re.compile(r"[^\w.+=@ -]")
_CHECKPOINT = re.compile(r"(?i)(^|[^a-z])(checkpoint|ckpt|epoch|step)s?([^a-z]|$)")
_WEIGHTS = re.compile(r"(?i)(model|weights)[^/]*\.bin$")
#: Endings and what such files are; a file of tensors is a checkpoint where its name says so.
_TYPES = {
    "checkpoint": ".ckpt",
    "model": ".pt .pth .safetensors .onnx .h5 .keras .gguf .tflite .joblib .ubj .mlmodel .pt2",
    "dataset": ".csv .tsv .parquet .arrow .feather .jsonl .ndjson .npz .npy .hdf5 .tfrecord .xlsx",
    "image": ".png .jpg .jpeg .gif .bmp .webp .tif .tiff .svg",
    "audio": ".wav .mp3 .flac .ogg .m4a",
    "video": ".mp4 .webm .avi .mov .mkv",
    "config": ".json .yaml .yml .toml .ini .cfg",
    "code": ".py .ipynb .sh .cu .cpp .c .h .patch .diff",
    "report": ".html .htm .pdf .md .rst",
}
_BY_ENDING = {ending: kind for kind, endings in _TYPES.items() for ending in endings.split()}
#: What a folder is: the first kind in this order that a file in it is.
_OF_FOLDER = ("checkpoint", "model", "dataset", "image", "audio", "video")


class Reference(NamedTuple):
    """What was asked for: a name, perhaps with a project or a run before it, and a version or an alias."""

    name: str
    version: int | None
    alias: str | None

    def __str__(self) -> str:
        return f"{self.name}:{self.alias or LATEST if self.version is None else f'v{self.version}'}"


def parse(text: str) -> Reference:
    """Return what a reference means: `name`, `name:v3`, `name:3`, `name:alias`.

    Raises:
        ValueError: It cannot be read.
    """
    name, colon, after = text.rpartition(":")
    if not colon:
        return Reference(_not_empty(text, text), None, None)
    version = _VERSION.fullmatch(after)
    if version is not None:
        return Reference(_not_empty(name, text), int(version[1]), None)
    if not _ALIAS.fullmatch(after):
        message = f"{text!r} names no version: after the colon stands {after!r}. Write `name:v3` or `name:latest`."
        raise ValueError(message)
    return Reference(_not_empty(name, text), None, None if after == LATEST else after)


def checked_name(name: str) -> str:
    """Return the name of an artifact, or say why it cannot be one."""
    name = clean_text(name)
    if not name.strip() or len(name) > _LONGEST_NAME:
        message = f"The artifact name {name[:40]!r} has {len(name)} characters; it needs between 1 and {_LONGEST_NAME}."
        raise ValueError(message)
    if ":" in name or _CONTROL.search(name):
        message = f"The artifact name {name!r} holds a colon or a control character. Use letters, digits, `-_./`."
        raise ValueError(message)
    return name


def checked_aliases(aliases: str | Iterable[str]) -> list[str]:
    """Return aliases without `latest`, which moves by itself; or say why one cannot be meant."""
    found: list[str] = []
    for alias in [aliases] if isinstance(aliases, str) else aliases:
        if alias == LATEST:
            continue
        if not _ALIAS.fullmatch(alias) or _VERSION.fullmatch(alias):
            message = f"{alias!r} cannot be an alias. Use letters, digits, `-_.`, and not the form of a version (`v3`)."
            raise ValueError(message)
        found.append(alias)
    return found


def checked_entry(path: str) -> str:
    """Return the path of a file within an artifact, or refuse one that could lead out of a folder."""
    parts = path.split("/")
    if len(path) > _LONGEST_PATH or any(len(os.fsencode(part)) > _LONGEST_PART for part in parts):
        message = f"The path {path[:60]!r}… in an artifact is too long: {len(path)} characters."
        raise ValueError(message)
    if "\0" in path or "\\" in path or any(part in ("", ".", "..") for part in parts):
        message = f"The path {path[:200]!r} in an artifact could lead out of its folder; it is refused."
        raise ValueError(message)
    if os.name == "nt" and any(_is_reserved(part) for part in parts):
        message = f"The path {path[:200]!r} in an artifact is no name of a file on Windows."
        raise ValueError(message)
    return path


def file_name(name: str) -> str:
    """Return a file name that is safe everywhere for what an artifact or a piece of media is called."""
    last = _UNSAFE.sub("_", name.rstrip("/").rpartition("/")[2]).strip(". ")[:120]
    return f"_{last}" if _is_reserved(last) else last or "artifact"


def type_of_file(path: str) -> str:
    """Return what a file is, by its name: `checkpoint`, `model`, `dataset`, `image` …, else `file`."""
    name = os.path.basename(path)
    kind = "model" if _WEIGHTS.search(name) else _BY_ENDING.get(os.path.splitext(name)[1].lower(), "file")
    return "checkpoint" if kind == "model" and _CHECKPOINT.search(name) else kind


def type_of_folder(path: str, entries: Iterable[str]) -> str:
    """Return what a folder is: by its name a checkpoint, else by the files in it, else `folder`."""
    if _CHECKPOINT.search(os.path.basename(path.rstrip("/"))):
        return "checkpoint"
    kinds = {type_of_file(entry) for entry in entries}
    return next((kind for kind in _OF_FOLDER if kind in kinds), "folder")


def _not_empty(name: str, text: str) -> str:
    """Return the name part of a reference."""
    if not name:
        message = f"{text!r} names no artifact. Write `name`, `name:v3` or `name:latest`."
        raise ValueError(message)
    return name


def _is_reserved(name: str) -> bool:
    """Tell whether Windows takes a name for a device, or for something other than a file."""
    return re.fullmatch(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?", name) is not None or ":" in name


__all__ = [
    "LATEST", "Reference", "checked_aliases", "checked_entry", "checked_name", "file_name", "parse", "type_of_file",
    "type_of_folder",
]  # fmt: skip
