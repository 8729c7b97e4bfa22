"""What a command line will start, and how: in place of our own process, or as a child that is waited for.

A program of this very Python takes our place: same process, same signals, same terminal. Anything else, a script of the
shell say, cannot say how it ended; it is started as a child, its signals are handed on, and its end is that of the run.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import NoReturn

import os
import shutil
import signal
import sys

from tracer.activation.endings import conclude
from tracer.activation.programs import program_of
from tracer.activation.variables import COMMAND
from tracer.errors import CommandError
from tracer.events import COMPLETED, FAILED

_FORWARDED = tuple(
    getattr(signal, name)
    for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGTSTP", "SIGWINCH")
    if hasattr(signal, name)
)
#: They come from the terminal to a whole group of processes: the child has them already.
_FROM_TERMINAL = 128  # SI_KERNEL
_NOT_STARTED = 127
_LONGEST_LINE = 4096


class Command:
    """A command line, ready to be started.

    Attributes:
        arguments: The words; the first is the path of what is started.
        is_ours: Whether a program of this Python runs, which can say itself how it ends.
    """

    __slots__ = ("arguments", "is_ours")

    def __init__(self, arguments: Sequence[str], *, is_ours: bool) -> None:
        self.arguments, self.is_ours = list(arguments), is_ours


def command_of(words: Sequence[str]) -> Command:
    """Return what a user's words mean.

    Args:
        words: A Python script and its arguments, `-m` and a module, or any command.

    Raises:
        CommandError: There is no such file, module or command.

    Example:
        >>> command_of(["-m", "this"]).arguments[1:]
        ['-m', 'this']
    """
    first, rest = words[0], list(words[1:])
    if first == "-m":
        _see_module(rest)
        return Command([sys.executable, "-m", *rest], is_ours=True)
    if first.endswith((".py", ".pyw", ".pyz")):
        _see_file(first)
        return Command([sys.executable, first, *rest], is_ours=True)
    found = shutil.which(first)
    if found is None:
        _refuse(first)
    interpreter = _interpreter(found)
    # `found` may be a link in a virtual environment; its name there is what makes it that environment's.
    return Command([found, *rest], is_ours=_is_this_python(interpreter, [found, *rest]))


def start(command: Command, environment: Mapping[str, str], folder: str) -> NoReturn:
    """Start a command; this process is the command from now on, or ends as it ends.

    Args:
        command: What to start.
        environment: Its environment.
        folder: The folder of its run.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if command.is_ours:
        _become(command.arguments, environment)
    sys.exit(_wait_for(command.arguments, environment, folder))


def _wait_for(arguments: list[str], environment: Mapping[str, str], folder: str) -> int:
    """Start a child, hand on what it is told, and return its exit code."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*_FORWARDED, signal.SIGCHLD))
    child = os.fork()
    if child == 0:
        _be_child(arguments, environment, before)
    while True:
        told = signal.sigwaitinfo((*_FORWARDED, signal.SIGCHLD))
        if told.si_signo != signal.SIGCHLD:
            if told.si_code != _FROM_TERMINAL:
                os.kill(child, told.si_signo)
            continue
        ended, state = os.waitpid(child, os.WNOHANG | os.WUNTRACED)
        if ended and os.WIFSTOPPED(state):
            os.kill(os.getpid(), signal.SIGSTOP)  # the shell sees the whole job stop, and continues the whole job
        elif ended:
            break
    code = os.waitstatus_to_exitcode(state)
    shown = code if code >= 0 else 128 - code
    reason = None if code == 0 else _reason(os.path.basename(arguments[0]), code)
    conclude(folder, FAILED if code else COMPLETED, reason, shown, leads=True)
    return shown


def _be_child(arguments: list[str], environment: Mapping[str, str], mask: Iterable[int]) -> NoReturn:
    """Be the child: with the signals as they were, and gone when its parent is killed."""
    try:
        _die_with_parent()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _become(arguments, environment)
    except OSError as error:
        os.write(2, f"tracer: {arguments[0]} cannot be started ({error.strerror}).\n".encode())
    finally:
        os._exit(_NOT_STARTED)


def _become(arguments: list[str], environment: Mapping[str, str]) -> NoReturn:
    """Turn this process into the command's."""
    for name in ("SIGPIPE", "SIGXFSZ"):  # Python ignores them, and what is ignored stays so in the next program
        signal.signal(getattr(signal, name), signal.SIG_DFL)
    os.execve(arguments[0], arguments, {**environment, COMMAND: str(os.getpid())})  # noqa: S606 -- that is the task


def _die_with_parent() -> None:
    """Ask for a kill when the parent is killed: it could not hand that on."""
    if sys.platform == "linux":
        import ctypes

        set_death_signal = 1
        ctypes.CDLL(None).prctl(set_death_signal, int(signal.SIGKILL))


def _reason(name: str, code: int) -> str:
    """Say why a command failed."""
    if code > 0:
        return f"{name} ended with exit code {code}"
    return f"{name} was ended by {signal.Signals(-code).name}"


# What the first word is.


def _see_file(path: str) -> None:
    """Refuse a script that is not there."""
    if not os.path.exists(path):
        message = f"There is no file {path!r} in {os.getcwd()}. Give the path of the script, or `-m` and a module."
        raise CommandError(message)


def _see_module(words: Sequence[str]) -> None:
    """Refuse a module that cannot be found; only its parents are imported, as Python itself will."""
    import importlib.util

    if not words:
        message = "`-m` needs the name of a module: tracer run -m package.train"
        raise CommandError(message)
    module = words[0]
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        message = (
            f"There is no module {module.partition('.')[0]!r} for {sys.executable}. "
            "Start in the folder that holds it, or install it there."
        )
        raise CommandError(message)


def _refuse(name: str) -> NoReturn:
    """Say that there is no such command."""
    if os.path.exists(name):
        message = (
            f"{name!r} is there but cannot be executed. chmod +x it, or name its interpreter: tracer run bash {name}"
        )
    elif os.sep in name:
        message = f"There is no file {name!r}. Give the path of a script or a command."
    else:
        message = (
            f"There is no command {name!r} on PATH. Give the path of a script, a command, or `-m` and the name of a "
            "module."
        )
    raise CommandError(message)


def _interpreter(path: str) -> str:
    """Return the program that executes a file: itself, or what its first line names."""
    try:
        with open(path, "rb") as file:
            line = file.readline(_LONGEST_LINE)
    except OSError:
        return path
    if not line.startswith(b"#!"):
        return path
    words = os.fsdecode(line[2:]).split()
    if words and os.path.basename(words[0]) == "env":
        words = [shutil.which(word) or word for word in words[1:] if not word.startswith("-")]
    return words[0] if words else path


def _is_this_python(interpreter: str, words: Sequence[str]) -> bool:
    """Tell whether a program is executed by this Python, in a way that lets us be loaded with it."""
    same_file = os.path.realpath(interpreter) == os.path.realpath(sys.executable)
    same_place = os.path.realpath(os.path.dirname(interpreter)) == os.path.realpath(os.path.dirname(sys.executable))
    if not (same_file and same_place):
        return False
    return interpreter != words[0] or not program_of(words).is_isolated


__all__ = ["Command", "command_of", "start"]
