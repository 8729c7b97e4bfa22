"""`tracer delete`: runs into the trash, or off the disk."""

# ruff: noqa: FBT001 -- click hands over one argument for each option, by name

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from tracer.cli import completion
from tracer.cli.options import changing, confirm, several_runs
from tracer.cli.output import Show
from tracer.errors import CommandError, RunNotFound
from tracer.render.formats import clean, size

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.storage.values import RunRow

_MOST_NAMED = 10


@click.command("delete")
@click.argument("names", metavar="RUN…", nargs=-1, required=True, shell_complete=completion.runs)
@click.option("--now", is_flag=True, help="Free the disk at once; nothing can be restored.")
@click.option("--force", is_flag=True, help="Delete a run that is still running, too.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@changing()
def delete_runs(names: tuple[str, ...], now: bool, force: bool, yes: bool, store: Store, show: Show) -> None:
    """Move runs to the trash; `tracer restore` brings them back for seven days, then the disk is freed.

    With --now the disk is freed at once, also for runs that are in the trash already.
    """
    runs = _meant(store, names, show, with_trash=now)
    for run in runs:
        if run.is_live and not force:
            message = (
                f"Run {run.name!r} is still recording. Wait until it ends, or delete it all the same with --force."
            )
            raise CommandError(message)
    total = sum(run.bytes for run in runs)
    what = _named(runs)
    where = "for good" if now else "into the trash"
    confirm(f"Delete {what} ({size(total)}) {where}?", yes=yes)
    freed = sum(store.delete(run.uid, now=now, force=force) for run in runs)
    result = f"{size(freed)} freed." if now else "`tracer restore` brings it back within seven days."
    show.done(f"Deleted {what}. {result}")
    if show.as_json:
        show({"deleted": [run.uid for run in runs], "now": now, "bytes": freed}, blocks=list)


def _meant(store: Store, names: tuple[str, ...], show: Show, *, with_trash: bool) -> list[RunRow]:
    """Return the runs that names mean; those in the trash too where that makes sense."""
    if not with_trash:
        return several_runs(store, names, show)
    runs: dict[str, RunRow] = {}
    for name in names:
        try:
            found = several_runs(store, (name,), show)
        except RunNotFound:
            found = [run for run in store.trash() if name in (run.uid, run.name)][:1]
            if not found:
                raise
        runs.update({run.uid: run for run in found})
    return list(runs.values())


def _named(runs: list[RunRow]) -> str:
    """Return the runs' names, or how many there are."""
    if len(runs) > _MOST_NAMED:
        return f"{len(runs)} runs"
    return f"run{'s' if len(runs) > 1 else ''} " + ", ".join(repr(clean(run.name)) for run in runs)


__all__ = ["delete_runs"]
