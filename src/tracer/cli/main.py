"""The Tracer documents' path to the command line: `tracer.cli.main` holds `cli`, and can be called like the function.

Importing this module puts it in the place of the function of that name in `tracer.cli`; so it can be called like it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

from tracer.cli.group import cli
from tracer.cli.group import main as _main


class _Callable(ModuleType):
    """A module that runs the command line when it is called."""

    def __call__(self, arguments: Sequence[str] | None = None) -> int:
        return _main(arguments)


sys.modules[__name__].__class__ = _Callable

__all__ = ["cli"]
