"""Media of a run: pictures, sounds, texts, histograms given as they are; kept once per content, read back by name.

What is small stands in the record; the bytes of everything else are a file of the run, named by their SHA-256.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tracer import events
from tracer.errors import StoreError
from tracer.storage.artifact_contents import content_path, damage, open_regular
from tracer.storage.names import clean_text

if TYPE_CHECKING:
    from tracer.storage.catalog import Catalog
    from tracer.storage.ground import Ground
    from tracer.storage.log_rows import LogRow
    from tracer.storage.snapshot import Snapshot

#: Texts up to this size stand in the journal; and fields beyond this size go to a file.
_INLINE_BYTES, _LARGEST_FIELDS = 4096, 64 * 1024
_TEXTS = frozenset({"text", "html", "table", "layout"})
_IN_FILES = "SELECT time, step, rank, kind, level, name, body, fields FROM read_parquet($files) WHERE kind = 'media'"


@dataclass(frozen=True, slots=True)
class MediaRow:
    """One piece of media, as it was logged at a step; `text` is what was small enough to stand in the record."""

    name: str
    kind: str
    step: int
    time: int
    rank: int = 0
    caption: str | None = None
    digest: str | None = None
    bytes: int = 0
    suffix: str = ""
    text: str | None = None
    origin: str = "user"
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MediaSummary:
    """How often something was logged to look at, and from which step to which."""

    name: str
    kind: str
    n: int
    first_step: int
    last_step: int


def payload_of(event: events.Media, keep: Callable[[bytes], str]) -> dict[str, object]:
    """Return what the journal says of a piece of media; its bytes are kept before.

    Args:
        event: What was logged.
        keep: Keeps bytes and returns their digest.
    """
    data, suffix, fields = event.data, event.suffix, dict(event.fields)
    said: dict[str, object] = {"name": clean_text(event.name), "kind": event.kind, "caption": event.caption}
    if data is None and len(dumped := json.dumps(fields, default=_plain).encode()) > _LARGEST_FIELDS:
        data, suffix, fields = dumped, ".json", {}
    if data is not None:
        text = _inline(event.kind, data)
        said |= {"bytes": len(data), "suffix": suffix}
        said |= {"text": text} if text is not None else {"digest": keep(data)}
    return said | {"fields": json.loads(json.dumps(fields, default=_plain)), "origin": event.origin}


def media(
    store: Ground, uid: str, name: str | None = None, kind: str | None = None, step: int | None = None
) -> list[MediaRow]:
    """Return the media of a run in the order of their steps; see `Store.media`."""
    from tracer.storage import snapshot as snapshots
    from tracer.storage import summaries

    summaries.ready(store, uid)

    def read(found: Snapshot, _: int) -> list[MediaRow]:
        from tracer.storage.log_rows import LogRow

        rows = [row for row in found.recent().rows if row.kind == "media"]
        files = found.of("logs")
        if files:
            from tracer.storage import duck

            duck.verify(files)
            with duck.cursor() as cursor, duck.translated(files):
                listed = {"files": [file.path for file in files]}
                rows = [LogRow(*row) for row in cursor.execute(_IN_FILES, listed).fetchall()] + rows
        return [_row(row) for row in rows]

    found = snapshots.consistently(store.catalog, store.base, uid, snapshots.nothing, read)
    chosen = [
        one
        for one in found
        if name in (None, one.name) and kind in (None, one.kind) and (step is None or one.step == step)
    ]
    return sorted(chosen, key=lambda one: (one.step, one.time, one.name))


def media_summary(store: Ground, uid: str) -> list[MediaSummary]:
    """Return what media a run has, without the pieces; opens no Parquet file."""
    from tracer.storage import snapshot as snapshots
    from tracer.storage import summaries

    summaries.ready(store, uid)

    def ask(catalog: Catalog, run: int) -> list[tuple[str, str, int, int, int]]:
        return catalog.rows("SELECT name, kind, n, first_step, last_step FROM media WHERE run = ?", (run,))

    def read(found: Snapshot, rows: list[tuple[str, str, int, int, int]]) -> list[MediaSummary]:
        known = {(row[0], row[1]): MediaSummary(*row) for row in rows}
        for row in found.recent().rows:
            if row.kind == "media":
                key = (row.name or "", str(row.object().get("kind", "")))
                old = known.get(key, MediaSummary(*key, 0, row.step, row.step))
                first, last = min(old.first_step, row.step), max(old.last_step, row.step)
                known[key] = MediaSummary(*key, old.n + 1, first, last)
        return [known[key] for key in sorted(known)]

    return snapshots.consistently(store.catalog, store.base, uid, ask, read)


def media_bytes(run_folder: str, row: MediaRow) -> bytes:
    """Return the bytes of a piece of media, after they were compared with their SHA-256.

    Raises:
        StoreError: They are missing or damaged.
    """
    if row.digest is None:
        return (row.text or "").encode() if row.text is not None else json.dumps(dict(row.fields)).encode()
    path = content_path(run_folder, row.digest)
    fact = damage(path, row.digest, row.bytes)
    if fact:
        message = f"{row.kind} {row.name!r} of step {row.step} is damaged: {path}: {fact}."
        raise StoreError(message)
    with open_regular(path) as file:
        return file.read()


def media_path(run_folder: str, row: MediaRow) -> str | None:
    """Return where the bytes of a piece of media lie, or None where they stand in the record."""
    return None if row.digest is None else content_path(os.path.abspath(run_folder), row.digest)


def _row(row: LogRow) -> MediaRow:
    """Return what a row of the family `logs` says."""
    said = row.object()
    fields, size = said.get("fields"), said.get("bytes")
    return MediaRow(
        name=row.name or "", kind=str(said.get("kind", "")), step=row.step, time=row.time, rank=row.rank,
        caption=_optional(said.get("caption")), digest=_optional(said.get("digest")),
        bytes=size if isinstance(size, int) else 0, suffix=str(said.get("suffix") or ""),
        text=_optional(said.get("text")), origin=str(said.get("origin") or events.USER),
        fields=fields if isinstance(fields, dict) else {},
    )  # fmt: skip


def _inline(kind: str, data: bytes) -> str | None:
    """Return small text as text, else None."""
    if kind not in _TEXTS or len(data) > _INLINE_BYTES:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _plain(value: Any) -> object:  # noqa: ANN401 -- whatever a framework put in
    """Return an array or a number of numpy or torch as JSON holds it."""
    convert = getattr(value, "tolist", None)
    return convert() if callable(convert) else str(value)


def _optional(value: object) -> str | None:
    """Return text, or None."""
    return None if value is None else str(value)


__all__ = ["MediaRow", "MediaSummary", "media", "media_bytes", "media_path", "media_summary", "payload_of"]
