"""`run.json` and `store.json`: what is known of a run and of its store, replaced whole.

The process that owns a run writes its facts while it lives; afterwards the store's maintainer does.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

import contextlib
import errno
import hashlib
import json
import os
import re
import socket

from tracer import clock
from tracer.errors import SchemaTooNew
from tracer.events import RUNNING

NAME, STORE = "run.json", "store.json"
FORMAT = 1
_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
_MAX_ID = 500


def new_id() -> str:
    """Return a random id in the form of a version 4 UUID, without loading `uuid`."""
    return _as_uuid(bytearray(os.urandom(16)), version=4)


def shared_id(*parts: object) -> str:
    """Return the id that everyone who knows the same parts arrives at: the ranks of one job."""
    return _as_uuid(bytearray(hashlib.sha256(repr(parts).encode()).digest()[:16]), version=5)


def prepare_store(path: str) -> None:
    """Make the folder of a store, or see that this version may write into the one that is there."""
    os.makedirs(os.path.join(path, "runs"), exist_ok=True)
    try:
        said = read(path, STORE)
        written = int(said.get("format", FORMAT))
    except (ValueError, TypeError):  # damage to this file is no reason not to record: the runs do not need it
        os.replace(os.path.join(path, STORE), os.path.join(path, STORE + ".damaged"))
        said, written = {}, FORMAT
    if not said:
        created = {"format": FORMAT, "id": new_id(), "created": clock.now_us()}
        _create(path, STORE, created)
    elif written > FORMAT:
        newer = f"The store {path} has format {written}; this Tracer writes {FORMAT}."
        message = f"{newer} Update: pip install -U ml-tracer"
        raise SchemaTooNew(message)


def new_facts(uid: str, project: str, name: str, settings: Mapping[str, object]) -> dict[str, Any]:
    """Return the facts of a run that begins now in this process."""
    return {
        "format": FORMAT,
        "id": uid,
        "project": project,
        "name": name,
        "status": RUNNING,
        "reason": None,
        "started": clock.now_us(),
        "ended": None,
        "steps": 0,
        "checkpoints": 0,
        "config": {},
        "settings": dict(settings),
        "tags": [],
        "notes": None,
        "group": None,
        "job_type": None,
        "world_size": 1,
        **owner(),
        "environment": {},
        "git": {},
        "goals": {},
        "units": {},
        "summary": {},
        "labels": {},
        "origins": {},
        "cost": {},
        "counters": {},
        "expires": None,
        "exit_code": None,
    }


def owner() -> dict[str, object]:
    """Return what says whose run this is now, and whether that process still lives."""
    return {
        "attempt": 1,
        "host": socket.gethostname(),
        "user": os.environ.get("USER")
        or os.environ.get("LOGNAME")
        or str(os.getuid() if hasattr(os, "getuid") else ""),
        "pid": os.getpid(),
        "process_started": clock.process_started(),
        "boot": clock.boot_id(),
    }


def folder_name(uid: str) -> str:
    """Return the folder of a run: its id where that is a safe name, else a name made from it.

    User text never becomes a path: an id such as `../x` gets a digest as folder and stands in `run.json` only.
    """
    if not uid or len(uid) > _MAX_ID:
        message = f"The run id {uid[:40]!r} has {len(uid)} characters; it needs between 1 and {_MAX_ID}."
        raise ValueError(message)
    if _SAFE.fullmatch(uid) and not _RESERVED.fullmatch(uid) and not uid.endswith("."):
        return uid
    return "id-" + hashlib.sha256(uid.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def read(folder: str, name: str = NAME) -> dict[str, Any]:
    """Return the facts of a run; empty where there are none yet."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            facts = json.load(file)
    except FileNotFoundError:
        return {}
    return facts if isinstance(facts, dict) else {}


def create(folder: str, facts: Mapping[str, object]) -> bool:
    """Write the facts unless somebody was first; tell whether it was us."""
    return _create(folder, NAME, facts)


def replace(folder: str, facts: Mapping[str, object]) -> None:
    """Write the facts aside, synced, and put them in place in one step."""
    try:
        os.replace(_write_aside(folder, facts), os.path.join(folder, NAME))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or not _overwrite(os.path.join(folder, NAME), _text(facts)):
            raise
    _sync_folder(folder)


def merge(facts: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Apply changes: dictionaries merge, everything else is replaced."""
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(facts.get(key), dict):
            merge(facts[key], value)
        else:
            facts[key] = value


def _create(folder: str, name: str, facts: Mapping[str, object]) -> bool:
    """Write a file that is not there yet; tell whether it was us."""
    aside = _write_aside(folder, facts)
    path = os.path.join(folder, name)
    try:
        os.link(aside, path)
    except FileExistsError:
        return False
    except OSError:  # a file system without links: whoever creates the name first is first
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        except FileExistsError:
            return False
        os.replace(aside, path)
    finally:
        with contextlib.suppress(OSError):
            os.unlink(aside)
    _sync_folder(folder)
    return True


def _write_aside(folder: str, facts: Mapping[str, object]) -> str:
    """Write a synced copy under a name of our own."""
    aside = os.path.join(folder, f".run.{os.getpid()}.{clock.monotonic_ns()}.json")
    text = _text(facts)
    fd = os.open(aside, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_CLOEXEC, 0o644)
    try:
        written = 0
        while written < len(text):
            written += os.write(fd, text[written:])
        os.fsync(fd)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(aside)
        raise
    finally:
        os.close(fd)
    return aside


def _overwrite(path: str, text: bytes) -> bool:
    """Write into the room that a file has already: on a full disk it is the only one. Tell whether it was enough."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        if len(text) > os.fstat(fd).st_blocks * 512:  # half a file would be worse than an old one
            return False
        os.pwrite(fd, text, 0)
        os.ftruncate(fd, len(text))
        os.fsync(fd)
    finally:
        os.close(fd)
    return True


def _text(facts: Mapping[str, object]) -> bytes:
    """Return facts as the file holds them."""
    return json.dumps(facts, indent=1, default=str).encode()


def _sync_folder(folder: str) -> None:
    """Make a rename in this folder survive a crash of the machine."""
    with contextlib.suppress(OSError):  # some file systems refuse to sync a folder
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _as_uuid(raw: bytearray, version: int) -> str:
    """Format 16 bytes as a UUID of this version."""
    raw[6] = raw[6] & 0x0F | version << 4
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
