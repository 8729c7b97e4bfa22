"""Whose capsule it is: a keyed hash of the manifest, with a key that only this user's home holds.

The manifest has the SHA-256 of every entry, so whoever can sign it has vouched for all of them. A capsule that was made
under the same home is one's own wherever it lies now; one that came from elsewhere is not, whatever folder it is in.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import tempfile
from collections.abc import Mapping
from typing import Any

_BYTES = 32
_FIELD = "signature"


def sign(manifest: dict[str, Any]) -> None:
    """Add the signature to a manifest that is complete; where no key can be kept, none is added."""
    key = _key(create=True)
    if key is not None:
        manifest[_FIELD] = _signature(manifest, key)


def is_own(manifest: Mapping[str, Any]) -> bool:
    """Tell whether this user's Tracer wrote a manifest."""
    given, key = manifest.get(_FIELD), _key(create=False)
    return isinstance(given, str) and key is not None and hmac.compare_digest(given, _signature(manifest, key))


def _signature(manifest: Mapping[str, Any], key: bytes) -> str:
    """Return the keyed hash of everything but the signature itself."""
    signed = {name: value for name, value in manifest.items() if name != _FIELD}
    text = json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()
    return hmac.new(key, text, hashlib.sha256).hexdigest()


def _key(*, create: bool) -> bytes | None:
    """Return this user's key; None where there is none, and none can be made."""
    state = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    path = os.path.join(state, "tracer", "capsule.key")
    try:
        with open(path, "rb") as file:
            key = file.read(_BYTES + 1)
            return key if len(key) == _BYTES and os.fstat(file.fileno()).st_uid == os.getuid() else None
    except FileNotFoundError:
        return _made(path) if create else None
    except OSError:
        return None


def _made(path: str) -> bytes | None:
    """Make a key that no one else can read; of two processes that do, one wins and both use its key."""
    folder = os.path.dirname(path)
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        descriptor, hidden = tempfile.mkstemp(dir=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(secrets.token_bytes(_BYTES))
            with contextlib.suppress(FileExistsError):
                os.link(hidden, path)
        finally:
            os.unlink(hidden)
        with open(path, "rb") as file:
            return file.read(_BYTES)
    except OSError:
        return None


__all__ = ["is_own", "sign"]
