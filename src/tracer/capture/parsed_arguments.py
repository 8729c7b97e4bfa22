"""Arguments as a parser left them: names and values, and which of them were given rather than left at their default."""

# ruff: noqa: ANN401 -- other people's objects

from __future__ import annotations

import enum
import inspect
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tracer import events
from tracer.capture.portrayal import portrait

_PLAIN = (str, int, float, bool, type(None))


class Parsed:
    """What a parser found.

    Args:
        origin: Which parser: `argparse`, `click`, `absl`, `hydra` or `fire`.
        values: Name → value, of all.
        given: The names that stood on the command line or in a variable.

    Example:
        >>> parsed = Parsed("argparse", {"lr": 0.1, "seed": 0}, ["lr"])
        >>> parsed.events()[1].changes
        {'arguments': {'parser': 'argparse', 'given': {'lr': 0.1}, 'defaults': {'seed': 0}}}
    """

    def __init__(self, origin: str, values: Mapping[str, object], given: Iterable[str]) -> None:
        self.origin = origin
        self.values = {str(name): plain(value) for name, value in values.items()}
        self.given = frozenset(given)

    def events(self) -> list[Any]:
        """Return what is emitted: the parameters, and which of them were given."""
        parts: dict[str, dict[str, object]] = {"given": {}, "defaults": {}}
        for name, value in self.values.items():
            parts["given" if name in self.given else "defaults"][name] = value
        return [
            events.Parameters(self.values, self.origin),
            events.Metadata({"arguments": {"parser": self.origin, **parts}}),
        ]


def plain(value: object) -> object:  # noqa: PLR0911 -- one case per kind
    """Return a value as JSON holds it: paths and enumerations as text, functions by their name."""
    if isinstance(value, enum.Enum):
        return plain(value.value) if isinstance(value.value, _PLAIN) else value.name
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(part) for part in value]
    if hasattr(value, "name") and hasattr(value, "read"):  # a file that argparse has opened
        return str(value.name)
    return portrait(value)


def is_ours(name: str) -> bool:
    """Tell whether a module, or the program of a command line, is Tracer's own."""
    return name.partition(".")[0] == "tracer" or os.path.basename(name) == "tracer" or "/tracer/__main__" in name


def of_namespace(namespace: Any, parser: Any, tokens: Sequence[str]) -> Parsed:
    """Return what argparse found."""
    values = {name: value for name, value in vars(namespace).items() if not name.startswith("_")}
    return Parsed("argparse", values, _given(parser, tokens, values))


def _given(parser: Any, tokens: Sequence[str], values: Mapping[str, object]) -> set[str]:
    """Return the names that stand among the words of a command line: as options, shortened too, or by their value."""
    given = set()
    for action in _actions(parser):
        options = tuple(action.option_strings)
        if options:
            if any(_names(token, options, shortened=parser.allow_abbrev) for token in tokens):
                given.add(action.dest)
        elif action.dest in values and values[action.dest] != action.default:
            given.add(action.dest)
    return given


def _actions(parser: Any) -> list[Any]:
    """Return the arguments a parser knows, with those of the parsers below it."""
    found = []
    for action in parser._actions:  # noqa: SLF001 -- argparse has no other list of them
        found.append(action)
        below = action.choices if type(action).__name__ == "_SubParsersAction" else None
        for one in (below or {}).values():
            found += _actions(one)
    return found


def _names(token: str, options: tuple[str, ...], *, shortened: bool) -> bool:
    """Tell whether a word names one of the forms of an option."""
    word = token.partition("=")[0]
    for option in options:
        if word == option:
            return True
        if option.startswith("--"):
            if shortened and word.startswith("--") and len(word) > len("--") and option.startswith(word):
                return True
        elif token.startswith(option) and not token.startswith("--"):
            return True
    return False


def of_context(context: Any) -> Parsed:
    """Return what click found for a command and the groups above it."""
    values: dict[str, object] = {}
    given: set[str] = set()
    while context is not None:
        values = {**context.params, **values}
        for name in context.params:
            source = context.get_parameter_source(name)
            if source is not None and source.name in ("COMMANDLINE", "ENVIRONMENT", "PROMPT"):
                given.add(name)
        context = context.parent
    return Parsed("click", values, given)


