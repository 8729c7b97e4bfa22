"""`tracer run`: start a program and record it, with no change to it."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from tracer.cli.output import Show
from tracer.cli.terminal import Terminal
from tracer.errors import CommandError

if TYPE_CHECKING:
    from tracer.config import Config

_OUTPUTS = ("wrap", "fd", "off")


class Command(click.Command):
    """Its own options end where the program's words begin: at the first that is no option, at `-m`, or after `--`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave the program's words alone, whatever they look like."""
        at = self._first_word(args)
        rest = args[at + 1 :] if args[at : at + 1] == ["--"] else args[at:]
        return super().parse_args(ctx, [*args[:at], "--", *rest])

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Show the three forms."""
        formatter.write_usage(ctx.command_path, "[OPTIONS] SCRIPT.py [ARGUMENTS]…\n-m MODULE [ARGUMENTS]…\nCOMMAND …")

    def _first_word(self, args: Sequence[str]) -> int:
        """Return where the program's words begin."""
        takes_value = {
            name: not option.is_flag
            for option in self.params
            if isinstance(option, click.Option)
            for name in option.opts
        }
        at = 0
        while at < len(args):
            word = args[at]
            if word in ("-m", "--") or not word.startswith("-") or word == "-":
                break
            at += 2 if takes_value.get(word) else 1
        return min(at, len(args))


@click.command("run", cls=Command)
@click.option("--project", help="Project of the run; else TRACER_PROJECT.")
@click.option("--name", "run_name", help="Name of the run; made from date and host when absent.")
@click.option("--tag", "tags", multiple=True, help="A tag of the run; may be repeated.")
@click.option("--notes", help="Free text about the run.")
@click.option("--capture", metavar="LIST", default="auto", help="Frameworks: auto, off, names, or -names to leave out.")
@click.option(
    "--output",
    type=click.Choice(_OUTPUTS),
    default="wrap",
    help="What is kept of the output: Python's, also that of libraries and children (fd), or none.",
)
@click.option(
    "--loss", metavar="FILE:FUNCTION", help="The function whose return value is the loss, in a file or module."
)
@click.option("--replace", is_flag=True, help="Record calls of wandb and mlflow here instead of there.")
@click.option("--storage", metavar="PATH", help="Folder of the store.")
@click.option("--dry-run", is_flag=True, help="Show what would be captured, and start nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: print one JSON document.")
@click.option("--quiet", "-q", is_flag=True, help="Print nothing about the run.")
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run_program(  # noqa: PLR0913 -- one for each option
    ctx: click.Context,
    /,
    words: tuple[str, ...],
    *,
    tags: tuple[str, ...],
    capture: str,
    output: str,
    loss: str | None,
    replace: bool,
    storage: str | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    **labels: object,
) -> None:
    """Start a program and record it, with no change to it.

    SCRIPT.py and -m MODULE are run by this Python; anything else is a command, such as torchrun or a script of the
    shell. What it starts in turn belongs to the same run. Write -- before a command that begins with a dash.
    """
    from tracer.activation import variables
    from tracer.activation.commands import command_of, start
    from tracer.capture.frameworks import chosen

    names = chosen(capture.split(","))
    if dry_run:
        _preview(names, output, words, Show(Terminal.of(sys.stdout), as_json=as_json))
        return
    if not words:
        message = "There is nothing to run. Name a script, a command, or `-m` and a module: tracer run train.py"
        raise CommandError(message)
    command = command_of(words)
    settings = {name: said for name, said in labels.items() if said}
    settings |= {"track_output": output, "capture": capture, **({"tags": list(tags)} if tags else {})}
    folder, environment = _prepared(settings, storage or ctx.find_root().obj, words)
    environment |= {variables.CAPTURE: capture, variables.OUTPUT: output}
    if loss:
        environment[variables.RETURN] = loss
    if replace:
        environment[variables.REPLACE] = "1"
    if quiet:
        environment["TRACER_QUIET"] = "1"
    start(command, environment, folder)


def _prepared(settings: Mapping[str, object], storage: str | None, words: Sequence[str]) -> tuple[str, dict[str, str]]:
    """Make the run, and the environment through which the program finds it."""
    from tracer import runfile
    from tracer.activation.carriers import put_in
    from tracer.activation.variables import AUTO, COMMAND, RUN_ID, STORAGE
    from tracer.config import Config
    from tracer.record.identity import Place, job_key
    from tracer.record.opening import open_run

    config = Config.load({**settings, **({"storage_path": storage} if storage else {})})
    environment, job = dict(os.environ), job_key()
    # An id in the environment is the user's wish, unless this command was started by another `tracer run`.
    uid = os.environ.get(RUN_ID) if COMMAND not in os.environ else None
    uid = uid or (runfile.shared_id("command", job) if job else runfile.new_id())
    folder, facts = open_run(config, Place.here(), {}, None, join=uid)
    if Place.here().rank == 0:
        facts["environment"] = {**facts.get("environment", {}), "command": _described(words, config)}
        runfile.replace(folder, facts)
    environment |= {AUTO: "1", RUN_ID: uid, STORAGE: config.storage_path}
    put_in(environment)
    return folder, environment


def _described(words: Sequence[str], config: Config) -> dict[str, object]:
    """Return the command line as the run keeps it, without secrets; what the program finds out itself replaces it."""
    from tracer.capture.redaction import Redactor

    redactor = Redactor.of(config)
    place = "environment.command.argv"
    return {"argv": redactor.arguments(list(words), place), "folder": os.getcwd()}


def _preview(names: Sequence[str], output: str, words: Sequence[str], show: Show) -> None:
    """Show what would be captured."""
    from tracer.activation.commands import command_of
    from tracer.cli.run_preview import preview, preview_blocks

    command = command_of(words) if words else None
    found = preview(names, output, command)
    show(found, blocks=lambda: preview_blocks(found))


__all__ = ["run_program"]
