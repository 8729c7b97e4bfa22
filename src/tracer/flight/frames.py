"""The line of the user's program that is running: the innermost one that is neither torch's, ours nor Python's."""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig
from functools import cache
from types import FrameType
from typing import NamedTuple

import torch

_HERE = os.path.dirname(os.path.abspath(__file__))
_OURS = os.path.dirname(_HERE) + os.sep
_TORCH = os.path.dirname(os.path.abspath(torch.__file__)) + os.sep
_PYTHON = sysconfig.get_path("stdlib") + os.sep
_PACKAGES = (os.sep + "site-packages" + os.sep, os.sep + "dist-packages" + os.sep)
_RERUN = os.path.join(_HERE, "rerun.py")


class Frame(NamedTuple):
    """A line of a program."""

    file: str
    line: int

    @property
    def code(self) -> str:
        """What is written there; empty when the file cannot be read."""
        return linecache.getline(self.file, self.line).strip()

    @property
    def path(self) -> str:
        """The file, as seen from where packages are installed, or from the working directory, if it lies there."""
        for folder in _PACKAGES:
            before, found, below = self.file.rpartition(folder)
            if found and before:
                return below
        return self.file.removeprefix(os.path.join(os.getcwd(), ""))


def user_frame() -> Frame | None:
    """Return the line that led to the present operation; None when only a rerun's own engine did."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 -- `inspect` would read source files at each step
    while frame is not None:
        name = frame.f_code.co_filename
        if name == _RERUN:
            return None
        if not _foreign(name):
            return Frame(name, frame.f_lineno)
        frame = frame.f_back
    return None


@cache
def _foreign(file: str) -> bool:
    """Tell whether a file is none of the user's."""
    if file.startswith(("<frozen", "<string", _OURS, _TORCH)):
        return True
    return file.startswith(_PYTHON) and not any(folder in file for folder in _PACKAGES)


__all__ = ["Frame", "user_frame"]
