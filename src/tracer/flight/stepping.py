"""The recorded step in Python's debugger: it stops at the line where the fault is born, or where the model raised."""

from __future__ import annotations

import bdb
import contextlib
import os
import pdb  # noqa: T100 -- what the user asked for
from collections.abc import Mapping
from typing import Any

from torch import nn

from tracer.flight.digests import clean_name
from tracer.flight.origin import Origin, find_origin
from tracer.flight.replay import MODEL_ERRORS, as_recorded
from tracer.flight.rerun import rerun
from tracer.flight.steps import Step
from tracer.flight.undisturbed import unwrapped
from tracer.sink import say


def debug_step(model: nn.Module, step: Step, recorded: Origin | None, manifest: Mapping[str, Any]) -> None:
    """Run a step under the debugger, in eager mode.

    Args:
        model: The capsule's model.
        step: Its step.
        recorded: Where the fault is known to be born, if it is.
        manifest: What the capsule says of its surroundings.
    """
    root = unwrapped(model)
    with as_recorded(manifest):
        origin = recorded or find_origin(root, step)
        debugger = pdb.Pdb()
        place = _break(debugger, root, origin)
        say(f"tracer: stopping {place}. `c` goes on, `q` ends." if place else "tracer: the step raises nothing known.")
        debugger.rcLines.append("continue")  # to the breakpoint; the debugger itself begins at the first line
        try:
            with contextlib.suppress(bdb.BdbQuit):
                debugger.runcall(rerun, root, step)
        except MODEL_ERRORS as error:
            say(f"tracer: {type(error).__name__}: {error}")
            debugger.reset()
            debugger.interaction(None, error.__traceback__)


def _break(debugger: pdb.Pdb, root: nn.Module, origin: Origin | None) -> str:
    """Set a breakpoint; return where, in words."""
    if origin is None:
        return ""
    if origin.file and origin.line and os.path.isfile(origin.file):
        refused = debugger.set_break(origin.file, origin.line)
        if not refused:
            return f"at {origin.file}:{origin.line}"
    for name, module in root.named_modules():
        if clean_name(name) == origin.module and name:
            function = type(module).forward
            code = getattr(function, "__code__", None)
            if code is not None and not debugger.set_break(code.co_filename, code.co_firstlineno + 1):
                return f"in {origin.module}"
    return ""


__all__ = ["debug_step"]
