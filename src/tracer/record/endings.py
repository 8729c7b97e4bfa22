"""How a run ends when nobody calls `finish`: an exception, `sys.exit`, the end of the program.

Handlers that were there before are called as before, and are put back when the run is finished.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Any

import atexit
import builtins
import contextlib
import os
import sys
import threading

from tracer.events import COMPLETED, FAILED


class Endings:
    """Tells `finish` how the program ended.

    Args:
        finish: Called once with status, reason and exit code.
        progress: Returns something that changes while the run goes on, so that a caught `SystemExit` is told apart.
        failed: Called before that with the exception that ends the program, if one does.
    """

    def __init__(
        self,
        finish: Callable[[str, str | None, int | None], None],
        progress: Callable[[], object],
        failed: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._finish, self._progress, self._failed = finish, progress, failed
        self._hook, self._exit = sys.excepthook, sys.exit
        self._pid = os.getpid()
        self._leaving: tuple[object, object] | None = None
        sys.excepthook = self._on_exception
        sys.exit = self._on_exit  # type: ignore[assignment]  # it ends in the original, which never returns
        self._quitter, self._quit = _quitter()
        if self._quitter is not None:
            self._quitter.__call__ = self._quits = self._quitting()
        atexit.register(self._at_exit)

    def restore(self) -> None:
        """Put back the handlers that were there before, unless somebody else has replaced ours."""
        if sys.excepthook == self._on_exception:
            sys.excepthook = self._hook
        if sys.exit == self._on_exit:
            sys.exit = self._exit
        if self._quitter is not None and vars(self._quitter).get("__call__") is self._quits:
            self._quitter.__call__ = self._quit
        atexit.unregister(self._at_exit)

    def _on_exception(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """An exception leaves the program: the run failed."""
        if os.getpid() == self._pid:
            if self._failed is not None:
                self._failed(error)
            self._finish(FAILED, described(error), 1)
        self._hook(kind, error, trace)
        if issubclass(kind, KeyboardInterrupt):
            _remember_interrupt()

    def _on_exit(self, status: object = None, /) -> None:
        """Remember with what code the program asks to leave; it may still be caught."""
        self._note(status)
        self._exit(status)  # type: ignore[arg-type]  # handed on as it came

    def _quitting(self) -> Callable[..., object]:
        """Return what stands in for a call of `exit` or `quit`, which do not go by `sys.exit`."""

        def leave(quitter: object, code: object = None) -> object:
            self._note(code)
            return self._quit(quitter, code)

        return leave

    def _note(self, status: object) -> None:
        """Note a wish to leave the program."""
        if threading.current_thread() is threading.main_thread():  # elsewhere it ends a thread and no program
            self._leaving = (status, self._progress())

    def _at_exit(self) -> None:
        """The program ends without `finish`."""
        if os.getpid() != self._pid:
            return
        status, seen = self._leaving or (None, None)
        if status in (None, 0) or seen != self._progress():
            self._finish(COMPLETED, None, 0)
        else:
            code = status if isinstance(status, int) else 1
            self._finish(FAILED, f"sys.exit({status!r})"[:500], code)


def _quitter() -> tuple[Any, Any]:
    """Return the class of `exit` and `quit`, and what its call does; nothing where `site` has not made them."""
    found = type(getattr(builtins, "exit", None))
    return (found, vars(found)["__call__"]) if found.__name__ == "Quitter" else (None, None)


def _remember_interrupt() -> None:
    """Have Python still end by SIGINT, as it does when nobody catches Ctrl-C.

    It forgets that as soon as any text is executed, by making a dataclass for example, and would exit with 1.
    """
    with contextlib.suppress(KeyboardInterrupt):
        exec("raise KeyboardInterrupt")  # noqa: S102 -- only the execution of a text sets the interpreter's note


def described(error: BaseException) -> str:
    """Return an exception in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__
