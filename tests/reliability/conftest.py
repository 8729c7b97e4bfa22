"""Disks that are full, small or read-only, and what a program says when its disk fails."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Return a function that mounts a file system in memory, of a size in KiB."""
    mounted: list[Path] = []

    def mount(size_kib: int, inodes: int | None = None) -> Path:
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        options = f"size={size_kib}k" + (f",nr_inodes={inodes}" if inodes else "")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False
        )
        if done.returncode:
            pytest.skip("needs the right to mount a file system")
        mounted.append(folder)
        return folder

    yield mount
    os.chdir("/")
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def as_nobody(tmp_path: Path) -> list[str]:
    """Return the beginning of a command that runs without rights: permissions do not bind root."""
    command = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    done = subprocess.run([*command, "true"], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("needs the right to become another user")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o755)
    return command


def fill(folder: Path) -> Path:
    """Take all the space that is left, and return the file that holds it."""
    path = folder / "ballast"
    with path.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return path


@pytest.fixture(name="fill")
def _fill() -> Callable[[Path], Path]:
    """Return the function that fills a disk."""
    return fill
