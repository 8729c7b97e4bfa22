"""The model of a capsule, found in one of three ways: what the caller names, the trusted pickle, the recorded class.

Whichever way it came, it gets the capsule's parameters and buffers, and it must have exactly those.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor, nn

from tracer.errors import CapsuleError
from tracer.flight import pickles
from tracer.flight.contents import Contents
from tracer.flight.digests import clean_name
from tracer.flight.manifest import entry_of
from tracer.flight.plain import class_at
from tracer.flight.undisturbed import compiled_from, unwrapped

Entry = str | Callable[[], nn.Module]
_MOST_NAMED = 4


def find_model(contents: Contents, entry: Entry | None = None) -> nn.Module:
    """Return the model of a capsule, with its parameters, buffers and training flags.

    Args:
        contents: The capsule.
        entry: What builds the model: a callable, `"file.py:build"` or `"package.module:build"`.

    Returns:
        The model; compiled if it was.

    Raises:
        CapsuleError: No way leads to it, or what was found has other parameters.
    """
    tensors = contents.parameters()
    if entry is not None:
        model = _built(entry)
    else:
        data = contents.pickled_model()
        model = _from_pickle(contents, data, tensors) if data is not None else _from_class(contents)
    root = unwrapped(model)
    load(root, tensors)
    facts = contents.manifest["model"]
    set_flags(root, facts)
    return _compiled(model, facts)


def load(root: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give a model the values of a capsule.

    Raises:
        CapsuleError: Its parameters and buffers are not those of the capsule.
    """
    owned = {
        clean_name(name): tensor
        for name, tensor in [
            *root.named_parameters(remove_duplicate=False),
            *root.named_buffers(remove_duplicate=False),
        ]
    }
    missing, extra = sorted(set(tensors) - set(owned)), sorted(set(owned) - set(tensors))
    if missing or extra:
        message = f"The model that was built is another one: {_unlike(missing, extra)}."
        raise CapsuleError(message)
    for name, value in tensors.items():
        if owned[name].shape != value.shape:
            message = (
                f"The model that was built is another one: {name} has the shape {tuple(owned[name].shape)}, "
                f"the capsule's {tuple(value.shape)}."
            )
            raise CapsuleError(message)
        # `.data` keeps the object, and with it what is tied; the capsule's strides and type come along.
        if owned[name].data_ptr() != value.data_ptr() or not value.numel():
            owned[name].data = value.detach()


def set_flags(root: nn.Module, facts: Mapping[str, Any]) -> None:
    """Set training flags and what is frozen as they were."""
    flags = facts.get("training_flags") or {}
    training, unlike = bool(flags.get("training", True)), set(flags.get("except", ()))
    for name, module in root.named_modules():
        module.training = training != (clean_name(name) in unlike)
    frozen = set(facts.get("frozen", ()))
    for name, parameter in root.named_parameters():
        if parameter.is_floating_point() or parameter.is_complex():
            parameter.requires_grad_(clean_name(name) not in frozen)


def _compiled(model: nn.Module, facts: Mapping[str, Any]) -> nn.Module:
    """Return a model compiled as it was recorded."""
    parts = set(facts.get("compiled_modules", ()))
    for name, module in unwrapped(model).named_modules():
        if clean_name(name) in parts:
            module.compile()
    if facts.get("compiled") and compiled_from(model) is None:
        return cast("nn.Module", torch.compile(model))
    return model


def _built(entry: Entry) -> nn.Module:
    """Return what the caller's function builds."""
    build: Any = _named(entry) if isinstance(entry, str) else entry
    said = entry if isinstance(entry, str) else getattr(entry, "__name__", repr(entry))
    if isinstance(build, nn.Module) and not isinstance(build, type):
        return build
    if not callable(build):
        message = f"The entry {said!r} is a {type(build).__name__}. Name a function that returns the model."
        raise CapsuleError(message)
    try:
        model = build()
    except TypeError as error:
        message = f"The entry {said!r} cannot be called without arguments ({error}). It has to return the model."
        raise CapsuleError(message) from error
    if not isinstance(model, nn.Module):
        message = (
            f"The entry {said!r} returned a {type(model).__name__}; it has to return the model, a torch.nn.Module."
        )
        raise CapsuleError(message)
    return model


def _named(entry: str) -> Any:  # noqa: ANN401 -- whatever has that name
    """Return the object that `file.py:name` or `module:name` means."""
    place, colon, name = entry.rpartition(":")
    if not colon or not place or not name:
        message = f"The entry {entry!r} is not of the form file.py:build or package.module:build."
        raise CapsuleError(message)
    try:
        found: Any = _module_of_file(place) if place.endswith(".py") else _imported(place)
    except (ImportError, OSError, SyntaxError) as error:
        message = f"The entry {entry!r} cannot be imported ({type(error).__name__}: {error})."
        raise CapsuleError(message) from error
    for part in name.split("."):
        if not hasattr(found, part):
            message = f"There is no {name!r} in {place}. The entry has to name what builds the model."
            raise CapsuleError(message)
        found = getattr(found, part)
    return found


