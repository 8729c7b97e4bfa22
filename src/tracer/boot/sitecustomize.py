"""Reaches each Python that a command of `tracer run` starts: its folder stands at the head of PYTHONPATH.

Python imports a module of this name at its start, wherever it finds one. Ours turns listening on and then gives way to
the one that it hides: some systems and companies ship one of their own. Nothing that goes wrong with Tracer keeps an
interpreter from starting.
"""

from __future__ import annotations

import contextlib
import os
import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec


def _listen() -> None:
    """Turn listening on, where it was asked for."""
    if not os.environ.get("TRACER_AUTO"):
        return
    with contextlib.ExitStack() as whatever_fails:
        whatever_fails.push(_say)
        from tracer.activation import boot

        boot()


def _say(_kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> bool:
    """Say why this program is not listened to; it goes on all the same."""
    if not isinstance(error, Exception):
        return False
    if sys.stderr is not None and not isinstance(error, ModuleNotFoundError):  # else another Python, without Tracer
        sys.stderr.write(f"tracer: nothing is captured here: {type(error).__name__}: {error}\n")
    return True


def _give_way() -> None:
    """Load the `sitecustomize` that this one hides, under its own name."""
    here = os.path.dirname(os.path.abspath(__file__))
    elsewhere = [folder for folder in sys.path if os.path.abspath(folder or os.curdir) != here]
    spec = PathFinder.find_spec(__name__, elsewhere)
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    sys.modules[__name__] = module
    spec.loader.exec_module(module)


_listen()
_give_way()
