"""Names that a peer refuses, made into names that it takes, and back: two of ours never become one of its."""

from __future__ import annotations

import hashlib
import re

_ESCAPED = re.compile(r"_x([0-9a-f]{2,6})_")
_DIGEST = 12


class NameMap:
    """The names of one run as one peer takes them.

    A character that is refused becomes `_xHH_`, its code point in hexadecimal; a literal `_x` is escaped first. A name
    that is too long is cut and gets a digest of the whole.

    Args:
        allowed: A pattern for one character that is taken, as `[A-Za-z0-9_./ -]`.
        longest: So many characters at most.
        refused: Whole names that are refused although their characters are taken, such as `..`.

    Example:
        >>> names = NameMap(r"[A-Za-z0-9_/-]", 250)
        >>> names.sent("loss[0]")
        'loss_x5b_0_x5d_'
        >>> names.original("loss_x5b_0_x5d_")
        'loss[0]'
        >>> names.changed
        {'loss[0]': 'loss_x5b_0_x5d_'}
    """

    def __init__(self, allowed: str, longest: int, refused: str = r"(?!)") -> None:
        self._allowed, self._longest, self._refused = re.compile(allowed), longest, re.compile(refused)
        self._sent: dict[str, str] = {}
        self.changed: dict[str, str] = {}

    def sent(self, name: str) -> str:
        """Return what the peer is told."""
        found = self._sent.get(name)
        if found is None:
            found = self._sent[name] = self._made(name)
            if found != name:
                self.changed[name] = found
        return found

    def original(self, sent: str) -> str:
        """Return what a name was before; for one that was cut, what `changed` knows, else itself."""
        for name, told in self.changed.items():
            if told == sent:
                return name
        return unescaped(sent)

    def _made(self, name: str) -> str:
        """Return a name that is taken."""
        text = re.sub(r"_x(?=[0-9a-f]{2,6}_)", "_x5f_x", name)
        text = "".join(one if self._allowed.fullmatch(one) else f"_x{ord(one):02x}_" for one in text)
        if self._refused.fullmatch(text) or not text:
            text = "".join(f"_x{ord(one):02x}_" for one in name) or "_x00_"
        if len(text) > self._longest:
            told = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST]
            text = f"{text[: self._longest - _DIGEST - 1]}_{told}"
        return text


def ranked(name: str, rank: int) -> str:
    """Return a name with the rank before it, for a peer that has no place for ranks; the first has its plain name.

    Example:
        >>> ranked("loss", 0), ranked("loss", 2)
        ('loss', 'rank2/loss')
    """
    return f"rank{rank}/{name}" if rank else name


def unescaped(sent: str) -> str:
    """Return the name behind an escaped one.

    Example:
        >>> unescaped("loss_x5b_0_x5d_")
        'loss[0]'
    """
    return "" if sent == "_x00_" else _ESCAPED.sub(lambda found: chr(int(found[1], 16)), sent)
