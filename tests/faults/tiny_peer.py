"""A tracker in the smallest form: a server on this machine that can be told to fail, and back ends that write to it."""

from __future__ import annotations

import http.client
import http.server
import json
import os
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from tracer.backends.base import Backend, Limits, Refused, Rejected, RemoteIds, Throttled, Unreachable
from tracer.transfer import FACTS, FILE, KINDS, POINTS, Event, File, Points, RunInfo

#: What a value that no peer would take is called.
POISON = "poison"


class HttpBackend(Backend):
    """Posts each batch as JSON; `address`, `timeout_s`."""

    name: ClassVar[str] = "tiny"
    kinds: ClassVar[frozenset[str]] = frozenset({POINTS, FACTS, FILE})
    limits: ClassVar[Limits] = Limits(batch=500)

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Create the run or go on with it."""
        answer = self._post("open", {"name": run.name, "params": dict(run.params), **remote})
        self._run = str(answer["run"])
        return {"run": self._run}

    def write(self, events: Sequence[Event]) -> None:
        """Post points, one list for each."""
        rows = [row for event in events for row in rows_of(event)]
        self._post("write", {"run": self._run, "rows": rows})

    def close(self, status: str, ended: int | None) -> None:
        """Say how it ended."""
        self._post("close", {"run": self._run, "status": status, "ended": ended})

    def url(self) -> str | None:
        """Where it is."""
        return f"{self.options['address']}/{self._run}"

    def _post(self, path: str, body: Mapping[str, object]) -> dict[str, object]:
        """Ask the server; say in the words of the contract what went wrong."""
        request = urllib.request.Request(  # noqa: S310 (loopback)
            f"{self.options['address']}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=float(str(self.options.get("timeout_s", 30)))) as answer:  # noqa: S310
                found: dict[str, object] = json.loads(answer.read())
                return found
        except urllib.error.HTTPError as error:
            error.close()
            message = f"The server answered {error.code}."
            if error.code == 429:
                raise Throttled(message, float(error.headers.get("Retry-After", 1))) from error
            if error.code == 401:
                raise Refused(message) from error
            if error.code == 400:
                raise Rejected(message) from error
            raise Unreachable(message) from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            message = f"The server does not answer ({type(error).__name__})."
            raise Unreachable(message) from error


class FileBackend(Backend):
    """Appends to `path`; sees what a second process sees."""

    name: ClassVar[str] = "file"
    kinds: ClassVar[frozenset[str]] = frozenset(KINDS)
    limits: ClassVar[Limits] = Limits(batch=200)

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Begin."""
        print(f"a banner with {self.options.get('api_key')}", flush=True)  # noqa: T201 (a client prints)
        self._put(["open", run.uid, remote.get("run"), os.getpid()])
        return {"run": run.uid}

    def write(self, events: Sequence[Event]) -> None:
        """Append a line for each point."""
        self._put(*(["row", *row] for event in events for row in rows_of(event)))

    def close(self, status: str, ended: int | None) -> None:
        """Append the end."""
        self._put(["close", status, ended])

    def _put(self, *lines: Sequence[object]) -> None:
        """Append in one go."""
        with open(str(self.options["path"]), "a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line) + "\n" for line in lines))


class Dying(FileBackend):
    """Ends its process at the first batch of each of its first lives."""

    def write(self, events: Sequence[Event]) -> None:
        """Die, unless it died often enough."""
        lives = Path(str(self.options["path"]) + ".lives")
        count = int(lives.read_text(encoding="utf-8")) if lives.exists() else 0
        if count < int(str(self.options["deaths"])):
            lives.write_text(str(count + 1), encoding="utf-8")
            os._exit(9)
        super().write(events)


def rows_of(event: Event) -> Iterator[list[object]]:
    """Yield name, rank, step, time and value of each point; of other things their kind and name."""
    if isinstance(event, Points):
        for step, time, value in zip(event.steps.tolist(), event.times.tolist(), event.values.tolist(), strict=True):
            yield [event.name, event.rank, step, time, value]
    elif isinstance(event, RunInfo):
        yield ["facts", 0, event.steps, 0, {"params": dict(event.params), "tags": list(event.tags)}]
    elif isinstance(event, File):
        yield ["file", 0, 0, 0, [event.name, event.version, *(part.path for part in event.parts)]]
    else:
        yield [event.KIND, event.rank, 0, 0, getattr(event, "name", None)]


class Peer(http.server.ThreadingHTTPServer):
    """The server: keeps what it is sent, or fails as `mode` says.

    `ok`, `hang` (takes the request and never answers), `500`, `401`, `429`, `slow` (a byte a second), `torn` (ends in
    the middle of the answer, having kept the batch), `flap` (every second request fails), `strict` (400 for POISON).
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, mode: str = "ok", port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.mode, self.requests, self.opened = mode, 0, 0
        self.runs: dict[str, dict[str, list[object]]] = {}
        self.over = threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def values(self, name: str, run: str = "run-1", rank: int = 0) -> list[tuple[int, float]]:
        """Return step and value of each point of a series, as they came."""
        rows = self.runs.get(run, {}).get("rows", [])
        return [(row[2], row[4]) for row in rows if row[0] == name and row[1] == rank]  # type: ignore[index]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: half of the requests are meant to fail."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Peer

    def do_POST(self) -> None:
        """Keep a batch, or fail."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.requests += 1
            number, mode = server.requests, server.mode
        if mode == "hang":
            server.over.wait(60)
            return
        if mode in ("500", "401", "429") or (mode == "flap" and number % 2):
            self._answer({}, int(mode) if mode != "flap" else 500)
            return
        if mode == "strict" and any(POISON in str(row[0]) for row in body.get("rows", ())):
            self._answer({}, 400)
            return
        answer = self._keep(body)
        if mode == "torn" and self.path == "/write":
            server.mode = "ok"
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"ru')
            self.close_connection = True
            return
        self._answer(answer, 200, slowly=mode == "slow")

    def _keep(self, body: dict[str, object]) -> dict[str, object]:
        """Keep what came."""
        server = self.server
        with server.lock:
            if self.path == "/open":
                server.opened += 1
                run = str(body.get("run") or f"run-{len(server.runs) + 1}")
                server.runs.setdefault(run, {"rows": [], "opened": [], "closed": []})["opened"].append(body)
                return {"run": run}
            kept = server.runs[str(body["run"])]
            if self.path == "/write":
                kept["rows"] += body["rows"]  # type: ignore[operator]
            else:
                kept["closed"].append(body["status"])
        return {"ok": True}

    def _answer(self, answer: object, code: int, *, slowly: bool = False) -> None:
        text = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.send_header("Retry-After", "0.05")
        self.end_headers()
        for at in range(len(text)):
            if slowly and self.server.over.wait(1.0):
                return
            self.wfile.write(text[at : at + 1])

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (as the base has it)
        """Say nothing."""


@contextmanager
def serving(mode: str = "ok", port: int = 0) -> Iterator[Peer]:
    """Run a server for a block."""
    peer = Peer(mode, port)
    thread = threading.Thread(target=peer.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        peer.over.set()
        peer.shutdown()
        peer.server_close()
        thread.join(5)


def unused_port() -> int:
    """Return a port on which nobody listens now."""
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        return int(server.server_address[1])
