"""`tracer restore`: runs back from the trash."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from tracer.cli.options import reading
from tracer.cli.output import Rows, Show
from tracer.cli.records import run_record
from tracer.errors import RunNotFound
from tracer.render.formats import clean, iso, size, when
from tracer.render.tables import Block, Lines, Styled, Table

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.storage.values import RunRow


@click.command("restore")
@click.argument("names", metavar="[RUN…]", nargs=-1)
@reading(rows=True)
def restore_runs(names: tuple[str, ...], store: Store, show: Show) -> None:
    """Bring runs back from the trash; without a name, show what is in it."""
    trash = store.trash()
    if not names:
        show(
            {"trash": [{**run_record(run), "trashed": iso(run.trashed)} for run in trash]},
            blocks=lambda: _blocks(trash),
            rows=lambda: Rows(
                ("id", "name", "project", "trashed", "bytes"),
                [(run.uid, run.name, run.project, iso(run.trashed), run.bytes) for run in trash],
            ),
        )
        return
    runs = [_found(trash, name) for name in names]
    for run in runs:
        store.restore(run.uid)
        show.done(f"Restored run {clean(run.name)!r}.")
    if show.as_json:
        show({"restored": [run.uid for run in runs]}, blocks=list)


def _blocks(trash: Sequence[RunRow]) -> list[Block]:
    """Return what is in the trash."""
    if not trash:
        return [Lines(("The trash is empty.",))]
    rows = tuple(
        (Styled(clean(run.name), "cyan"), run.uid, clean(run.project), when(run.trashed), size(run.bytes))
        for run in trash
    )
    return [Table(("name", "id", "project", "deleted", "size"), rows, frozenset({4}))]


def _found(trash: Sequence[RunRow], name: str) -> RunRow:
    """Return the run in the trash that a name, an id or its beginning means; of equal names the last deleted."""
    newest = sorted(trash, key=lambda run: -(run.trashed or 0))
    found = [run for run in newest if name in (run.uid, run.name)]
    found = found or [run for run in newest if run.uid.startswith(name)]
    if found:
        return found[0]
    near = difflib.get_close_matches(name, [run.name for run in trash], n=3)
    hint = f" Near: {', '.join(near)}." if near else " `tracer restore` alone shows what is in it."
    message = f"No run {name!r} is in the trash.{hint}"
    raise RunNotFound(message)


__all__ = ["restore_runs"]
