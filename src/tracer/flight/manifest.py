"""What a capsule's manifest says of the program around the step: versions, machine, flags, model, commit, command line.

`surroundings()` is read twice: when a capsule is made, and when it is replayed; `differences` compares the two.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from tracer.capture.environment import environment_facts
from tracer.capture.git import git_facts
from tracer.capture.redaction import Redactor
from tracer.flight.digests import clean_name
from tracer.flight.plain import path_of
from tracer.flight.undisturbed import compiled_from, unwrapped
from tracer.version import __version__

_LARGEST_SOURCE = 1 << 20
Document = dict[str, Any]
#: What each fact is called in a sentence.
_LABELS = {
    "versions": "", "cpu": "processor", "devices": "devices", "threads": "threads",
    "interop_threads": "interop threads", "deterministic": "deterministic algorithms", "tf32": "TF32",
    "cudnn_benchmark": "cuDNN benchmark", "matmul_precision": "matmul precision", "default_dtype": "default dtype",
    "mkldnn": "oneDNN",
}  # fmt: skip


def surroundings() -> Document:
    """Return versions, machine and flags: quick, without starting a program or a device."""
    numpy = sys.modules.get("numpy")
    devices = []
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        devices = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "versions": {
            "tracer": __version__,
            "python": platform.python_version(),
            "torch": str(torch.__version__),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
            if torch.version.cuda
            else None,
            "numpy": getattr(numpy, "__version__", None),
        },
        "machine": {
            "devices": devices,
            "threads": torch.get_num_threads(),
            "interop_threads": torch.get_num_interop_threads(),
        },
        "flags": {
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "tf32": torch.get_float32_matmul_precision() != "highest",
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "matmul_precision": torch.get_float32_matmul_precision(),
            "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
            "mkldnn": bool(torch.backends.mkldnn.enabled),
        },
    }


def background_facts() -> Document:
    """Return what takes longer: commit, processor, command line and variables, without secrets."""
    redactor = Redactor()
    environment: Document = dict(environment_facts(redactor))
    git = dict(git_facts(redactor=redactor))
    git.pop("redacted", None)
    return {
        "cpu": (environment.get("cpu") or {}).get("model"),
        "argv": environment["command"]["argv"],
        "folder": environment["command"]["folder"],
        "environment": environment["variables"],
        "git": {key: value for key, value in git.items() if key != "diff"},
        "redacted": redactor.found,
    }


def differences(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what is not as it was, such as "threads 8 → 2"; what was not recorded is no difference."""
    found = []
    for part in ("versions", "machine", "flags"):
        before, after = recorded.get(part) or {}, now.get(part) or {}
        for name, value in before.items():
            if name == "tracer" or name not in after or value in (None, []) or _equal(name, value, after[name]):
                continue
            label = _LABELS.get(name, name)
            found.append(f"{label} {_said(value)} → {_said(after[name])}")
    return found


def model_facts(model: nn.Module) -> Document:
    """Return what the manifest says of a model: class, size, which modules do not train, what was compiled."""
    root = unwrapped(model)
    modules = [(clean_name(name), module) for name, module in root.named_modules()]
    compiled = [name for name, module in modules if getattr(module, "_compiled_call_impl", None) is not None]
    config = getattr(root, "config", None)
    to_dict = getattr(config, "to_dict", None)
    facts: Document = {
        "class": path_of(type(root)),
        "parameters": sum(parameter.numel() for parameter in root.parameters()),
        "training_flags": {
            "training": root.training,
            "except": [name for name, module in modules if module.training != root.training],
        },
        "frozen": [clean_name(name) for name, value in root.named_parameters() if not value.requires_grad],
        "buffers": [clean_name(name) for name, _ in root.named_buffers(remove_duplicate=False)],
        "compiled": is_compiled(model),
        "compiled_modules": compiled,
    }
    if callable(to_dict) and type(config).__module__.startswith("transformers."):
        facts["config"] = {"class": path_of(type(config)), "values": to_dict()}
    return facts


def is_compiled(model: nn.Module) -> bool:
    """Tell whether a model was compiled as a whole."""
    return compiled_from(model) is not None


def sources(model: nn.Module) -> dict[str, str]:
    """Return where the source of the model's classes lies, by its place in the capsule; torch's own is left out."""
    found: dict[str, str] = {}
    for module in unwrapped(model).modules():
        for kind in type(module).__mro__:
            name = kind.__module__
            path = getattr(sys.modules.get(name), "__file__", None)
            if path and path.endswith(".py") and name.partition(".")[0] not in {"torch", "builtins", "tracer"}:
                found[entry_of(name, path)] = os.path.abspath(path)
    return found


def entry_of(module: str, path: str) -> str:
    """Return the entry that holds the source of a module."""
    place = "source/" + module.replace(".", "/")
    return f"{place}/__init__.py" if os.path.basename(path) == "__init__.py" else f"{place}.py"


def read_sources(paths: Mapping[str, str]) -> Iterator[tuple[str, bytes, Document]]:
    """Yield entry, text without secrets, and what the manifest says of each source file that can be read."""
    redactor = Redactor()
    for entry, path in paths.items():
        try:
            if os.path.getsize(path) > _LARGEST_SOURCE:
                continue
            with open(path, "rb") as file:
                data = file.read()
            text = redactor.code(data.decode("utf-8", "replace"), entry).encode()
            yield entry, text, {"file": path, "sha256": hashlib.sha256(data).hexdigest()}
        except OSError:  # gone since it was imported
            continue


def _equal(name: str, before: object, after: object) -> bool:
    """Tell whether a fact is as it was; of Python's version the last number says nothing."""
    if name == "python":
        return str(before).rpartition(".")[0] == str(after).rpartition(".")[0]
    return before == after


def _said(value: object) -> str:
    """Return a fact as a person says it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


__all__ = [
    "background_facts",
    "differences",
    "entry_of",
    "is_compiled",
    "model_facts",
    "read_sources",
    "sources",
    "surroundings",
]
