"""A task on a ClearML server, by its public API: create, edit, add events, upload files, end."""

from __future__ import annotations

import base64
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import quote

from tracer import events
from tracer.backends import posting
from tracer.backends.base import Refused, Rejected

#: The oldest version of the API in which all that is asked for exists.
_VERSION = "v2.13"
_TRUE = ("1", "true", "yes", "on")
#: A file is sent from memory.
_LARGEST = 512 * 2**20
_ENDED = {events.COMPLETED: "tasks.completed", events.FAILED: "tasks.failed", events.CRASHED: "tasks.stopped"}


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """How to reach a server; shown nowhere."""

    api: str
    files: str
    web: str
    key: str
    secret: str


def credentials(options: Mapping[str, object]) -> Credentials | str:
    """Return how to reach the server, or in words why there is none to reach.

    What counts is what the client looks at, in its order: variables, then `clearml.conf`. A variable for the host that
    is set and empty means that no server is wanted, as in the README of Tracelet.
    """
    if os.environ.get("CLEARML_OFFLINE_MODE", "").lower() in _TRUE:
        return "CLEARML_OFFLINE_MODE is set"
    asked = str(options.get("api_host") or options.get("url") or "")
    if not asked and os.environ.get("CLEARML_API_HOST") == "":
        return "CLEARML_API_HOST is set to nothing"
    stood = _configured()
    key = os.environ.get("CLEARML_API_ACCESS_KEY") or stood.get("credentials.access_key", "")
    secret = str(options.get("api_key") or "") or os.environ.get("CLEARML_API_SECRET_KEY")
    secret = secret or stood.get("credentials.secret_key", "")
    if not (key and secret):
        return (
            "no credentials were found (set CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY, or run `clearml-init`)"
        )
    api = asked or os.environ.get("CLEARML_API_HOST") or stood.get("api_server") or "https://api.clear.ml"
    files = os.environ.get("CLEARML_FILES_HOST") or stood.get("files_server") or _beside(api, "files", 8081)
    web = os.environ.get("CLEARML_WEB_HOST") or stood.get("web_server") or _beside(api, "app", 8080)
    return Credentials(api.rstrip("/"), files.rstrip("/"), web.rstrip("/"), key, secret)


