"""What program an interpreter was started with, and the moment in which its first line runs."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

import os
import sys

#: They start those who train, in processes of their own; by module, and by the name of the script.
LAUNCHERS = frozenset({
    "torchrun", "torch.distributed.run", "torch.distributed.launch", "torchx",
    "accelerate", "accelerate.commands.launch", "accelerate.commands.accelerate_cli",
    "deepspeed", "deepspeed.launcher.runner", "deepspeed.launcher.launch",
    "horovodrun", "horovod.runner.launch", "colossalai", "composer", "fabric", "lightning", "ray",
    "jupyter", "jupyter-lab", "jupyter-notebook", "jupyter-nbconvert", "jupyter-execute", "jupyter-console",
    "nbconvert", "nbclient", "notebook", "jupyterlab", "papermill",
    "poetry", "pipenv", "hatch", "pdm", "tox", "nox", "invoke", "dvc", "snakemake",
})  # fmt: skip
#: Options of the interpreter that take the next word.
_WITH_VALUE = frozenset({"-W", "-X", "--check-hash-based-pycs"})
_ISOLATING = frozenset("EIS")


class Program:
    """What stands behind the interpreter on a command line.

    Attributes:
        name: The module, the script, or nothing for `-c` and an interactive interpreter.
        is_isolated: Whether the interpreter is told not to look at PYTHONPATH or site-packages.
    """

    __slots__ = ("is_isolated", "name")

    def __init__(self, name: str, *, is_isolated: bool = False) -> None:
        self.name, self.is_isolated = name, is_isolated

    @property
    def is_launcher(self) -> bool:
        """Whether it only starts others."""
        base = os.path.basename(self.name)
        return self.name in LAUNCHERS or base in LAUNCHERS or base.removesuffix(".py") in LAUNCHERS


def program_of(command: Sequence[str]) -> Program:
    """Return what an interpreter runs.

    Args:
        command: The command line, the interpreter first; `sys.orig_argv` for this process.

    Example:
        >>> program_of(["python", "-X", "dev", "-m", "torch.distributed.run", "train.py"]).is_launcher
        True
        >>> program_of(["python", "-u", "train.py", "-m"]).name
        'train.py'
    """
    isolated, at = False, 1
    while at < len(command):
        word = command[at]
        if word in _WITH_VALUE:
            at += 2
            continue
        if not word.startswith("-") or word == "-":
            return Program("" if word == "-" else word, is_isolated=isolated)
        if not word.startswith("--"):
            flags, _, rest = word[1:].partition("m")
            isolated = isolated or bool(_ISOLATING & set(flags.partition("c")[0]))
            if "c" in flags:
                return Program("", is_isolated=isolated)
            if "m" in word:
                return Program(rest or (command[at + 1] if at + 1 < len(command) else ""), is_isolated=isolated)
        at += 1
    return Program("", is_isolated=isolated)


def at_first_line(call: Callable[[], object]) -> None:
    """Have something called as the main program's first line is about to run, on its thread.

    `site` runs before `sys.path`, `__main__` and its file are what the program will see. A profile function is told of
    every call from here on, takes itself out at the first of the main module, and costs the program nothing after.
    """
    if sys.getprofile() is not None:  # somebody measures the start itself
        call()
        return

    def look(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_globals is main and frame.f_code.co_name == "<module>":
            if sys.getprofile() is look:
                sys.setprofile(None)
            call()

    main = vars(sys.modules["__main__"])
    sys.setprofile(look)


__all__ = ["LAUNCHERS", "Program", "at_first_line", "program_of"]
