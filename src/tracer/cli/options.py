"""The options that all commands share, and how a command gets its store.

`@reading()` adds `--storage --json --quiet --no-color` (and `--csv` where an answer has rows) and calls the command
with an open `store` and with `show`, which writes the answer. `@changing()` is the same for commands that change the
store.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from tracer.cli.output import Show
from tracer.cli.terminal import Terminal
from tracer.errors import CommandError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from tracer.storage.store import Store
    from tracer.storage.values import RunRow

Command = TypeVar("Command", bound=Callable[..., Any])
_FOLDER = ".tracer"


def storage_path(given: str | None) -> str:
    """Return the folder of the store: as given, as TRACER_STORAGE says, here, or in the nearest folder above.

    Args:
        given: What `--storage` said.

    Returns:
        A path; `./.tracer` when there is none yet.
    """
    wanted = given or os.environ.get("TRACER_STORAGE")
    if wanted:
        return os.path.expanduser(wanted)
    folder = os.getcwd()
    while True:
        if os.path.isdir(os.path.join(folder, _FOLDER)):
            return os.path.relpath(os.path.join(folder, _FOLDER))
        above = os.path.dirname(folder)
        if above == folder:
            return _FOLDER
        folder = above


def reading(*, rows: bool = False, store: bool = True) -> Callable[[Command], Command]:
    """Return what adds the options of a reading command, and hands it `store` and `show`.

    Args:
        rows: Whether `--csv` makes sense.
        store: Whether the command needs a store that exists; else it gets `storage`, its path.

    Returns:
        The decorator.
    """
    options = [
        click.option("--storage", "storage", metavar="PATH", help="Folder of the store.", shell_complete=_folders),
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
        *([click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")] if rows else []),
        click.option("--quiet", "-q", is_flag=True, help="Print the answer only, no remarks."),
        click.option("--no-color", is_flag=True, help="Print without colours."),
    ]

    def decorate(command: Command) -> Command:
        wrapped = _with_store(command) if store else _with_path(command)
        for option in reversed(options):
            wrapped = option(wrapped)
        return wrapped

    return decorate


def changing() -> Callable[[Command], Command]:
    """Return what adds the shared options to a command that changes the store."""
    return reading()


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something is destroyed; without a terminal there is nobody to ask.

    Args:
        question: What will happen.
        yes: Whether `--yes` answered already.

    Raises:
        CommandError: Nobody can answer, or the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        message = f"{question} There is no terminal to answer on. Say so with --yes."
        raise CommandError(message)
    if not click.confirm(question, err=True):
        message = "Nothing was changed."
        raise CommandError(message, exit_code=1)


def one_run(store: Store, name: str, show: Show) -> RunRow:
    """Return the run that a name means, and say so when it means several."""
    from tracer.render.formats import clean

    run = store.run(name)
    if name == run.name and not show.quiet:
        others = len(store.matches(name)) - 1
        if others > 0:
            runs = "one more run has" if others == 1 else f"{others} more runs have"
            show.note(f"{runs} the name {clean(name)!r}; this is the newest, {run.uid}. Name the others by id.")
    return run


def several_runs(store: Store, names: tuple[str, ...], show: Show) -> list[RunRow]:
    """Return the runs that names mean, each once, in order."""
    runs = [one_run(store, name, show) for name in names]
    return list({run.uid: run for run in runs}.values())


def _with_store(command: Command) -> Command:
    """Open the store for a command and close it afterwards."""

    @functools.wraps(command)
    def run(*, storage: str | None, **options: object) -> object:
        from tracer.storage.store import Store

        show = _show(options)
        with Store.open(storage_path(storage or _of_group())) as opened:
            return command(store=opened, show=show, **options)

    return cast("Command", run)


def _with_path(command: Command) -> Command:
    """Give a command the path of a store that need not exist."""

    @functools.wraps(command)
    def run(*, storage: str | None, **options: object) -> object:
        show = _show(options)
        return command(storage=storage_path(storage or _of_group()), show=show, **options)

    return cast("Command", run)


def _show(options: dict[str, object]) -> Show:
    """Take the shared options out of all, and return what writes the answer."""
    as_json, as_csv = bool(options.pop("as_json")), bool(options.pop("as_csv", False))
    quiet, no_color = bool(options.pop("quiet")), bool(options.pop("no_color"))
    if as_json and as_csv:
        message = "--json and --csv were both given. Choose one."
        raise click.UsageError(message)
    terminal = Terminal.of(sys.stdout, no_color=no_color)
    return Show(terminal, as_json=as_json, as_csv=as_csv, quiet=quiet, no_color=no_color)


def _of_group() -> str | None:
    """Return what `--storage` before the command's name said."""
    found = click.get_current_context().find_root().obj
    return found if isinstance(found, str) else None


def _folders(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Complete folders."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


__all__ = ["changing", "confirm", "one_run", "reading", "several_runs", "storage_path"]
