"""What W&B keeps as files: media of its rows, and artifacts."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from stat import S_ISREG

from tracer.backends import wandb_records as records
from tracer.backends.wandb_artifacts import is_inside
from tracer.backends.wandb_facts import Known, Place
from tracer.transfer import Event, File, Histogram, Media, Part

_KINDS = {
    "image-file": "image", "audio-file": "audio", "video-file": "video", "html-file": "html", "table-file": "table",
    "object3D-file": "mesh", "plotly-file": "html", "molecule-file": "mesh",
}  # fmt: skip
_MOST_BUCKETS = 100_000
_MOST_NOTES = 1000
_MOST_PARTS = 1_000_000
_MOST_MEDIA = 1 << 32
_LONGEST_TABLE = 256 * 1024 * 1024


def media_of(folder: str, row: records.Row, known: Known, notes: list[str]) -> Iterator[Event]:
    """Yield histograms and media of a row."""
    for name, told in row.values.items():
        if not told.startswith(("{", "[")):
            continue
        try:
            value = records.parsed(told)
        except (records.Malformed, RecursionError):
            notes.append(f"{name[:200]!r} at step {row.step} is nested too deep; it was left out.")
            continue
        at = known.place(row)
        shown = known.original(name, at.rank)
        for suffix, one in _leaves(value):
            found = _event(folder, shown + suffix, at, one)
            if found is not None:
                yield found
            elif isinstance(one.get("path"), str) and len(notes) < _MOST_NOTES:
                notes.append(f"The file of {shown!r} at step {at.step} is missing or not W&B's; it was left out.")


def _leaves(value: object) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield the media that a value is or holds, each with what its name ends in."""
    if isinstance(value, list):
        for number, one in enumerate(value[:_MOST_BUCKETS]):
            if isinstance(one, dict):
                yield (f"/{number}" if len(value) > 1 else ""), one
        return
    if not isinstance(value, dict):
        return
    if isinstance(names := value.get("filenames"), list):
        captions = value.get("captions")
        for number, path in enumerate(names[:_MOST_BUCKETS]):
            caption = captions[number] if isinstance(captions, list) and number < len(captions) else None
            one = {"_type": "image-file", "path": path, "caption": caption}
            yield (f"/{number}" if len(names) > 1 else ""), one
    elif "_type" in value:
        yield "", value


def _event(folder: str, name: str, at: Place, value: Mapping[str, object]) -> Event | None:
    """Return one histogram or medium; none where it cannot be read."""
    if value.get("_type") == "histogram":
        return _histogram(name, at, value)
    kind, path = _KINDS.get(str(value.get("_type"))), value.get("path")
    if kind is None or not isinstance(path, str) or not is_inside(path):
        return None
    local = os.path.join(folder, *path.split("/"))
    size = _size(local, folder)
    if size is None or size > _MOST_MEDIA:
        return None
    caption = value.get("caption")
    suffix = os.path.splitext(path)[1][:16]
    shown = str(caption) if caption else None
    if kind == "table":
        data = _table(local, size)
        if data is None:
            return None
        return Media(name, "table", at.step, at.time, data=data, suffix=".json", rank=at.rank)
    return Media(name, kind, at.step, at.time, path=local, suffix=suffix, caption=shown, rank=at.rank)


def _histogram(name: str, at: Place, value: Mapping[str, object]) -> Histogram | None:
    """Return a histogram, its edges told or packed."""
    counts, edges = value.get("values"), value.get("bins")
    packed = value.get("packedBins")
    if isinstance(packed, dict) and edges is None:
        low, size, count = (packed.get(key) for key in ("min", "size", "count"))
        if not (isinstance(low, (int, float)) and isinstance(size, (int, float)) and isinstance(count, int)):
            return None
        edges = [low + size * number for number in range(min(count, _MOST_BUCKETS) + 1)]
    if not isinstance(counts, list) or not isinstance(edges, list) or len(edges) != len(counts) + 1:
        return None
    if len(counts) > _MOST_BUCKETS or not all(isinstance(one, (int, float)) for one in (*counts, *edges)):
        return None
    return Histogram(name, at.step, at.time, tuple(map(float, edges)), tuple(map(float, counts)), at.rank)


