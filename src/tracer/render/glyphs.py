"""A small stroke font of our own, so that a PNG needs no font file: each character is a few straight strokes.

A point is two digits of base 17, x then y; y grows downwards, capitals reach from 0 to 12, small letters from 4 to 12,
descenders to 16. Strokes are parted by blanks. Standard library only.
"""

from __future__ import annotations

CAP_HEIGHT = 12
_GAP = 3
_BLANK = 5
_STROKES = {
    "A": "0c408c 1979", "B": "0c005071755606 56878b5c0c", "C": "826020020a2c6c8a", "D": "0c005083895c0c",
    "E": "80000c8c 0666", "F": "80000c 0666", "G": "826020020a2c6c8a8656", "H": "000c 808c 0686",
    "I": "202c 0040 0c4c", "J": "606a4c2c0a", "K": "000c 8007 358c", "L": "000c7c", "M": "0c0047808c", "N": "0c008c80",
    "O": "20020a2c6c8a826020", "P": "0c006082846606", "Q": "20020a2c6c8a826020 598d", "R": "0c006082846606 468c",
    "S": "82602002042666888a6c2c0a", "T": "0080 404c", "U": "000a2c6c8a80", "V": "004c80", "W": "002c446c80",
    "X": "008c 800c", "Y": "004680 464c", "Z": "00800c8c",
    "a": "646c 664424060a2c4c6a", "b": "000c 062444666a4c2c0a", "c": "664424060a2c4c6a", "d": "606c 664424060a2c4c6a",
    "e": "0868664424060a2c4c6b", "f": "5030222c 0454", "g": "646e4g2g0f 664424060a2c4c6a", "h": "000c 062444666c",
    "i": "141c 1111", "j": "242e1g0g 2121", "k": "000c 5409 276c", "l": "101c", "m": "040c 062434464c 466474868c",
    "n": "040c 062444666c", "o": "24060a2c4c6a664424", "p": "040g 062444666a4c2c0a", "q": "646g 664424060a2c4c6a",
    "r": "040c 072444", "s": "65442405072848696b4c2c0b", "t": "212a3c5c 0454", "u": "040a2c4c6a 646c", "v": "043c64",
    "w": "042c466c84", "x": "046c 640c", "y": "043c 642g0g", "z": "04640c6c",
    "0": "20020a2c4c6a624020", "1": "12303c 1c5c", "2": "02204062640c6c", "3": "01204062644626 46686a4c2c0b",
    "4": "4c400868", "5": "6010052444666a4c2c0b", "6": "5021050a2c4c6a68462608", "7": "00602c",
    "8": "200204264664624020 26080a2c4c6a6846", "9": "1c4b676240200204264664",
    ".": "1b1c", ",": "1b0e", ":": "1515 1b1b", ";": "1515 1b0e", "!": "1018 1b1c", "?": "02204062643638 3b3c",
    "-": "0858", "+": "0868 353b", "=": "0666 0a6a", "_": "0d7d", "/": "0e60", "\\": "006e", "|": "101e",
    "(": "30131b3e", ")": "00232b0e", "[": "30101e3e", "]": "00202e0e", "{": "40212607282d4e", "}": "00212647282d0e",
    "<": "64086c", ">": "04680c", "%": "10010314232110 78696b7c8b8978 701c", "#": "202c 606c 0484 0888",
    "*": "3137 0266 6206", "@": "8b6c2c0a02206082877867644425274867", "&": "8c141220405253080a2c4c88",
    "$": "82602002042666888a6c2c0a 404c", "^": "043064", "~": "08264866", '"': "1013 3033", "'": "1013", "`": "0012",
    "…": "0c0c 3c3c 6c6c", "\u00d7": "066c 660c", "±": "0767 343a 0c6c", "µ": "040g 040a2c4c6a 646c", "·": "1818",
}  # fmt: skip
#: What stands for a character that the font has not.
_UNKNOWN = "000c6c6000"
_LIKE = {"\u2013": "-", "\u2014": "-", "\u2212": "-", "\u2019": "'", "\u201c": '"', "\u201d": '"'}


def strokes(text: str) -> tuple[list[list[tuple[float, float]]], float]:
    """Return the strokes of a text and how wide it is, both in units of the font.

    Args:
        text: One line; a character that the font has not becomes a box.

    Returns:
        Polylines as lists of points, and the width.

    Example:
        >>> strokes("I")[1]
        4.0
    """
    found: list[list[tuple[float, float]]] = []
    left = 0.0
    for character in text:
        if character == " ":
            left += _BLANK + _GAP
            continue
        glyph = _STROKES.get(_LIKE.get(character, character), _UNKNOWN)
        lines = [[(int(s[i], 17), int(s[i + 1], 17)) for i in range(0, len(s), 2)] for s in glyph.split()]
        found += [[(left + x, float(y)) for x, y in line] for line in lines]
        left += max(x for line in lines for x, _ in line) + _GAP
    return found, max(left - _GAP, 0.0)


__all__ = ["CAP_HEIGHT", "strokes"]
