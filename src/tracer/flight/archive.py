"""The ZIP file of a capsule: written whole or not at all, and read as if an enemy had made it.

Names inside are an allow-list and never become paths; sizes are looked at before a byte is read; every entry but the
manifest carries its SHA-256 there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import socket
import stat
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

from tracer import clock
from tracer.errors import CapsuleError
from tracer.flight.signature import sign

FORMAT = 1
SUFFIX = ".trc"
MANIFEST = "manifest.json"
_STORED = (".safetensors", ".pt", ".pkl", ".bin")
_MOST_ENTRIES = 10_000
_LARGEST_MANIFEST = 64 << 20
_LARGEST_TEXT = 256 << 20
#: Text that shrinks more than this was made to fill a memory.
_MOST_RATIO = 1_100
_NAME = re.compile(r"[\w][\w.\- ]*(?:/[\w][\w.\- ]*)*")


class Archive:
    """A capsule's file, opened for reading.

    Args:
        path: The file.

    Raises:
        CapsuleError: It cannot be read, is no capsule, is damaged, or is not what Tracer writes.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except FileNotFoundError as error:
            message = f"There is no capsule {path!r}. `tracer capsule list RUN` shows those of a run."
            raise CapsuleError(message) from error
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            message = f"{path!r} is no capsule or was cut off ({error}). A capsule is a ZIP file that ends in {SUFFIX}."
            raise CapsuleError(message) from error
        with contextlib.ExitStack() as unless_sound:
            unless_sound.callback(self._zip.close)
            self._entries = self._checked(self._zip.infolist())
            self.manifest = self._manifest()
            unless_sound.pop_all()

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    @property
    def names(self) -> list[str]:
        """All entries, in their order."""
        return list(self._entries)

    def size_bytes(self, name: str) -> int:
        """Return how large an entry is."""
        return self._entries[name].file_size

    def read(self, name: str) -> bytes:
        """Return the bytes of an entry after checking them.

        Raises:
            CapsuleError: It is missing, damaged, or not the one that the manifest speaks of.
        """
        data = self._bytes(name)
        known = self.manifest["files"].get(name)
        if not isinstance(known, Mapping):
            message = f"The entry {name} of {self.path!r} is not in its manifest: it was put there later."
            raise CapsuleError(message)
        if len(data) != known.get("bytes") or hashlib.sha256(data).hexdigest() != known.get("sha256"):
            message = f"The entry {name} of {self.path!r} is damaged: its SHA-256 is not the one of the manifest."
            raise CapsuleError(message)
        return data

    def json(self, name: str) -> Any:  # noqa: ANN401 -- a document
        """Return the document of an entry."""
        return self._parsed(name, self.read(name))

    def verify(self) -> list[str]:
        """Return what is wrong with the file, a sentence for each entry; nothing when it is whole."""
        wrong: list[str] = []
        for name in dict.fromkeys([*self.manifest["files"], *self._entries]):
            try:
                if name != MANIFEST:
                    self.read(name)
            except CapsuleError as error:
                wrong.append(str(error))
        return wrong

    def _bytes(self, name: str) -> bytes:
        """Return the bytes of an entry."""
        if name not in self._entries:
            message = f"The entry {name} is missing in {self.path!r}. The capsule is not whole."
            raise CapsuleError(message)
        try:
            return self._zip.read(self._entries[name])
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError) as error:
            message = f"The entry {name} of {self.path!r} is damaged ({error})."
            raise CapsuleError(message) from error

    def _manifest(self) -> dict[str, Any]:
        """Return the manifest, if this version can read it."""
        first = next(iter(self._entries), None)
        if first != MANIFEST:
            message = f"{self.path!r} is no capsule: its first entry is {first!r}, not {MANIFEST}."
            raise CapsuleError(message)
        manifest = self._parsed(MANIFEST, self._bytes(MANIFEST))
        if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
            message = f"The entry {MANIFEST} of {self.path!r} is no manifest."
            raise CapsuleError(message)
        if manifest.get("format") != FORMAT:
            version = manifest.get("versions", {})
            wrote = version.get("tracer", "unknown") if isinstance(version, dict) else "unknown"
            message = (
                f"{self.path!r} has format {manifest.get('format')!r}; this Tracer reads {FORMAT}. "
                f"Tracer {wrote} wrote it and can read it: pip install -U ml-tracer"
            )
            raise CapsuleError(message)
        return manifest

    def _parsed(self, name: str, data: bytes) -> Any:  # noqa: ANN401 -- a document
        """Return a JSON document."""
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            message = f"The entry {name} of {self.path!r} is damaged ({error})."
            raise CapsuleError(message) from error

    def _checked(self, entries: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
        """Return the entries by name, if they are such as Tracer writes."""
        on_disk = os.path.getsize(self.path)
        found: dict[str, zipfile.ZipInfo] = {}
        if len(entries) > _MOST_ENTRIES:
            self._refuse(f"it has {len(entries)} entries")
        for entry in entries:
            name = entry.orig_filename
            if not _NAME.fullmatch(name) or ".." in name.split("/"):
                self._refuse(f"its entry {name!r} would lie outside")
            if name in found:
                self._refuse(f"its entry {name!r} is there twice")
            mode = entry.external_attr >> 16
            if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                self._refuse(f"its entry {name!r} is no plain file")
            if entry.flag_bits & 1:
                self._refuse(f"its entry {name!r} is encrypted")
            self._check_size(entry, on_disk)
            found[name] = entry
        if sum(entry.compress_size for entry in found.values()) > on_disk:
            self._refuse("its entries overlap")
        return found

    def _check_size(self, entry: zipfile.ZipInfo, on_disk: int) -> None:
        """Refuse an entry that would fill the memory."""
        name, size = entry.orig_filename, entry.file_size
        if entry.compress_type == zipfile.ZIP_STORED:
            if size != entry.compress_size or size > on_disk:
                self._refuse(f"its entry {name!r} says that it is larger than the file")
            return
        if entry.compress_type != zipfile.ZIP_DEFLATED:
            self._refuse(f"its entry {name!r} is packed in a way that Tracer does not use")
        limit = _LARGEST_MANIFEST if name == MANIFEST else _LARGEST_TEXT
        if size > limit or size > max(entry.compress_size, 1) * _MOST_RATIO:
            self._refuse(f"its entry {name!r} would unpack to {size:,} bytes")

    def _refuse(self, why: str) -> None:
        """Say that the file was not written by Tracer."""
        message = f"{self.path!r} is refused: {why}. Tracer writes no such file."
        raise CapsuleError(message)


def write_archive(path: str, manifest: dict[str, Any], entries: Mapping[str, bytes]) -> int:
    """Write a capsule so that it is found whole or not at all; return its size.

    Args:
        path: Where it will lie.
        manifest: What the first entry says; `files` and the signature are added here.
        entries: The other entries; text is packed, tensors lie in the file as they are in memory.

    Raises:
        OSError: The disk is full or the folder is gone; nothing of the capsule is left then.
    """
    manifest = dict(manifest)
    manifest["files"] = {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in entries.items()
    }
    sign(manifest)
    folder, name = os.path.split(os.path.abspath(path))
    hidden = os.path.join(folder, f".{name}{_ours()}.{os.getpid()}")
    with contextlib.ExitStack() as unless_whole:
        unless_whole.callback(_remove, hidden)  # no half file may stay
        with open(hidden, "wb") as file:
            with zipfile.ZipFile(file, "w", allowZip64=True) as packed:
                text = json.dumps(manifest, indent=1, allow_nan=False).encode()
                for entry, data in {MANIFEST: text, **entries}.items():
                    packed.writestr(_info(entry), data)
            file.flush()
            os.fsync(file.fileno())
        size = os.path.getsize(hidden)
        os.rename(hidden, path)
        unless_whole.pop_all()
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return size


def _remove(path: str) -> None:
    """Remove a file, if it is there."""
    with contextlib.suppress(OSError):
        os.unlink(path)


def sweep(folder: str) -> None:
    """Remove what processes left behind that were killed while they wrote a capsule."""
    if not clock.process_started():  # a system that does not tell which processes live
        return
    for name in os.listdir(folder):
        stem, _, pid = name.rpartition(".")
        # Of another machine on the same disk nothing is known; its half capsule may be growing.
        if (
            name.startswith(".")
            and stem.endswith(SUFFIX + _ours())
            and pid.isdigit()
            and not clock.process_started(int(pid))
        ):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))


def _ours() -> str:
    """Return what marks a half capsule as one of this machine."""
    return "@" + socket.gethostname()


def _info(name: str) -> zipfile.ZipInfo:
    """Return what the ZIP says of an entry; always the same time, so that equal capsules are equal files."""
    info = zipfile.ZipInfo(name)
    info.compress_type = zipfile.ZIP_STORED if name.endswith(_STORED) else zipfile.ZIP_DEFLATED
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


__all__ = ["FORMAT", "MANIFEST", "SUFFIX", "Archive", "sweep", "write_archive"]