def _table(path: str, size: int) -> bytes | None:
    """Return a table as ours: columns and rows."""
    if size > _LONGEST_TABLE:
        return None
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    return json.dumps({"columns": found.get("columns", []), "rows": found.get("data", [])}).encode()


def _size(path: str, folder: str | None) -> int | None:
    """Return the size of a plain file, which has to lie in a folder where one is named; none for anything else."""
    with contextlib.suppress(OSError, ValueError):
        if folder is not None and os.path.commonpath((os.path.realpath(path), os.path.realpath(folder))) != (
            os.path.realpath(folder)
        ):
            return None
        found = os.stat(path, follow_symlinks=False)
        return found.st_size if S_ISREG(found.st_mode) else None
    return None


def files_of(data: bytes, seen: set[str], notes: list[str]) -> Iterator[File]:
    """Yield an artifact whose files are still there, unchanged."""
    told: dict[int, str] = {}
    aliases: list[str] = []
    parts: list[Part] | None = []
    try:
        for number, _, value in records.fields(data):
            if number in {4, 5, 6, 8}:
                told[number] = records.text(value)
            elif number == 11:  # noqa: PLR2004 -- as the schema counts, here and below
                aliases.append(records.text(value))
            elif number == 12:  # noqa: PLR2004
                parts = _parts(records.message(value))
        metadata = records.parsed(told.get(8, "{}"))
    except (records.Malformed, RecursionError):
        notes.append("An artifact could not be read; it was left out.")
        return
    kind, name, digest = told.get(4, ""), told.get(5, ""), told.get(6, "")
    if kind in {"run_table", "job"} or kind.startswith("wandb-"):
        return
    if not parts:
        notes.append(f"The files of the artifact {name[:200]!r} are not here any more; it was left out.")
        return
    described = metadata if isinstance(metadata, dict) else {}
    own = described.pop("tracer", None)
    own = own if isinstance(own, dict) else {}
    version = str(own.get("version") or digest)
    if f"{name}:{version}" in seen:
        return
    seen.add(f"{name}:{version}")
    step, time = own.get("step"), own.get("time")
    yield File(
        str(own.get("name") or name), str(own.get("type") or kind), version, tuple(parts),
        time if isinstance(time, int) else 0, step if isinstance(step, int) else None,
        tuple(alias for alias in aliases if alias != "latest" or not own), described,
    )  # fmt: skip


def _parts(manifest: bytes) -> list[Part] | None:
    """Return an artifact's files; none when one is gone, is not what was logged, or lies outside the artifact."""
    found: list[Part] = []
    for number, _, value in records.fields(manifest):
        if number != 4:  # noqa: PLR2004 -- as the schema counts, here and below
            continue
        entry: dict[int, str] = {}
        size = -1
        for inner, _, told in records.fields(records.message(value)):
            if inner in {1, 2, 6}:
                entry[inner] = records.text(told)
            elif inner == 4:  # noqa: PLR2004
                size = records.signed(told)
        path, local = entry.get(1, ""), entry.get(6, "")
        # The path is the file's word: it is believed only where the bytes are those that were logged.
        if len(found) >= _MOST_PARTS or not is_inside(path) or not local or _size(local, None) != size:
            return None
        sha256 = _checked(local, entry.get(2, ""))
        if sha256 is None:
            return None
        found.append(Part(path, local, size, sha256))
    return found


def _checked(path: str, wanted: str) -> str | None:
    """Return the SHA-256 of a file whose MD5 is the one that W&B noted."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(1 << 20):
                md5.update(piece)
                sha256.update(piece)
    except OSError:
        return None
    return sha256.hexdigest() if base64.b64encode(md5.digest()).decode() == wanted else None
