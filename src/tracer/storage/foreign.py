"""What a foreign store says, checked before it is believed: files, digests, aliases, numbers, edges of histograms."""

from __future__ import annotations

import os
import stat
from typing import Any

import numpy as np

from tracer.storage.artifact_contents import hash_file, is_digest
from tracer.storage.artifact_names import LATEST, checked_aliases
from tracer.transfer import File, Histogram, Part


def plain_size(path: str) -> int:
    """Return the size of an ordinary file; a link, a pipe or a device is none."""
    if "\0" in path:
        message = "its path holds a NUL"
        raise ValueError(message)
    state = os.lstat(path)
    if not stat.S_ISREG(state.st_mode):
        message = "it is no ordinary file but a link, a folder or a device"
        raise ValueError(message)
    return state.st_size


def compare(part: Part) -> None:
    """Refuse a file that is no ordinary one, or that is not what was said of it."""
    plain_size(part.local)
    found, _ = hash_file(part.local)
    if is_digest(part.digest) and found != part.digest:
        message = f"its bytes have the SHA-256 {found[:12]}… and not {part.digest[:12]}…"
        raise ValueError(message)


def aliases(event: File) -> list[str]:
    """Return those aliases of an artifact that may be one here."""
    found: list[str] = []
    for alias in event.aliases:
        if alias != LATEST:
            try:
                found += checked_aliases(alias)
            except ValueError:
                continue
    return found


def by_powers(event: Histogram) -> tuple[int, Any] | None:
    """Return the lowest exponent and counts by sign and bin of a histogram of powers of two, or None."""
    edges, counts = np.asarray(event.edges, np.float64), np.asarray(event.counts, np.float64)
    half = len(edges) // 2
    if len(edges) % 2 or half < 2 or len(counts) != len(edges) - 1 or counts[half - 1]:  # noqa: PLR2004 -- a bin has two
        return None
    upper = edges[half:]
    mantissa, exponent = np.frexp(upper)
    is_whole = bool((counts >= 0).all() and (counts == np.rint(counts)).all() and (counts < 2**32).all())
    if not (is_whole and (upper > 0).all() and (mantissa == 0.5).all() and (np.diff(exponent) == 1).all()):  # noqa: PLR2004
        return None
    if not (edges[:half] == -upper[::-1]).all():
        return None
    table = np.stack([counts[: half - 1][::-1], counts[half:]]).astype(np.int64).reshape(2, 1, half - 1)
    return int(exponent[0]) - 1, table


def whole(number: int) -> int:
    """Return a step or a time as 64 bits hold it."""
    return min(max(int(number), 1 - 2**63), 2**63 - 1)


def reason(error: Exception) -> str:
    """Return why something could not be kept, as part of a sentence."""
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")


__all__ = ["aliases", "by_powers", "compare", "plain_size", "reason", "whole"]
