"""Which layers are watched: by a text in the name, a glob, or a regular expression."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence

_PATTERN = "re:"
_GLOB = frozenset("*?[")


def layer_filter(patterns: Sequence[str] | None) -> Callable[[str], bool]:
    """Return the test that tells whether a layer is watched.

    Args:
        patterns: A layer is watched when one of them fits its name: `re:` and a regular expression that is found in
            the name, a glob (`*`, `?`, `[`) for the whole name, or else a text that the name holds. None watches all.

    Returns:
        A function of the layer's name.

    Raises:
        TypeError: The patterns are one text instead of a list.
        ValueError: A regular expression cannot be read.

    Example:
        >>> list(filter(layer_filter(["attn", "*.bias"]), ["h.0.attn.weight", "h.0.mlp.bias", "h.0.mlp.weight"]))
        ['h.0.attn.weight', 'h.0.mlp.bias']
    """
    if patterns is None:
        return _every_layer
    if isinstance(patterns, str):
        message = f"The layers are {patterns!r}, one text; give a list of texts, such as [{patterns!r}]."
        raise TypeError(message)
    tests = [_test(pattern) for pattern in patterns]
    return lambda name: any(test(name) for test in tests)


def _every_layer(name: str) -> bool:  # noqa: ARG001 -- has the signature of the real test
    """Watch every layer."""
    return True


def _test(pattern: str) -> Callable[[str], bool]:
    """Return the test of one pattern."""
    if pattern.startswith(_PATTERN):
        try:
            expression = re.compile(pattern.removeprefix(_PATTERN))
        except re.error as error:
            message = (
                f"The layer pattern {pattern!r} is no regular expression ({error}). Mend it, or leave out {_PATTERN!r}."
            )
            raise ValueError(message) from error
        return lambda name: expression.search(name) is not None
    if _GLOB.intersection(pattern):
        return lambda name: fnmatch.fnmatchcase(name, pattern)
    return lambda name: pattern in name


__all__ = ["layer_filter"]