class Server:
    """One task on one server.

    Args:
        wanted: How to reach it.
        task: Its id there; empty for one that is to be created.
    """

    def __init__(self, wanted: Credentials, task: str) -> None:
        self._wanted, self.task = wanted, task
        self._token, self._project = "", ""

    @property
    def place(self) -> str:
        """Return the page of the task."""
        return f"{_shown(self._wanted.web)}/projects/{self._project or '*'}/experiments/{self.task}/output/log"

    def create(self, fields: dict[str, Any], project: str) -> None:
        """Create the task if it has no id yet, and say that it runs."""
        self._project = self._found_project(project)
        if self.task:
            self.edit(fields, project)
        else:
            made = self._ask("tasks.create", {**fields, "project": self._project})
            self.task = str(made["id"])
        self._ask("tasks.started", {"task": self.task, "force": True})

    def edit(self, fields: dict[str, Any], _project: str) -> None:
        """Set fields of the task."""
        kept = {name: value for name, value in fields.items() if name != "type"}
        self._ask("tasks.edit", {**kept, "task": self.task, "force": True})

    def attach(self, artifact: dict[str, Any]) -> None:
        """List an artifact; one of the same key is replaced."""
        self._ask("tasks.add_or_update_artifacts", {"task": self.task, "artifacts": [artifact], "force": True})

    def send(self, events: Sequence[dict[str, Any]]) -> None:
        """Add events; a scalar of the same step replaces the one before."""
        body = "\n".join(json.dumps(event) for event in events)
        told = self._call("events.add_batch", body.encode(), "application/json-lines", f"{len(events)} events")
        if told.get("errors"):
            message = f"The ClearML server does not take {told['errors']} of {len(events)} events."
            raise Rejected(message)

    def put(self, key: str, data: bytes | str) -> str:
        """Upload bytes or a file and return its address."""
        if isinstance(data, str):
            if os.path.getsize(data) > _LARGEST:
                message = f"{os.path.basename(data)!r} is over {_LARGEST >> 20} MiB and is not sent to ClearML."
                raise Rejected(message)
            with open(data, "rb") as opened:
                data = opened.read()
        mark, named = uuid.uuid5(uuid.NAMESPACE_URL, key).hex, key.replace('"', "_")
        head = f'--{mark}\r\nContent-Disposition: form-data; name="{named}"; filename="{named}"\r\n'
        head += "Content-Type: application/octet-stream\r\n\r\n"
        body = b"".join((head.encode(), data, f"\r\n--{mark}--\r\n".encode()))
        address = posting.Address(f"{self._wanted.files}/", {}, what="CLEARML_FILES_HOST")
        headers = {
            "Authorization": f"Bearer {self._logged_in()}",
            "Content-Type": f"multipart/form-data; boundary={mark}",
        }
        answer = address.send(body, headers, timeout_s=30 + len(body) / 500_000)
        posting.judge(answer, address, f"the file {key!r}")
        return f"{self._wanted.files}/{quote(key)}"

    def sent(self, _most: int) -> Iterator[dict[str, Any]]:
        """Yield nothing: what a server has is not asked back."""
        yield from ()

    def end(self, status: str) -> None:
        """Say how the task ended."""
        more = {} if status == events.COMPLETED else {"status_message": status, "status_reason": status}
        self._ask(_ENDED.get(status, "tasks.stopped"), {"task": self.task, "force": True, **more})

    def _found_project(self, name: str) -> str:
        """Return the id of a project, made where there is none."""
        found = self._ask("projects.get_all", {"name": f"^{re.escape(name)}$", "only_fields": ["id"]}).get("projects")
        if found:
            return str(found[0]["id"])
        return str(self._ask("projects.create", {"name": name, "description": ""})["id"])

    def _ask(self, what: str, told: Mapping[str, object]) -> dict[str, Any]:
        """Call one of the API's functions."""
        return self._call(what, json.dumps(told).encode(), "application/json", what)

    def _call(self, what: str, body: bytes, kind: str, sent: str) -> dict[str, Any]:
        """Send a request; a token that has run out is renewed once."""
        address = posting.Address(f"{self._wanted.api}/{_VERSION}/{what}", {}, what="api_host")
        for _ in range(2):
            headers = {"Authorization": f"Bearer {self._logged_in()}", "Content-Type": kind}
            answer = address.send(body, headers, timeout_s=30)
            if answer.status != 401:  # noqa: PLR2004 (who are you?)
                break
            self._token = ""
        posting.judge(answer, address, sent)
        return _data(answer.body)

    def _logged_in(self) -> str:
        """Return a token."""
        if not self._token:
            address = posting.Address(f"{self._wanted.api}/{_VERSION}/auth.login", {}, what="api_host")
            pair = base64.b64encode(f"{self._wanted.key}:{self._wanted.secret}".encode()).decode()
            answer = address.send(b"{}", {"Authorization": f"Basic {pair}", "Content-Type": "application/json"})
            posting.judge(answer, address, "the login")
            self._token = str(_data(answer.body).get("token", ""))
            if not self._token:
                message = f"{address.shown} is no ClearML API server. Name the one that answers `auth.login`."
                raise Refused(message)
        return self._token


def _shown(url: str) -> str:
    """Return an address without credentials."""
    scheme, parted, rest = url.partition("://")
    return f"{scheme}{parted}{rest.rpartition('@')[2]}"


def _data(body: bytes) -> dict[str, Any]:
    """Return what an answer holds."""
    try:
        told = json.loads(body).get("data")
    except (ValueError, AttributeError):
        return {}
    return told if isinstance(told, dict) else {}


def _configured() -> dict[str, str]:
    """Return what `clearml.conf` says of the server, read by the client's own parser."""
    path = os.path.expanduser(os.environ.get("CLEARML_CONFIG_FILE") or "~/clearml.conf")
    if not os.path.isfile(path):
        return {}
    parser = import_module("clearml.utilities.pyhocon")
    unread = import_module("clearml.utilities.pyhocon.exceptions").ConfigException
    torn = import_module("pyparsing").ParseBaseException
    try:
        told = parser.ConfigFactory.parse_file(path)
    except (OSError, ValueError, unread, torn) as error:
        message = f"{path!r} cannot be read: {type(error).__name__}. Mend it, or run `clearml-init`."
        raise Refused(message) from None
    wanted = ("api_server", "files_server", "web_server", "credentials.access_key", "credentials.secret_key")
    return {name: str(value) for name in wanted if (value := told.get(f"api.{name}", None))}


def _beside(api: str, part: str, port: int) -> str:
    """Return where another part of the same server usually is."""
    if "://api." in api:
        return api.replace("://api.", f"://{part}.", 1)
    return re.sub(r":8008$", f":{port}", api.rstrip("/"))
