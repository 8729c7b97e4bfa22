"""Which file systems a journal may be mapped on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from journals import identities, only_run, points
from programs import CALMLY

import tracer
from tracer import places

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:45 / /mnt/with\\040space rw - nfs4 server:/x rw
31 22 0:46 / /mnt/tape rw - odd tape rw
32 22 0:47 / /mnt/tape/fast rw - tmpfs tmpfs rw
"""


@pytest.fixture
def mounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let this machine have other mounts than it has; folders below them need not exist."""
    table = tmp_path / "mountinfo"
    table.write_text(MOUNTS, encoding="utf-8")
    real = open

    def open_table(path: object, *rest: object, **options: object) -> object:
        return real(table if path == "/proc/self/mountinfo" else path, *rest, **options)  # type: ignore[call-overload]

    monkeypatch.setattr("builtins.open", open_table)
    monkeypatch.setattr("tracer.places.os.path.exists", lambda _: True)

    class Status:
        """A folder on no device of the table: the mount point decides."""

        st_dev = 0

    monkeypatch.setattr("tracer.places.os.stat", lambda _: Status)


@pytest.mark.usefixtures("mounts")
@pytest.mark.parametrize(
    ("path", "kind", "mode"),
    [
        ("/home/me", "ext4", "mapped"),
        ("/mnt/with space/runs", "nfs4", "append"),
        ("/mnt/tape/x", "odd", "append"),
        ("/mnt/tape/fast/x", "tmpfs", "mapped"),
        ("/mnt/tapes", "ext4", "mapped"),
    ],
)
def test_the_longest_mount_point_above_decides(path: str, kind: str, mode: str) -> None:
    assert places.file_system(path) == kind
    assert places.kind(path) == mode
    assert places.is_network(path) == (mode == "append")


def test_the_device_decides_before_the_mount_point(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        assert places.file_system(folder / "not" / "there" / "yet") == "tmpfs"
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_link_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/proc/self")

    assert places.file_system(tmp_path / "link") == "proc"


@pytest.mark.parametrize("mode", ["mapped", "append"])
def test_what_the_user_wants_is_done(tmp_path: Path, mode: str) -> None:
    assert places.kind("/proc", mode) == mode

    with tracer.init(project="places", journal=mode, **CALMLY) as run:
        for step in range(40_000):
            run.log({"loss": float(step)}, step=step)

    folder = only_run(tmp_path / ".tracer")
    assert {who["mode"] for who in identities(folder)} == {mode}
    assert points(folder) == [("loss", step, float(step)) for step in range(40_000)]
