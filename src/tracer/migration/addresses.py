"""Where runs stand: `mlflow:sqlite:///ml.db`, `tensorboard:runs`, or a bare path that is looked at.

A user name, a password or a key in an address is used and never shown or kept.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tracer.backends.base import Backend, Source
from tracer.backends.table import ENTRIES, backend, entry, merged, source
from tracer.errors import ConfigError
from tracer.migration.recognition import recognised

_USER = re.compile(r"(?<=://)[^/@\s]+@")
_SECRET_FIELD = re.compile(r"(?i)([?&;](?:[\w-]*(?:key|token|secret|password|passwd|signature))=)[^&;#\s]*")
_SECRET_NAME = re.compile(r"(?i)key|token|secret|passw|credential|headers|auth")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)([^/?].*)")
_PREFIX = re.compile(r"([A-Za-z][A-Za-z0-9_-]+):(?!//)(.*)", re.DOTALL)
#: Where a path is meant by another option than a server's address; `mode` is then `offline`.
_PATH_OPTIONS = {"aim": "repo_path", "wandb": "dir", "clearml": "dir"}
_OFFLINE_BY_MODE = frozenset({"wandb"})


@dataclass(frozen=True, slots=True)
class Address:
    """One place in one peer.

    Args:
        name: The peer, as `tracer.backends.table` calls it.
        uri: Where there; empty for the peer's own default.
        guessed: Whether the peer was recognised by what stands there.
        options: More, by name; never shown.
    """

    name: str
    uri: str = ""
    guessed: bool = False
    options: Mapping[str, object] = field(default_factory=dict, repr=False)

    @property
    def shown(self) -> str:
        """Return the address as people may see it."""
        return f"{self.name}:{without_secrets(self.uri)}" if self.uri else self.name

    @property
    def digest(self) -> str:
        """Return what names the same place again: the address without secrets, paths made whole."""
        options = sorted((key, str(value)) for key, value in self.options.items() if not _SECRET_NAME.search(key))
        told = repr((self.name, without_secrets(_whole(self.uri)), options))
        return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def source(self) -> Source:
        """Return what reads runs there.

        Raises:
            ConfigError: Nothing can be read from this peer.
        """
        return source(self.name, self.uri, self.options)

    def backend(self) -> Backend:
        """Return what writes one run there.

        Raises:
            ConfigError: Nothing can be written to this peer.
            MissingDependency: Its client is not installed.
        """
        return backend(self.name, self.backend_options() if entry(self.name).backend else {})

    def backend_options(self) -> dict[str, object]:
        """Return what the back end is told: the options, and the address by the option that means it."""
        told = dict(self.options)
        if self.uri and self.name in _PATH_OPTIONS and not _URL.match(self.uri):
            told = {_PATH_OPTIONS[self.name]: self.uri, **told}
            if self.name in _OFFLINE_BY_MODE:
                told.setdefault("mode", "offline")
            return merged(self.name, told)
        return merged(self.name, told, url=self.uri or None)

    def can_be_read(self) -> bool:
        """Tell whether there is a reader for this peer."""
        return bool(entry(self.name).source)


def address(text: str, options: Mapping[str, object] | None = None, *, writing: bool = False) -> Address:
    """Return the place that a text names.

    Args:
        text: `NAME`, `NAME:URI`, or a path.
        options: More, by name.
        writing: Whether runs go there; a path alone is then recognised by its ending only.

    Raises:
        ConfigError: The peer is not known, or nothing at the path is.

    Example:
        >>> address("mlflow:http://me:secret@server/")
        Address(name='mlflow', uri='http://me:secret@server/', guessed=False)
        >>> address("mlflow:http://me:secret@server/").shown
        'mlflow:http://server/'
    """
    chosen = dict(options or {})
    if text in ENTRIES:
        return Address(text, "", options=chosen)
    found = _PREFIX.fullmatch(text)
    if found is not None and found[1] in ENTRIES:
        return Address(found[1], found[2], options=chosen)
    if os.path.lexists(text) or writing:
        name, uri = recognised(text, writing=writing)
        return Address(name, uri, guessed=True, options=chosen)
    readable = ", ".join(name for name, known in ENTRIES.items() if known.source)
    if _URL.match(text):
        message = f"{without_secrets(text)!r} does not say what stands there. Write it as `mlflow:{_URL_HINT}`."
        raise ConfigError(message)
    message = f"{text!r} is neither a path that exists nor a tracker. Known: {readable}; write NAME or NAME:URI."
    raise ConfigError(message)


def without_secrets(uri: str) -> str:
    """Return an address without user, password, and fields that are keys.

    Example:
        >>> without_secrets("https://me:pw@host/x?api_key=abc&page=2")
        'https://host/x?api_key=…&page=2'
    """
    return _SECRET_FIELD.sub(r"\1…", _USER.sub("", uri))


def is_secret(option: str) -> bool:
    """Tell whether an option's value must not be shown."""
    return bool(_SECRET_NAME.search(option))


def _whole(uri: str) -> str:
    """Return an address with a path of this machine made absolute, so that it means one place from any folder."""
    if not uri:
        return ""
    found = _SQLITE.fullmatch(uri)
    if found is not None:
        return f"{found[1]}{os.path.abspath(found[2])}"
    return uri if _URL.match(uri) else os.path.abspath(os.path.expanduser(uri))


_URL_HINT = "http://…"

__all__ = ["Address", "address", "is_secret", "without_secrets"]
