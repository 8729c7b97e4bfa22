"""Lines of output on their way into the record: secrets are cut out, also those that go over many lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tracer import events, sink
from tracer.capture.redaction import Redactor


class KeptLines:
    """Records the lines of one stream, without secrets: also those of a key that goes over many lines.

    Args:
        name: The stream.
        redactor: Gives what cuts secrets out; a run that begins later brings its own.
    """

    def __init__(self, name: str, redactor: Callable[[], Redactor]) -> None:
        self._name, self._redactor = name, redactor
        self._inside: _Pulled | None = None
        self._cleaned: Iterator[str] = iter(())

    def __call__(self, line: str, time: float, step: int, cut: int) -> None:
        """Record a line."""
        clean = self._clean(line)
        fields = {"characters": cut} if cut else None
        body = f"{clean}… [cut: {cut:,} characters]" if cut else clean
        sink.emit(events.Entry("line", body, name=self._name, fields=fields, time=time, step=at_step(step)))

    def _clean(self, line: str) -> str:
        """Return a line without secrets."""
        redactor = self._redactor()
        if self._inside is None and "-----BEGIN" not in line:
            return redactor.line(line, f"output.{self._name}")
        if self._inside is None:
            self._inside = _Pulled()
            self._cleaned = redactor.lines(self._inside, f"output.{self._name}")
        clean = self._inside.through(line, self._cleaned)
        if "-----END" in line:
            self._inside = None
        return clean


class _Pulled:
    """An iterator of lines that is fed one by one, for `Redactor.lines`, which knows what it is inside of."""

    def __init__(self) -> None:
        self._next = ""

    def __iter__(self) -> _Pulled:
        return self

    def __next__(self) -> str:
        return self._next

    def through(self, line: str, cleaned: Iterator[str]) -> str:
        """Return what becomes of a line."""
        self._next = line
        return next(cleaned)


def at_step(step: int) -> int | None:
    """Return the step at which something was written; None before there was a run."""
    return None if step < 0 else step


__all__ = ["KeptLines", "at_step"]
