"""Which options of a back end are secret: they travel through a pipe, and stand in no file."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

from tracer.backends.table import without_user
from tracer.capture.redaction import Redactor

#: Secret whatever they are called; of a webhook the whole address is.
_SECRET = frozenset({"headers", "cookies", "auth", "url"})


def plain(options: Mapping[str, object]) -> dict[str, object]:
    """Return the options that may be written down; addresses without user, password and query.

    Example:
        >>> plain({"tracking_uri": "http://me:secret@host:5000", "api_key": "abc", "batch": 3})
        {'tracking_uri': 'http://host:5000', 'batch': 3}
    """
    redactor = Redactor()
    found: dict[str, object] = {}
    for name, value in options.items():
        if name in _SECRET or redactor.is_secret_name(name):
            continue
        if isinstance(value, str):
            found[name] = without_user(value) if "://" in value else value
        elif value is None or isinstance(value, (bool, int, float, list, tuple, dict)):
            found[name] = redactor.value(value, name)
    return found


def secrets_in(options: Mapping[str, object]) -> Iterator[str]:
    """Yield the texts of options that are not written down, and the user and password of addresses."""
    kept = plain(options)
    for name, value in options.items():
        if name not in kept:
            yield from _texts(value)
        elif isinstance(value, str) and value != kept[name]:
            before, _, _ = value.partition("://")[2].rpartition("@")
            yield from (one for one in before.split(":") if one)


def _texts(value: object) -> Iterator[str]:
    """Yield all texts in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _texts(one)
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _texts(one)


__all__ = ["plain", "secrets_in"]