def _imported(name: str) -> ModuleType:
    """Return a module that the user names; the working folder is looked in, as Python itself does for -m."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    return importlib.import_module(name)


def _module_of_file(path: str) -> ModuleType:
    """Return the module of a file, under the name that it has when its neighbours import it."""
    path = os.path.abspath(path)
    name = os.path.splitext(os.path.basename(path))[0]
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == path:
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None or not os.path.isfile(path):
        message = f"there is no file {path}"
        raise FileNotFoundError(message)
    if os.path.dirname(path) not in sys.path:
        sys.path.insert(0, os.path.dirname(path))
    module = importlib.util.module_from_spec(spec)
    if loaded is None:
        sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _from_pickle(contents: Contents, data: bytes, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return the model of the trusted pickle; where a class is not installed, the capsule's own sources are."""
    buffers = set(contents.manifest["model"].get("buffers", ()))
    made: dict[int, Tensor] = {}
    for name, tensor in tensors.items():
        made.setdefault(id(tensor), tensor if name in buffers else nn.Parameter(tensor.detach(), requires_grad=False))
    named = {name: made[id(tensor)] for name, tensor in tensors.items()}
    with _sources_importable(contents):
        return pickles.loaded_model(data, named)


@contextlib.contextmanager
def _sources_importable(contents: Contents) -> Iterator[None]:
    """Let modules that are not installed be imported from the trusted capsule's sources, as long as the block lasts."""
    entries = [name for name in contents.archive.names if name.startswith("source/") and "__main__" not in name]
    if not entries:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="tracer-source-") as folder:
        for name in entries:
            path = os.path.join(folder, *name.split("/")[1:])
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(contents.archive.read(name))
        sys.path.append(folder)
        try:
            yield
        finally:
            sys.path.remove(folder)


def _from_class(contents: Contents) -> nn.Module:
    """Return the model of the recorded class, if it can be imported and built."""
    facts = contents.manifest["model"]
    path = str(facts.get("class", ""))
    kind = class_at(path) or _importable(contents, path)
    if kind is None or not issubclass(kind, nn.Module):
        raise CapsuleError(_three_ways(contents, f"its class {path} cannot be imported here"))
    config = facts.get("config")
    try:
        if isinstance(config, Mapping):
            config_class = class_at(str(config["class"]))
            if config_class is None:
                raise CapsuleError(
                    _three_ways(contents, f"the class of its configuration, {config['class']}, is missing")
                )
            built = kind(config_class.from_dict(dict(config["values"])))  # type: ignore[attr-defined]
        else:
            built = kind()
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        why = f"its class {path} cannot be built from what is recorded ({error})"
        raise CapsuleError(_three_ways(contents, why)) from error
    return built


def _importable(contents: Contents, path: str) -> type | None:
    """Return the recorded class from a module whose source is the recorded one, byte for byte.

    A capsule of a stranger thus names no module that was not the model's.
    """
    module, _, _ = path.partition(":")
    if module == "__main__" or not module:
        return None
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None or spec.origin is None or not _is_recorded(contents, module, spec.origin):
        return None
    importlib.import_module(module)
    return class_at(path)


def _is_recorded(contents: Contents, module: str, origin: str) -> bool:
    """Tell whether a source file is the one that the capsule recorded."""
    known = contents.manifest.get("sources", {}).get(entry_of(module, origin), {})
    try:
        with open(origin, "rb") as file:
            return bool(known) and hashlib.sha256(file.read()).hexdigest() == known.get("sha256")
    except OSError:
        return False


def _three_ways(contents: Contents, why: str) -> str:
    """Return how the model can be had."""
    if "model.pkl" not in contents.archive:
        pickled = "the capsule has no pickle of it (include_model, and cloudpickle installed, write one)"
    else:
        pickled = "trust the capsule, if you know who wrote it: --trust (trust=True); its pickle runs code"
    return (
        f"The model of {contents.name} cannot be found: {why}. Three ways lead to it:\n"
        "  1. name a function without arguments that builds it: --entry train.py:build (entry=build)\n"
        f"  2. {pickled}\n"
        f"  3. make {contents.manifest['model'].get('class')} importable, unchanged, and buildable without arguments"
    )


def _unlike(missing: list[str], extra: list[str]) -> str:
    """Return how two lists of names differ."""
    parts = []
    if missing:
        parts.append(f"it lacks {_few(missing)}")
    if extra:
        parts.append(f"it has {_few(extra)}, which the capsule does not know")
    return " and ".join(parts)


def _few(names: list[str]) -> str:
    """Return a few names."""
    rest = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")


__all__ = ["Entry", "find_model", "load", "set_flags"]
