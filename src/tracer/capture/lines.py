"""What a stream is given, as lines: progress bars as their last state, floods with their middle counted.

    pieces as they were written ──► Lines ──► lines as a reader wants them

Carriage returns and movements upwards rewrite what stands on a terminal; what is rewritten is told at most once a
second, and its last state always. Called on one thread; knows no stream and no run.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

#: Longer lines are cut.
MAX_LINE = 64 << 10
#: More in one second is a flood: its beginning and its end are kept, the middle is counted.
MAX_SECOND = 1 << 20
_TAIL = 20
_STATE_S = 1.0
#: How long after a movement upwards lines are taken for parts of something that is redrawn.
_REDRAWN_S = 2.0
_UP = re.compile(r"\x1b\[\d*[AF]")
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_RETURN = "\r"  # stands for the present line among those that are rewritten
_LETTERS = re.compile(r"[^\W\d_]+")

#: Gets a line, when it was written, at which step, and how many characters it had if it was cut.
Found = Callable[[str, float, int, int], None]


class Lines:
    r"""Puts the lines of one stream together.

    Args:
        found: Gets each line.

    Example:
        >>> heard = []
        >>> lines = Lines(lambda line, time, step, cut: heard.append(line))
        >>> lines.feed("10 %\r20 %\\r30 %\\ndone", time=1.0, step=0)
        >>> lines.close()
        >>> heard
        ['30 %', 'done']
    """

    def __init__(self, found: Found) -> None:
        self._flood = Flood(found)
        self._parts: list[str] = []
        self._kept = self._length = 0
        self._last, self._is_new = "", False
        self._is_rewritten = False  # a carriage return stands before what comes next
        self._was_rewritten = False  # in the present line
        self._told: dict[str, float] = {}  # which rewritten lines were told, and when
        self._states: dict[str, tuple[str, float, int, int]] = {}  # and what is to be told of them
        self._redrawn_until = 0.0
        self._at = (0.0, 0)

    @property
    def is_waiting(self) -> bool:
        """Whether something is to be told although nothing more is written."""
        return bool(self._states) or self._flood.is_waiting

    def feed(self, text: str, time: float, step: int) -> None:
        """Take what was written at a time."""
        self._at = (time, step)
        first = True
        for segment in text.split("\n"):
            if not first:
                self._end_line()
            first = False
            self._write(segment)
        self.tick(time)

    def tick(self, now: float) -> None:
        """Tell states that are due, and what a flood left out."""
        if self._was_rewritten and self._is_new:
            self._is_new = False
            self._note_state(_RETURN, self._line())
        for key in [key for key in self._states if now - self._told.get(key, -_STATE_S) >= _STATE_S]:
            self._told[key] = now
            self._last = self._states[key][0]
            self._flood.pass_on(*self._states.pop(key))
        if len(self._told) > _TAIL and not self._states:
            self._told.clear()
        self._flood.tick(now)

    def close(self) -> None:
        """Tell everything that has not been told yet."""
        if self._parts:
            self._end_line()
        for state in self._states.values():
            self._flood.pass_on(*state)
        self._states.clear()
        self._flood.close()

    def _write(self, segment: str) -> None:
        """Take a piece without ends of lines."""
        if not segment:
            return
        if _UP.search(segment):
            self._redrawn_until = self._at[0] + _REDRAWN_S
        *states, last = segment.split("\r")
        for state in states:
            if state:
                self._put(state)
            self._is_rewritten = True
        if last:
            self._put(last)

    def _put(self, text: str) -> None:
        """Append to the line, or begin it anew where the cursor went back."""
        if self._is_rewritten:
            self._parts.clear()
            self._kept = self._length = 0
            self._is_rewritten, self._was_rewritten = False, True
        self._is_new = True
        self._length += len(text)
        if self._kept < MAX_LINE:
            self._parts.append(text[: MAX_LINE - self._kept])
            self._kept += len(self._parts[-1])

    def _line(self) -> tuple[str, float, int, int]:
        """Return the present line without colours and movements, and its length if it was cut."""
        text = "".join(self._parts)
        if "\x1b" in text:
            text = _ESCAPES.sub("", text)
        return text, *self._at, self._length if self._length > self._kept else 0

    def _end_line(self) -> None:
        """Tell a line that has ended; one that is redrawn again and again is a state."""
        line = self._line()
        text = line[0]
        if self._at[0] < self._redrawn_until:
            if text.strip():
                self._note_state(" ".join(_LETTERS.findall(text)), line)
        else:
            if self._was_rewritten:
                self._states.pop(_RETURN, None)
                self._told.pop(_RETURN, None)
            if not self._was_rewritten or (text and text != self._last):  # else it was told as a state already
                self._flood.pass_on(*line)
        self._parts.clear()
        self._kept = self._length = 0
        self._is_rewritten = self._was_rewritten = False

    def _note_state(self, key: str, line: tuple[str, float, int, int]) -> None:
        """Keep the last state of something that is rewritten, until it is due."""
        if line[0]:
            self._states[key] = line


class Flood:
    """Lets lines pass, but of more than a mebibyte in a second only the beginning and the end.

    Args:
        found: Gets what passes.
    """

    def __init__(self, found: Found) -> None:
        self._found = found
        self._second = self._size = 0
        self._left_out = self._characters = 0
        self._tail: deque[tuple[str, float, int, int]] = deque(maxlen=_TAIL)

    @property
    def is_waiting(self) -> bool:
        """Whether the end of a flood is held back."""
        return bool(self._tail)

    def pass_on(self, text: str, time: float, step: int, cut: int) -> None:
        """Take a line."""
        self.tick(time)
        self._size += len(text) + 1
        if self._size <= MAX_SECOND:
            self._found(text, time, step, cut)
            return
        if len(self._tail) == _TAIL:
            self._left_out += 1
            self._characters += len(self._tail[0][0]) + 1
        self._tail.append((text, time, step, cut))

    def tick(self, now: float) -> None:
        """Begin a new second where one has passed."""
        if int(now) != self._second:
            self.close()
            self._second, self._size = int(now), 0

    def close(self) -> None:
        """Say what was left out, and let the end pass."""
        if self._left_out:
            _, time, step, _ = self._tail[0]
            said = f"[tracer: {self._left_out:,} lines with {self._characters:,} characters left out]"
            self._found(said, time, step, 0)
        for line in self._tail:
            self._found(*line)
        self._tail.clear()
        self._left_out = self._characters = 0


__all__ = ["MAX_LINE", "MAX_SECOND", "Flood", "Lines"]
