"""Numbers, times and names as text; documents as JSON and CSV.

JSON here is always valid: NaN and the infinities are the strings `"NaN"`, `"Infinity"` and `"-Infinity"`, which
JavaScript's `Number()` and Python's `float()` both read. Text from outside is never printed as it is: ANSI sequences
are dropped and control characters shown as escapes, so that a run's name cannot move the cursor or colour the screen.
Standard library only.
"""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -/]*[0-~])")
#: C0, DEL, C1, and what turns the direction of writing round: a name could pose as another one with it.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_DIGITS = 6
_LARGE, _SMALL = 1e6, 1e-4
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400
_KIBI = 1024
_FEW_SECONDS, _WHOLE, _ONE_BYTE = 10, 99.95, 0xFF
_US = 1_000_000


def clean(text: object) -> str:
    r"""Return text that is safe to print on one line.

    Args:
        text: Anything; what is not text is turned into it.

    Returns:
        The text without ANSI sequences, control characters as escapes.

    Example:
        >>> clean("evil\x1b[2Jname\n")
        'evilname\\n'
    """
    plain = str(text)
    if plain.isascii() and plain.isprintable():
        return plain
    return _CONTROL.sub(_escaped, _ANSI.sub("", plain))


def number(value: object, digits: int = _DIGITS) -> str:
    """Return a number as a person reads it: few digits, no false precision; anything else as clean text.

    Example:
        >>> [number(value) for value in (0.1234567, 1e-9, 12000000.0, float("nan"), 3, None, True)]
        ['0.123457', '1e-09', '1.2e+07', 'NaN', '3', '-', 'true']
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, float):
        return clean(value)
    if not math.isfinite(value):
        return special(value)
    if value and not _SMALL <= abs(value) < _LARGE:
        return f"{value:.{digits - 1}g}"
    return f"{value:.{digits}g}"


def full(value: object) -> str:
    """Return a value with every digit it has; lists and dictionaries as JSON."""
    if isinstance(value, float):
        return special(value) if not math.isfinite(value) else repr(value)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, (dict, list, tuple)):
        return clean(json.dumps(plain(value), ensure_ascii=False))
    return clean(value)


def special(value: float) -> str:
    """Return the name of NaN or an infinity."""
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def percent(share: float | None) -> str:
    """Return a share with its sign in per cent.

    Example:
        >>> percent(0.0312), percent(-1.5), percent(None)
        ('+3.1%', '-150%', '-')
    """
    if share is None or not math.isfinite(share):
        return "-"
    value = 100 * share
    return f"{value:+.0f}%" if abs(value) >= _WHOLE else f"{value:+.1f}%" if abs(value) >= 1 else f"{value:+.2g}%"


def duration(seconds: float) -> str:
    """Return a length of time in its two largest units.

    Example:
        >>> [duration(value) for value in (0.25, 59.4, 125, 7260, 200000)]
        ['0.25s', '59s', '2m 05s', '2h 01m', '2d 07h']
    """
    if not math.isfinite(seconds):
        return special(seconds)
    if seconds < _FEW_SECONDS:
        return f"{seconds:.2f}s"
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m {whole % _MINUTE:02d}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h {whole % _HOUR // _MINUTE:02d}m"
    return f"{whole // _DAY}d {whole % _DAY // _HOUR:02d}h"


def size(size_bytes: float) -> str:
    """Return an amount of bytes.

    Example:
        >>> size(512), size(1536), size(5 * 1024**3)
        ('512 B', '1.5 KiB', '5.0 GiB')
    """
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < _KIBI:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= _KIBI
    return f"{value:.1f} TiB"


def when(micros: int | None) -> str:
    """Return a stored time in the reader's time zone; `-` when there is none."""
    if micros is None:
        return "-"
    try:
        return dt.datetime.fromtimestamp(micros / _US).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, OSError, ValueError):  # a clock that was far off is still no reason to fail
        return f"{micros / _US:.0f}s since 1970"


def iso(micros: int | None) -> str | None:
    """Return a stored time as ISO 8601 in UTC, for JSON; None when there is none.

    Example:
        >>> iso(1_500_000)
        '1970-01-01T00:00:01.500000Z'
    """
    if micros is None:
        return None
    try:
        moment = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=micros)
    except OverflowError:
        return None
    return moment.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def plain(value: object) -> object:
    """Return what JSON can hold: NaN and the infinities as strings, tuples as lists, anything strange as text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else special(value)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(inner) for inner in value]
    if isinstance(value, (dt.datetime, dt.date, dt.time)):
        return value.isoformat()
    return str(value)


def to_json(document: object, *, indent: int | None = 2) -> str:
    """Return a document as valid JSON.

    Args:
        document: Dictionaries, lists, numbers, texts.
        indent: Blanks per level; None for one line, as JSON Lines want it.

    Returns:
        The JSON text, in ASCII: a lone surrogate or a control character in a name is escaped and does no harm.

    Example:
        >>> to_json({"loss": float("nan")}, indent=None)
        '{"loss": "NaN"}'
    """
    return json.dumps(plain(document), indent=indent, allow_nan=False)


def to_csv(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    r"""Return rows as CSV with a header; empty for None, every digit of a number.

    Example:
        >>> to_csv(["step", "value"], [[1, 0.5], [2, None]])
        'step,value\n1,0.5\n2,\n'
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([_cell(value) for value in row] for row in rows)
    return text.getvalue()


def _cell(value: object) -> str:
    """Return one cell of CSV; a text that a spreadsheet would run as a formula is quoted with an apostrophe."""
    if value is None:
        return ""
    text = full(value)
    return f"'{text}" if isinstance(value, str) and text[:1] in ("=", "+", "-", "@") else text


def _escaped(match: re.Match[str]) -> str:
    """Return a control character as its escape."""
    character = match.group()
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code <= _ONE_BYTE else f"\\u{code:04x}")


__all__ = [
    "clean",
    "duration",
    "full",
    "iso",
    "number",
    "percent",
    "plain",
    "size",
    "special",
    "to_csv",
    "to_json",
    "when",
]
