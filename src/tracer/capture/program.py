"""Which program this process runs: a script, a module, a command, a notebook; known from the interpreter's start on.

`__main__` says it once the program runs. Before that, as when a run begins while the interpreter starts, the words of
the command line do.
"""

from __future__ import annotations

import os
import sys
from typing import NamedTuple

#: Options of the interpreter that take a word of their own.
_WITH_WORD = ("-W", "-X", "--check-hash-based-pycs")
SCRIPT, MODULE, COMMAND, NOTEBOOK, INTERACTIVE = "script", "module", "command", "notebook", "interactive"


class Program(NamedTuple):
    """What runs: its kind, its file where it has one, and a module's name."""

    kind: str
    path: str | None
    module: str | None = None

    @property
    def folder(self) -> str:
        """The folder the program lies in; the working folder without one."""
        return os.path.dirname(self.path) if self.path else os.getcwd()


def program() -> Program:
    """Return which program this process runs.

    Example:
        >>> program().kind in (SCRIPT, MODULE, COMMAND, NOTEBOOK, INTERACTIVE)
        True
    """
    main = sys.modules.get("__main__")
    if getattr(main, "__IPYTHON__", False) or hasattr(main, "get_ipython"):
        path = getattr(main, "__vsc_ipynb_file__", None) or os.environ.get("JPY_SESSION_NAME")
        return Program(NOTEBOOK, _file(path))
    if (path := _file(getattr(main, "__file__", None))) is not None:
        spec = getattr(main, "__spec__", None)
        if spec is None:
            return Program(SCRIPT, path)
        return Program(MODULE, path, spec.parent if spec.name.endswith(".__main__") else spec.name)
    return _from_words(sys.orig_argv)


def _from_words(words: list[str]) -> Program:
    """Return which program the words of a command line ask the interpreter to run."""
    at = 1
    while at < len(words):
        word = words[at]
        if word in _WITH_WORD:
            at += 2
        elif word.startswith("-") and not word.startswith("--") and len(word) > 1:
            letters = word[1:]
            if "m" in letters:
                rest = letters.partition("m")[2] or (words[at + 1] if at + 1 < len(words) else "")
                return Program(MODULE, None, rest or None)
            if "c" in letters:
                return Program(COMMAND, None)
            at += 1
        elif word.startswith("--"):
            at += 1
        else:
            path = _file(word)
            if path is None and os.path.isdir(word):
                path = _file(os.path.join(word, "__main__.py"))
            return Program(SCRIPT, path)
    return Program(INTERACTIVE, None)


def _file(path: object) -> str | None:
    """Return the whole path of a file that exists."""
    return os.path.abspath(path) if isinstance(path, str) and os.path.isfile(path) else None


__all__ = ["COMMAND", "INTERACTIVE", "MODULE", "NOTEBOOK", "SCRIPT", "Program", "program"]
