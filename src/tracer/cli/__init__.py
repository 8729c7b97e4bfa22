"""The command line: one file per command, a group that loads the one that is called, and `main`.

Nothing is defined here: importing `tracer.cli.list` puts a module named `list` into this namespace.
"""

from __future__ import annotations

from tracer.cli.group import COMMANDS, cli, main

__all__ = ["COMMANDS", "cli", "main"]
