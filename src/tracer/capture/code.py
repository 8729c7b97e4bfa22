"""The program's own source: the main script and the modules of its own that it imported, copied into the run.

A module is the program's own when it lies below the script's folder or the repository, and not among installed
packages. It is copied soon after it was imported, because files change while a training goes on; the same content is
kept once. Secrets are cut out of the copies.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from types import ModuleType

from tracer.capture.program import NOTEBOOK, program
from tracer.capture.redaction import Redactor

FOLDER = "code"
_FILES = "files"
_MAX_FILE, _MAX_TOTAL, _MAX_FILES = 1 << 20, 10 << 20, 2_000
_CELLS = "cells.py"


class CodeKeeper:
    """Copies sources into a run's folder; `keep` may be called again and again.

    Args:
        folder: The run's folder; the copies lie below `code/files`.
        redactor: What cuts secrets out of them.
    """

    def __init__(self, folder: str, redactor: Redactor) -> None:
        self._run, self._redactor = folder, redactor
        self._folder = os.path.join(folder, FOLDER, _FILES)
        self._program = program()
        self._root = _root(self._program.folder)
        self._installed = _installed()
        self._seen: set[str] = set()
        self._files: dict[str, str] = {}
        self._bytes = self._modules = self._cells = 0

    def keep(self) -> dict[str, object]:
        """Copy what was imported since the last time.

        Returns:
            What is new, as it is known of the run: `root`, `main`, and `files`, path → SHA-256 of the original. Empty
            when there is nothing.
        """
        if self._program.path is None:  # at the interpreter's start it may not have been known yet
            self._program = program()
            self._root = _root(self._program.folder)
        new: dict[str, str] = {}
        for path in self._sources():
            digest = self._copy(path)
            if digest:
                new[self._name(path)] = digest
        if self._program.kind == NOTEBOOK and (digest := self._copy_cells()):
            new[_CELLS] = digest
        if not new:
            return {}
        main = self._name(self._program.path) if self._program.path else None
        return {"root": self._root, "main": main, "kind": self._program.kind, "files": new}

    def _sources(self) -> Iterator[str]:
        """Yield the files of the program that were not looked at yet."""
        modules = dict(sys.modules)
        if len(modules) == self._modules and self._seen:
            return
        self._modules = len(modules)
        main = [self._program.path] if self._program.path else []
        # Not by `getattr`: what stands there may be a module that loads itself when it is asked for anything.
        files = [vars(module).get("__file__") for module in modules.values() if issubclass(type(module), ModuleType)]
        for path in (*main, *files):
            if not isinstance(path, str) or path in self._seen:
                continue
            self._seen.add(path)
            if path in main or (path.endswith(".py") and self._is_own(os.path.abspath(path))):
                yield os.path.abspath(path)

    def _is_own(self, path: str) -> bool:
        """Tell whether a file belongs to the program and to no installed package."""
        if not path.startswith(self._root + os.sep):
            return False
        return not path.startswith(self._installed) and "site-packages" not in path

    def _name(self, path: str) -> str:
        """Return what a file is called in the run: its path below the root."""
        inside = path.startswith(self._root + os.sep)
        return os.path.relpath(path, self._root) if inside else os.path.basename(path)

    def _copy(self, path: str) -> str | None:
        """Copy one file; return the digest of its content, None where it is not kept."""
        try:
            if os.path.getsize(path) > _MAX_FILE or len(self._files) >= _MAX_FILES:
                return None
            with open(path, "rb") as file:
                data = file.read(_MAX_FILE)
        except OSError:  # gone, or not to be read
            return None
        return self._write(self._name(path), data)

    def _copy_cells(self) -> str | None:
        """Copy the cells that a notebook has run so far."""
        cells = vars(sys.modules["__main__"]).get("In")
        if not isinstance(cells, list) or len(cells) == self._cells:
            return None
        self._cells = len(cells)
        text = "".join(f"# In [{number}]\n{cell}\n\n" for number, cell in enumerate(cells) if number)
        return self._write(_CELLS, text.encode())

    def _write(self, name: str, data: bytes) -> str | None:
        """Write a copy without secrets, unless it is there already."""
        if self._bytes + len(data) > _MAX_TOTAL:
            return None
        digest = hashlib.sha256(data).hexdigest()
        if self._files.get(name) == digest:
            return None
        text = data.decode("utf-8", "surrogateescape")
        clean = "".join(self._redactor.lines(text.splitlines(keepends=True), f"code.{name}"))
        target = os.path.join(self._folder, name)
        content = clean.encode("utf-8", "surrogateescape")
        is_others = name not in self._files and os.path.exists(target)
        if is_others and not _holds(target, content):  # an earlier part of the run had another
            stem, suffix = os.path.splitext(name)
            target = os.path.join(self._folder, f"{stem}.{digest[:8]}{suffix}")
        if not os.path.isdir(self._run):
            return None  # somebody deleted the run: it must not come to life again
        try:
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as file:
                file.write(content)
        except OSError:  # a full disk says so itself, where values are recorded
            return None
        self._files[name] = digest
        self._bytes += len(data)
        return digest


def _root(folder: str) -> str:
    """Return the folder below which the program's own modules lie: its repository's, else its own."""
    above = folder
    while not os.path.exists(os.path.join(above, ".git")):
        parent = os.path.dirname(above)
        if parent == above:
            return folder
        above = parent
    return above


def _installed() -> tuple[str, ...]:
    """Return the folders of packages that were installed, and of Python itself."""
    paths = sysconfig.get_paths()
    return tuple({paths[name] + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def _holds(path: str, content: bytes) -> bool:
    """Tell whether a file has this content."""
    with open(path, "rb") as file:
        return file.read() == content


__all__ = ["FOLDER", "CodeKeeper"]