def of_flags(flags: Any) -> Parsed:
    """Return what absl found, of the flags that are not absl's own."""
    values: dict[str, object] = {}
    given = set()
    for module, defined in flags.flags_by_module_dict().items():
        if module.startswith("absl.") or "/absl/" in module:
            continue
        for flag in defined:
            values[flag.name] = flag.value
            if flag.present:
                given.add(flag.name)
    return Parsed("absl", values, given)


def of_hydra(config: Any) -> Parsed:
    """Return a configuration with its references resolved; what the command line overrode is given."""
    omegaconf = sys.modules["omegaconf"]
    try:
        values = omegaconf.OmegaConf.to_container(config, resolve=True)
    except omegaconf.errors.OmegaConfBaseException:  # a value refers to nothing
        values = omegaconf.OmegaConf.to_container(config, resolve=False)
    given = set()
    door = getattr(sys.modules.get("hydra.core.hydra_config"), "HydraConfig", None)
    overrides = door.get().overrides.task if door is not None and door.initialized() else ()  # tests call it without
    for override in overrides:
        given.add(override.lstrip("+~").partition("=")[0].split(".")[0].partition("@")[0])
    return Parsed("hydra", values if isinstance(values, dict) else {}, given)


def of_call(function: Callable[..., Any], values: Sequence[object], named: Mapping[str, object]) -> Parsed:
    """Return what fire found for a function or a class."""
    signature = inspect.signature(function)
    bound = signature.bind_partial(*values, **named)
    everything = dict(bound.arguments)
    tokens = {token.lstrip("-").partition("=")[0].replace("-", "_") for token in sys.argv[1:] if token.startswith("-")}
    given = set()
    for name, parameter in signature.parameters.items():
        if name not in everything and parameter.default is not parameter.empty:
            everything[name] = parameter.default
        elif name in everything and (name in tokens or everything[name] != parameter.default):
            given.add(name)
    rest = next((name for name, one in signature.parameters.items() if one.kind is one.VAR_KEYWORD), None)
    if rest in everything:
        further = everything.pop(rest)
        everything.update(further)
        given |= set(further)
    return Parsed("fire", everything, given)


def namespace_now() -> Parsed | None:
    """Return the result of argparse that the main module holds, if it is the only one."""
    argparse, main = sys.modules.get("argparse"), sys.modules.get("__main__")
    if argparse is None or main is None:
        return None
    held = list(vars(main).values())
    found = {id(value): value for value in held if isinstance(value, argparse.Namespace)}
    if len(found) != 1:
        return None
    (namespace,) = found.values()
    parsers = {id(value): value for value in held if isinstance(value, argparse.ArgumentParser)}
    if len(parsers) == 1:
        return of_namespace(namespace, next(iter(parsers.values())), sys.argv[1:])
    words = {token.partition("=")[0].lstrip("-").replace("-", "_") for token in sys.argv[1:] if token.startswith("-")}
    values = vars(namespace)
    return Parsed("argparse", values, words & values.keys())


def flags_now() -> Parsed | None:
    """Return the flags of absl, if they were parsed."""
    flags = getattr(sys.modules.get("absl.flags"), "FLAGS", None)
    if flags is None or not flags.is_parsed():
        return None
    parsed = of_flags(flags)
    return parsed if parsed.values else None


def context_now() -> Parsed | None:
    """Return what click found, if one of its commands is being run."""
    for module in ("click.globals", "typer._click.globals"):
        current = getattr(sys.modules.get(module), "get_current_context", None)
        context = current(silent=True) if current is not None else None
        if context is not None and not is_ours(getattr(context.find_root().command.callback, "__module__", "") or ""):
            return of_context(context)
    return None


def hydra_now() -> Parsed | None:
    """Return the configuration that hydra wrote for the task that is being run."""
    hydra = sys.modules.get("hydra.core.hydra_config")
    if hydra is None or not hydra.HydraConfig.initialized():
        return None
    config = hydra.HydraConfig.get()
    folder = config.output_subdir
    if not folder:
        return None
    path = os.path.join(config.runtime.output_dir, folder, "config.yaml")
    if not os.path.exists(path):
        return None
    return of_hydra(sys.modules["omegaconf"].OmegaConf.load(path))


__all__ = [
    "Parsed", "context_now", "flags_now", "hydra_now", "is_ours", "namespace_now", "of_call", "of_context", "of_flags",
    "of_hydra", "of_namespace", "plain",
]  # fmt: skip
