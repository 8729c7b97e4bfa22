"""What the terminal can do, decided once: colours, width, characters; and text where there is no terminal.

Honoured: NO_COLOR, FORCE_COLOR, TERM=dumb, COLUMNS, LINES, COLORTERM.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import IO

_UNSEEN_WIDTH, _UNSEEN_HEIGHT = 80, 24


@dataclass(frozen=True, slots=True)
class Terminal:
    """A stream: whether a person looks at it, its size, its colours (0, 16 or 256) and its characters."""

    is_seen: bool
    is_dumb: bool
    width: int
    height: int
    colours: int
    unicode: bool

    @classmethod
    def of(cls, stream: IO[str], *, no_color: bool = False) -> Terminal:
        """Return what a stream can do."""
        environ = os.environ
        forced = environ.get("FORCE_COLOR", "0") not in ("", "0")
        dumb = environ.get("TERM") == "dumb"
        try:
            seen = forced or stream.isatty()
        except ValueError:  # a closed stream is no terminal
            seen = False
        # NO_COLOR is the louder of the two, as its convention has it.
        coloured = seen and not no_color and not environ.get("NO_COLOR") and (forced or not dumb)
        rich = "256" in environ.get("TERM", "") or environ.get("COLORTERM", "") in ("truecolor", "24bit")
        size = shutil.get_terminal_size((_UNSEEN_WIDTH, _UNSEEN_HEIGHT))
        unicode = (getattr(stream, "encoding", None) or "").lower().replace("-", "").startswith("utf")
        return cls(
            is_seen=seen,
            is_dumb=dumb,
            width=size.columns,
            height=size.lines,
            colours=(256 if rich else 16) if coloured else 0,
            unicode=unicode,
        )

    @property
    def draws(self) -> bool:
        """Tell whether tables may be drawn and lines may be rewritten."""
        return self.is_seen and not self.is_dumb


__all__ = ["Terminal"]
