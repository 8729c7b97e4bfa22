"""Names of files that sort by the time they were made in, and text that every file format takes."""

from __future__ import annotations

import os
import threading

from tracer import clock

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_RANDOM_BITS = 80

_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """Return 26 characters that sort by the time they were made in, unique across machines (a ULID)."""
    global _last  # noqa: PLW0603 -- one order for the whole process
    fresh = clock.now_ns() // 1_000_000 << _RANDOM_BITS | int.from_bytes(os.urandom(_RANDOM_BITS // 8), "big")
    with _lock:
        # Within one process the order is strict even when the clock steps back.
        _last = max(fresh, _last + 1)
        number = _last
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def clean_text(text: str) -> str:
    """Return text that has a UTF-8: a lone surrogate becomes a question mark."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


__all__ = ["clean_text", "new_id"]
