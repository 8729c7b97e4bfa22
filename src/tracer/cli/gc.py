"""`tracer gc`: what is old, what it would free, and with `--apply` the freeing."""

# ruff: noqa: FBT001 -- click hands over one argument for each option, by name

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tracer.cli.options import confirm, reading
from tracer.cli.output import Rows, Show
from tracer.render.formats import clean, size, when
from tracer.render.tables import Block, Lines, Styled, Table

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.storage.values import Expired


@click.command("gc")
@click.option("--apply", is_flag=True, help="Delete them; without it nothing is changed.")
@click.option(
    "--older-than", "days", type=click.FloatRange(min=0), metavar="DAYS", help="Also runs that ended so many days ago."
)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@reading(rows=True)
def collect_garbage(apply: bool, days: float | None, yes: bool, store: Store, show: Show) -> None:
    """Show which runs are past their time and what they would free; delete them with --apply.

    A run is past its time when the retention that was set for it is over, or with --older-than when it ended that long
    ago. Runs tagged `keep` or `pinned` stay, and so do runs that still live.
    """
    with show.progress("looking for old runs"):
        found = store.expire(apply=False, older_than_days=days)
    if apply and found:
        total = size(sum(one.bytes for one in found))
        confirm(f"Delete {len(found)} run{'s' if len(found) > 1 else ''} ({total})?", yes=yes)
    if apply:  # with nothing to delete, too: what is in the trash long enough goes now
        with show.progress("deleting old runs") as progress:
            found = store.expire(apply=True, older_than_days=days, progress=progress)
    show(
        {"applied": apply, "bytes": sum(one.bytes for one in found), "runs": [_record(one) for one in found]},
        blocks=lambda: _blocks(found, applied=apply),
        rows=lambda: Rows(
            ("id", "name", "because", "bytes", "applied"),
            [(one.run.uid, one.run.name, one.because, one.bytes, one.applied) for one in found],
        ),
    )


def _record(one: Expired) -> dict[str, object]:
    """Return an old run for JSON."""
    return {
        "id": one.run.uid,
        "name": one.run.name,
        "because": one.because,
        "bytes": one.bytes,
        "applied": one.applied,
    }


def _blocks(found: Sequence[Expired], *, applied: bool) -> list[Block]:
    """Return the old runs and what they take."""
    if not found:
        return [Lines(("Nothing is past its time.",))]
    rows = tuple(
        (Styled(clean(one.run.name), "cyan"), when(one.run.started), size(one.bytes), clean(one.because))
        for one in found
    )
    total = size(sum(one.bytes for one in found))
    end = (
        f"{total} in the trash; the disk is freed in seven days."
        if applied
        else f"{total} in all; --apply deletes them."
    )
    return [Table(("name", "started", "size", "because"), rows, frozenset({2}), frozenset({3})), Lines((end,))]


__all__ = ["collect_garbage"]
