"""How grave a finding is, in order. Standard library only."""

from __future__ import annotations

from collections.abc import Iterable

SEVERITIES = ("low", "medium", "high", "critical")


def rank(severity: str) -> int:
    """Return the place of a severity; one that is not known counts as the gravest.

    Example:
        >>> rank("low"), rank("critical"), rank("unheard of")
        (0, 3, 4)
    """
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def gravest(severities: Iterable[str]) -> str:
    """Return the gravest of some severities.

    Example:
        >>> gravest(["medium", "high", "low"])
        'high'
    """
    return max(severities, key=rank)


__all__ = ["SEVERITIES", "gravest", "rank"]
