"""What a run kept beside its numbers, as the run's page shows it: artifacts and media."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracer.render.formats import clean, size
from tracer.render.tables import Block, Heading, Lines, Styled, Table

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.storage.values import RunRow

_MOST = 12


def kept_blocks(store: Store, run: RunRow) -> list[Block]:
    """Return the artifacts that a run made and used, and its media, in short."""
    return [*_artifacts(store, run), *_media(store, run)]


def kept_record(store: Store, run: RunRow) -> dict[str, list[dict[str, Any]]]:
    """Return the same for JSON."""
    made, used = store.artifacts(run.uid), store.artifacts(run.uid, used=True)
    return {
        "artifacts": [{"artifact": one.reference, "type": one.type, "bytes": one.bytes} for one in made],
        "used_artifacts": [
            {"artifact": one.reference, "project": one.project, "run": one.record.maker} for one in used
        ],
        "media": [
            {
                "name": one.name,
                "kind": one.kind,
                "count": one.n,
                "first_step": one.first_step,
                "last_step": one.last_step,
            }
            for one in store.media_summary(run.uid)
        ],
    }


def _artifacts(store: Store, run: RunRow) -> list[Block]:
    """Return what the run made and used."""
    found = [("made", one) for one in store.artifacts(run.uid)]
    found += [("used", one) for one in store.artifacts(run.uid, used=True)]
    if not found:
        return []
    rows = tuple(
        (Styled(clean(one.reference), "cyan"), how, clean(one.type), "-" if one.bytes is None else size(one.bytes))
        for how, one in found[-_MOST:]
    )
    blocks: list[Block] = [Heading("Artifacts"), Table(("artifact", "", "type", "size"), rows, frozenset({3}))]
    if len(found) > _MOST:
        blocks.append(Lines((f"… and {len(found) - _MOST} more: tracer artifacts list {clean(run.name)}",)))
    return blocks


def _media(store: Store, run: RunRow) -> list[Block]:
    """Return what there is to look at and to listen to."""
    found = store.media_summary(run.uid)
    if not found:
        return []
    rows = tuple(
        (Styled(clean(one.name), "cyan"), clean(one.kind), str(one.n), f"{one.first_step}-{one.last_step}")
        for one in found[:_MOST]
    )
    blocks: list[Block] = [Heading("Media"), Table(("name", "kind", "count", "steps"), rows, frozenset({2}))]
    if len(found) > _MOST:
        blocks.append(Lines((f"… and {len(found) - _MOST} more names",)))
    return blocks


__all__ = ["kept_blocks", "kept_record"]
