"""What the program's own parser made of its arguments: they become parameters of the run.

    argparse     ArgumentParser.parse_known_args     transformers' HfArgumentParser too
    click        Command.invoke                      typer too, also the copy of click that it carries
    absl         FlagValues.__call__
    hydra        the task function's configuration, resolved
    fire         the call it makes of the arguments

The first parser of the process counts; later ones belong to tools and libraries, and our own command line to nobody.
"""

# ruff: noqa: ANN401 -- other people's parsers and functions, handed on as they are

from __future__ import annotations

import contextlib
import functools
import inspect
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from tracer.capture import parsed_arguments
from tracer.capture.parsed_arguments import Parsed
from tracer.capture.patching import Hook, Patch


class First:
    """Whose arguments are the program's: the parser that is used first, for the whole of its work."""

    def __init__(self) -> None:
        self.who: object = None
        self._here = threading.local()

    def claim(self, who: object) -> bool:
        """Tell whether this parser is the first, or has been before."""
        self.who = who if self.who is None else self.who
        return self.who is who

    @contextlib.contextmanager
    def alone(self) -> Any:
        """Tell whether no other parser is at work on this thread: one that a parser calls is a part of it."""
        depth = getattr(self._here, "depth", 0)
        self._here.depth = depth + 1
        try:
            yield depth == 0
        finally:
            self._here.depth = depth


first = First()
_argparse, _click, _typer = Hook("arguments.argparse"), Hook("arguments.click"), Hook("arguments.typer")
_absl, _hydra, _fire = Hook("arguments.absl"), Hook("arguments.hydra"), Hook("arguments.fire")


def _tell(hook: Hook, parsed: Parsed) -> None:
    """Hand on what was parsed."""
    for event in parsed.events():
        hook.emit(event)


def _listen_to_argparse(original: Callable[..., Any]) -> Callable[..., Any]:
    """Hear `parse_known_args`, through which every way of parsing goes."""

    def parse_known_args(self: Any, args: Sequence[str] | None = None, namespace: Any = None) -> Any:
        with first.alone() as is_outermost:
            result = original(self, args, namespace)
        if _argparse.is_on and is_outermost:
            with _argparse:
                given = sys.argv[1:] if args is None else list(args)
                if _is_programs(self, given, result[0]) and first.claim(self):
                    _tell(_argparse, parsed_arguments.of_namespace(result[0], self, given))
        return result

    return parse_known_args


def _is_programs(parser: Any, given: Sequence[str], namespace: object) -> bool:
    """Tell whether a parser reads the command line, and is not a part of hydra, of fire or of ours."""
    is_command_line = list(given) == sys.argv[1:]
    knows_nothing = not given and type(parser).__module__.startswith("fire.")
    return (
        is_command_line
        and not knows_nothing
        and not hasattr(namespace, "hydra_help")
        and not parsed_arguments.is_ours(sys.argv[0] if sys.argv else "")
    )


