"""The other trackers a run goes to, as its page shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracer import cursors
from tracer.render.formats import clean
from tracer.render.tables import Block, Heading, Lines, Styled, Table

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.storage.values import RunRow

_COLOURS = {cursors.COMPLETE: "green", cursors.ACTIVE: "green", cursors.STARTING: "yellow"}


def mirror_blocks(store: Store, run: RunRow) -> list[Block]:
    """Return each back end with its state, what arrived there, and where a person sees it."""
    lanes = _lanes(store, run)
    if not lanes:
        return []
    rows = tuple(
        (
            clean(lane.name),
            Styled(lane.state, _COLOURS.get(lane.state, "red")),
            f"{lane.said.get('sent', 0):,}",
            clean(str(lane.said.get("reason") or lane.said.get("url") or "")),
        )
        for lane in lanes
    )
    blocks: list[Block] = [
        Heading("Mirrors"),
        Table(("back end", "state", "sent", ""), rows, right=frozenset({2}), may_wrap=frozenset({3})),
    ]
    if not run.is_live and any(lane.state != cursors.COMPLETE for lane in lanes):
        blocks.append(Lines((f"not everything has arrived: `tracer sync {clean(run.name)}` sends the rest",)))
    return blocks


def mirror_record(store: Store, run: RunRow) -> list[dict[str, Any]]:
    """Return the same for JSON."""
    unset = {"reason": "", "sent": 0, "rejected": 0, "remote": {}, "url": None, "updated": None}
    return [
        {"backend": lane.name, "state": lane.state, **{name: lane.said.get(name, none) for name, none in unset.items()}}
        for lane in _lanes(store, run)
    ]


def _lanes(store: Store, run: RunRow) -> list[cursors.Cursor]:
    """Return the lanes of a run."""
    return cursors.of_run(store.run_folder(run))


__all__ = ["mirror_blocks", "mirror_record"]
