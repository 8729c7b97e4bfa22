"""Which layers a record of layer values speaks of: declared once in a journal, kept once in the catalog."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from tracer.storage.names import clean_text

if TYPE_CHECKING:
    Axis = dict[str, Any]

_UNNAMED = "value"


class OfAxis(Protocol):
    """A record that refers to an axis."""

    axis: dict[str, Any]


def settle_axes(records: Iterable[OfAxis]) -> dict[str, Axis]:
    """Give records of equal axes one and the same axis, in its fixed form; return the axes by digest.

    Every segment of a journal declares its axes anew, so equal ones come in many copies.
    """
    found: dict[str, Axis] = {}
    copies: dict[int, tuple[object, Axis]] = {}
    for one in records:
        known = copies.get(id(one.axis))
        if known is None:
            axis = clean_axis(one.axis)
            # The copy is kept as well: another axis must not get the number of one that is gone.
            known = copies[id(one.axis)] = (one.axis, found.setdefault(axis_digest(axis), axis))
        one.axis = known[1]
    return found


def clean_axis(axis: Mapping[str, Any]) -> Axis:
    """Return an axis with text that every format takes, in its fixed form."""
    return {
        "what": clean_text(str(axis.get("what", ""))),
        "layers": [clean_text(str(name)) for name in axis.get("layers", ())],
        "statistics": [clean_text(str(name)) or _UNNAMED for name in axis.get("statistics", ())],
        "shapes": axis.get("shapes", []),
    }


def axis_digest(axis: Mapping[str, Any]) -> str:
    """Return what axes with the same layers in the same order have in common."""
    text = json.dumps([axis.get("what"), axis.get("layers"), axis.get("statistics")])
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


__all__ = ["axis_digest", "clean_axis", "settle_axes"]
