"""Records of `logging`, heard where every logger hands them to its handlers.

A record is kept if a handler of the program takes it. No handler is added: `logging.basicConfig()` does nothing once
the root logger has one, so a handler of ours would take the program's own format away.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import Any

from tracer.capture.patching import Hook


class LoggingRecords:
    """Hands on what is logged.

    Args:
        put: Gets the logger's name, the level, the message and the time of each record.
        here: Marked with `is_logging` while the program's own handlers work on this thread.
    """

    def __init__(self, put: Callable[[str, str, str, float], None], here: threading.local) -> None:
        self._put, self._here = put, here
        self._hook = Hook("output.logging")

    def install(self) -> Callable[[], None]:
        """Begin to listen; return what ends it."""
        return self._hook.wrap(logging.Logger, "callHandlers", self._make, parameters=("self", "record"))

    def _make(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Return the method that listens."""
        here, hook = self._here, self._hook

        def callHandlers(self: logging.Logger, record: logging.LogRecord) -> Any:  # noqa: ANN401, N802 -- as there
            if getattr(here, "is_logging", False) or not hook.is_on:
                return original(self, record)  # a handler that logs, or a message that does
            here.is_logging = True
            try:
                result = original(self, record)
                with hook:
                    if _is_shown(self, record):
                        hook.events += 1
                        take(record)
            finally:
                here.is_logging = False
            return result

        take = self._take
        return callHandlers

    def _take(self, record: logging.LogRecord) -> None:
        """Hand on one record; its arguments may change as soon as the program goes on."""
        body = str(record.msg)
        with contextlib.suppress(TypeError, ValueError, LookupError):  # arguments that do not fit; `logging` said so
            body = record.getMessage()
        trace = record.exc_text
        if trace is None and record.exc_info:
            trace = logging.Formatter().formatException(record.exc_info)
        self._put(record.name, record.levelname, f"{body}\n{trace}" if trace else body, record.created)


def _is_shown(logger: logging.Logger | None, record: logging.LogRecord) -> bool:
    """Tell whether a handler of the program takes a record of this level; without any handler, warnings are shown."""
    found = False
    while logger is not None:
        for handler in logger.handlers:
            found = True
            if record.levelno >= handler.level:
                return True
        logger = logger.parent if logger.propagate else None
    return not found and record.levelno >= logging.WARNING


__all__ = ["LoggingRecords"]