def _listen_to_click(hook: Hook) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what hears `Command.invoke`: of a group, and of the command below it."""

    def make(original: Callable[..., Any]) -> Callable[..., Any]:
        def invoke(self: Any, ctx: Any) -> Any:
            if hook.is_on:
                with hook:
                    root = ctx.find_root()
                    ours = parsed_arguments.is_ours(getattr(root.command.callback, "__module__", "") or "")
                    if not ours and first.claim(root.command):
                        _tell(hook, parsed_arguments.of_context(ctx))
            return original(self, ctx)

        return invoke

    return make


def _listen_to_absl(original: Callable[..., Any]) -> Callable[..., Any]:
    """Hear the global flags being parsed."""

    def __call__(self: Any, argv: Sequence[str], *rest: Any, **named: Any) -> Any:  # noqa: N807 -- as there
        result = original(self, argv, *rest, **named)
        if _absl.is_on:
            with _absl:
                if self is sys.modules["absl.flags"].FLAGS and first.claim(self):
                    _tell(_absl, parsed_arguments.of_flags(self))
        return result

    return __call__


def _listen_to_hydra(original: Callable[..., Any]) -> Callable[..., Any]:
    """Hear the configuration that a task function gets."""

    def _run_hydra(*given: Any, task_function: Callable[..., Any], **named: Any) -> Any:
        @functools.wraps(task_function)  # hydra looks behind it, for the file that defines the function
        def task(config: Any) -> Any:
            if _hydra.is_on:
                with _hydra:
                    if first.claim(task_function):
                        _tell(_hydra, parsed_arguments.of_hydra(config))
            return task_function(config)

        return original(*given, task_function=task, **named)

    return _run_hydra


def _listen_to_fire(original: Callable[..., Any]) -> Callable[..., Any]:
    """Hear what fire makes of the arguments for the function it is about to call."""

    def _MakeParseFn(fn: Any, metadata: Any) -> Any:  # noqa: N802 -- as there
        parse = original(fn, metadata)

        @functools.wraps(parse)
        def heard(args: Any) -> Any:
            result = parse(args)
            if _fire.is_on:
                with _fire:
                    if not inspect.isroutine(fn) or not parsed_arguments.is_ours(fn.__module__ or ""):
                        (values, named), *_ = result
                        if first.claim(fn):
                            _tell(_fire, parsed_arguments.of_call(fn, values, named))
            return result

        return heard

    return _MakeParseFn


def _on(
    hook: Hook, owner: str, attribute: str, make: Callable[..., Any], parameters: tuple[str, ...]
) -> Callable[[ModuleType], Callable[[], None]]:
    """Return what puts a hook into a class of a module, or into the module itself."""

    def install(module: ModuleType) -> Callable[[], None]:
        place = getattr(module, owner) if owner else module
        undo = hook.wrap(place, attribute, make, parameters=parameters)

        def out() -> None:
            undo()
            first.who = None

        return out

    return install


def _row(hook: Hook, module: str, place: str, package: str, tested: tuple[str, str], **how: Any) -> Patch:
    """Return a row of the table."""
    owner, _, attribute = place.rpartition(".")
    return Patch(
        hook,
        module=module,
        attribute=place,
        package=package,
        tested=tested,
        install=_on(hook, owner, attribute, how["make"], how["parameters"]),
    )


_INVOKE = {"parameters": ("self", "ctx")}
PATCHES = (
    _row(
        _argparse, "argparse", "ArgumentParser.parse_known_args", "python", ("3.11", "3.13"),
        make=_listen_to_argparse, parameters=("self", "args", "namespace"),
    ),
    _row(_click, "click.core", "Command.invoke", "click", ("8.1", "8.3"), make=_listen_to_click(_click), **_INVOKE),
    _row(
        _typer, "typer._click.core", "Command.invoke", "typer", ("0.29", "0.29"),
        make=_listen_to_click(_typer), **_INVOKE,
    ),
    _row(
        _absl, "absl.flags", "FlagValues.__call__", "absl-py", ("2.0", "2.5"),
        make=_listen_to_absl, parameters=("self", "argv"),
    ),
    _row(
        _hydra, "hydra.main", "_run_hydra", "hydra-core", ("1.3", "1.3"),
        make=_listen_to_hydra, parameters=("args", "args_parser", "task_function"),
    ),
    _row(
        _fire, "fire.core", "_MakeParseFn", "fire", ("0.5", "0.7"),
        make=_listen_to_fire, parameters=("fn", "metadata"),
    ),
)  # fmt: skip


def parsed_before() -> list[Any]:
    """Return events about what was parsed before the run began, where a parser says so itself.

    Hydra, absl and click know what they parsed; of argparse it is known where the program keeps the result in its main
    module. Nothing is searched for in the frames of functions.
    """
    if first.who is not None:  # it was heard as it happened
        return []
    for look in (
        parsed_arguments.hydra_now,
        parsed_arguments.flags_now,
        parsed_arguments.context_now,
        parsed_arguments.namespace_now,
    ):
        parsed = look()
        if parsed is not None:
            return parsed.events()
    return []


__all__ = ["PATCHES", "Mapping", "first", "parsed_before"]
