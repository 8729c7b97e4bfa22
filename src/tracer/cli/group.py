"""The group of all commands: it knows their names and loads one when it is called; and `main`, which ends the process.

`tracer --help` reads names and sentences from the table below and imports click alone. Only `main` prints errors and
turns them into exit codes: 0 done, 1 the answer is no, 2 wrong usage or an unknown run, 3 the store cannot be read,
4 something remote cannot be reached, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence

import click

from tracer.errors import CommandError, MissingDependency, RunNotFound, StoreError, TracerError

#: Name → (module, function, sentence). The order is that of the help page.
COMMANDS = {
    "run": ("tracer.cli.run", "run_program", "Start a program and record it, with no change to it."),
    "list": ("tracer.cli.list", "list_runs", "Show the runs of a store: filter, sort, choose columns."),
    "show": ("tracer.cli.show", "show_run", "Show one run: status, parameters, metrics; live with --follow."),
    "compare": ("tracer.cli.compare", "compare_runs", "Show what differs between runs, and where their curves part."),
    "anomalies": ("tracer.cli.anomalies", "show_anomalies", "Show what went wrong in a run, and at which step."),
    "replay": ("tracer.cli.replay", "replay_capsule", "Run a step that went wrong again: where was the fault born?"),
    "capsule": ("tracer.cli.capsule", "capsule_group", "List, show, request and remove capsules of steps."),
    "logs": ("tracer.cli.logs", "show_logs", "Show what a run printed and logged: filter it, or follow it."),
    "plot": ("tracer.cli.plot", "plot_metrics", "Draw metrics in the terminal, or save them to a file."),
    "layers": ("tracer.cli.layers", "show_layers", "Show statistics of layers: heat map, one layer, histograms."),
    "query": ("tracer.cli.query", "query_store", "Ask the store a question in SQL; reading only."),
    "export": ("tracer.cli.export", "export_runs", "Write runs to files, or send them to another tracker."),
    "import": ("tracer.cli.import_", "import_runs", "Take in runs of MLflow, W&B, TensorBoard, Aim, CSV and others."),
    "migrate": ("tracer.cli.migrate", "migrate_runs", "Move runs from one tracker to another, and prove it."),
    "sync": ("tracer.cli.sync", "sync_runs", "Send what other trackers still miss of runs."),
    "artifacts": ("tracer.cli.artifacts", "artifacts_group", "List, show, fetch, compare and verify what runs kept."),
    "delete": ("tracer.cli.delete", "delete_runs", "Move runs to the trash, or free their disk space at once."),
    "restore": ("tracer.cli.restore", "restore_runs", "Bring runs back from the trash, or show what is in it."),
    "gc": ("tracer.cli.gc", "collect_garbage", "Show which runs are old; delete them with --apply."),
    "fsck": ("tracer.cli.fsck", "check_store", "Check every byte of a store, and mend what can be mended."),
    "settings": ("tracer.cli.settings", "show_settings", "Show every setting, and where its value comes from."),
    "info": ("tracer.cli.info", "show_info", "Show version, store, sizes, and what is installed."),
    "doctor": ("tracer.cli.doctor", "examine", "Look for what is wrong with installation and store."),
}  # fmt: skip
INTERRUPTED = 130
_UNREADABLE, _USAGE = 3, 2


class LazyGroup(click.Group):
    """A group whose commands live in modules that are imported when one of them is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's signature
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the module of a command and return it."""
        if cmd_name not in COMMANDS:
            return None
        import importlib

        module, function, _ = COMMANDS[cmd_name]
        found = getattr(importlib.import_module(module), function)
        return found if isinstance(found, click.Command) else None

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; a reader of its output that has seen enough is no error."""
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _leave_quietly()
            return 0
        return code

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that was named, or say which one is near."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            message = f"There is no command {args[0]!r}.{hint} `tracer --help` lists them all."
            raise click.UsageError(message, ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, _, sentence) in COMMANDS.items()])


def _show_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:  # noqa: ARG001, FBT001
    """Print the version and leave."""
    if value and not ctx.resilient_parsing:
        from tracer.version import __version__

        click.echo(f"tracer {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="A RUN is a name, an id, the unique beginning of an id, project/name, @last, or @last:2 for the one before.",
)
@click.option(
    "--storage",
    metavar="PATH",
    help="Folder of the store; else TRACER_STORAGE, ./.tracer, or the nearest .tracer in a parent folder.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
@click.pass_context
def cli(ctx: click.Context, storage: str | None) -> None:
    """Read what Tracer recorded: every run, every metric, what went wrong, and where it began."""
    ctx.obj = storage


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code.

    Args:
        arguments: What stands after `tracer`; the process' own arguments when absent.

    Returns:
        The exit code, as the head of this module lists them.

    Example:
        >>> main(["--version"])
        tracer 0.1.0
        0
    """
    _make_printable()
    try:
        code = cli.main(args=None if arguments is None else list(arguments), prog_name="tracer", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        _say("interrupted.")
        return INTERRUPTED
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (TracerError, ValueError, OSError) as error:
        _say(str(error))
        return _exit_code(error)
    return code if isinstance(code, int) else 0


def _exit_code(error: Exception) -> int:
    """Return the exit code of an error."""
    if isinstance(error, CommandError):
        return error.exit_code
    if isinstance(error, StoreError) and not isinstance(error, RunNotFound):
        return _UNREADABLE
    return 1 if isinstance(error, MissingDependency) else _USAGE


def _say(message: str) -> None:
    """Write an error for the user, safe to print whatever names it holds."""
    from tracer.render.formats import clean

    lines = [clean(line) for line in message.splitlines()] or [""]
    click.echo("tracer: " + "\n".join(lines), err=True)


def _make_printable() -> None:
    """See to it that a character the terminal lacks is shown as an escape instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _leave_quietly() -> None:
    """End without a word: the reader of the pipe has seen enough."""
    # What is still in Python's buffer would fail once more when the interpreter ends.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


__all__ = ["COMMANDS", "INTERRUPTED", "cli", "main"]
