"""Which file system a folder lies on, and whether a journal may be mapped there.

`os.statvfs` does not tell the type, so `/proc/self/mountinfo` is read. The decision is an allow-list: on a file system
that is not known, mapped pages and file locks are not trusted, and the journal is appended with plain writes.
"""

from __future__ import annotations

import os
import sys

#: Local file systems on which mapped pages are coherent and preallocated space stays ours.
MAPPABLE = frozenset({"ext2", "ext3", "ext4", "xfs", "tmpfs", "f2fs", "btrfs", "bcachefs", "overlay", "ramfs"})
MODES = ("mapped", "append")


def file_system(path: str | os.PathLike[str]) -> str:
    """Return the type of the file system that holds a path or its nearest existing parent; empty when unknown."""
    real = os.path.realpath(path)
    while not os.path.exists(real) and os.path.dirname(real) != real:
        real = os.path.dirname(real)
    try:
        device = os.stat(real).st_dev
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mounts = [_mount(line) for line in file]
    except (OSError, ValueError):
        return ""
    wanted = f"{os.major(device)}:{os.minor(device)}"
    above = [(number == wanted, len(point), kind) for number, point, kind in mounts if _is_above(point, real)]
    # The device decides; btrfs subvolumes have anonymous devices, so the longest mount point is the second choice.
    return max(above, default=(False, 0, ""))[2]


def kind(path: str | os.PathLike[str], wanted: str = "auto") -> str:
    """Return how a journal in this folder is kept: `mapped` or `append`."""
    if wanted in MODES:
        return wanted
    return "mapped" if file_system(path) in MAPPABLE and hasattr(os, "posix_fallocate") else "append"


def is_network(path: str | os.PathLike[str]) -> bool:
    """Tell whether locks and mapped pages must not be trusted there: SQLite is not opened on such a folder."""
    return sys.platform == "linux" and file_system(path) not in MAPPABLE


def _mount(line: str) -> tuple[str, str, str]:
    """Return the device number, mount point and type of one line of mountinfo."""
    left, _, right = line.partition(" - ")
    fields = left.split()
    return fields[2], _unescaped(fields[4]), right.split()[0]


def _unescaped(text: str) -> str:
    """Return a mount point with its octal escapes resolved."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def _is_above(point: str, path: str) -> bool:
    """Tell whether a mount point is the path or one of its parents."""
    return path == point or path.startswith(point.rstrip("/") + "/")
