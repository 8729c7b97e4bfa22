"""Checksums of TensorBoard's files (CRC-32C, masked), for many records at once and for large ones.

The checksum of a message is linear in its bits, so what one byte adds depends on the byte and on how many follow it:
a table per distance, and a record's checksum is one look-up per byte. NumPy does that for all records of a length
together. Inverting the first four bytes is the same as beginning with all ones, and zeros in front change nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_POLYNOMIAL = 0x82F63B78
_ALL = 0xFFFFFFFF
_MASK = 0xA282EAD8
#: Longer messages are cut into rows of this many bytes, which are joined afterwards.
ROW = 1024
#: Shorter ones are done byte by byte.
_SHORT = 4

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Checks = np.ndarray[Any, np.dtype[np.uint32]]


def _first_table() -> Checks:
    """Return what each byte adds when none follows."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> np.uint32(1)) ^ np.uint32(_POLYNOMIAL), table >> np.uint32(1))
    return table


_tables: list[Checks] = [_first_table()]


def _table(distance: int) -> Checks:
    """Return what each byte adds when so many follow."""
    while len(_tables) <= distance:
        last = _tables[-1]
        _tables.append(_tables[0][last & np.uint32(0xFF)] ^ (last >> np.uint32(8)))
    return _tables[distance]


def _remainders(columns: Bytes) -> Checks:
    """Return the bare remainders of messages of one length, each a column."""
    length = len(columns)
    found = np.zeros(columns.shape[1], np.uint32)
    for at in range(length):
        found ^= _table(length - 1 - at)[columns[at]]
    return found


def masked(check: Checks) -> Checks:
    """Return checksums as they stand in the file."""
    turned = (check >> np.uint32(15)) | (check << np.uint32(17))
    return turned + np.uint32(_MASK)


def of_many(columns: Bytes) -> Checks:
    """Return the masked checksums of messages of one length, a column each; four bytes at least, `ROW` at most.

    Example:
        >>> columns = np.frombuffer(b"12341234", np.uint8).reshape(2, 4).T
        >>> [hex(int(one)) for one in of_many(columns)] == [hex(of_one(b"1234"))] * 2
        True
    """
    inverted = columns[:_SHORT] ^ np.uint8(0xFF)
    found = _remainders(np.concatenate([inverted, columns[_SHORT:]]))
    return masked(found ^ np.uint32(_ALL))


def of_one(message: bytes | memoryview) -> int:
    """Return the masked checksum of one message of any length.

    Example:
        >>> hex(of_one(b"123456789"))  # CRC-32C 0xe3069283, turned and shifted
        '0xc78ab0e5'
    """
    if len(message) < _SHORT:
        check = _ALL
        for byte in bytes(message):
            check = int(_tables[0][(check ^ byte) & 0xFF]) ^ (check >> 8)
        return int(masked(np.array([check ^ _ALL], np.uint32))[0])
    length = len(message)
    padded = np.zeros(-(-length // ROW) * ROW, np.uint8)
    start = len(padded) - length
    padded[start:] = np.frombuffer(message, np.uint8)
    padded[start : start + _SHORT] ^= np.uint8(0xFF)
    width = min(ROW, length) if length <= ROW else ROW
    rows = padded[-width:].reshape(1, width) if length <= ROW else padded.reshape(-1, ROW)
    parts = _remainders(np.ascontiguousarray(rows.T)).tolist()
    check = parts[0]
    for part in parts[1:]:
        check = _moved(check) ^ part
    return int(masked(np.array([check ^ _ALL], np.uint32))[0])


def _moved(check: int) -> int:
    """Return a remainder after a row of zeros more."""
    first, second, third, fourth = (_table(ROW - 1 - at) for at in range(4))
    return int(first[check & 0xFF] ^ second[(check >> 8) & 0xFF] ^ third[(check >> 16) & 0xFF] ^ fourth[check >> 24])


__all__ = ["ROW", "masked", "of_many", "of_one"]
