"""A server with ClearML's public API as far as a task is written to it: it keeps what it is told and answers yes."""

from __future__ import annotations

import base64
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

META = {"id": "1", "trx": "1", "result_code": 200, "result_subcode": 0, "result_msg": "OK", "error_stack": ""}


class FakeServer(ThreadingHTTPServer):
    """Listens on a port of the system's choosing; `calls` holds what came, in order."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.calls: list[tuple[str, Any, str]] = []
        self.files: dict[str, bytes] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        self.answer_with: list[int] = []
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    def events(self) -> list[dict[str, Any]]:
        """Return all events that came."""
        return [event for name, body, _ in self.calls if name == "events.add_batch" for event in body]

    def answered(self, name: str, body: Any) -> dict[str, Any]:  # noqa: ANN401, PLR0911 -- JSON; one answer for each function
        """Return what a function of the API says."""
        if name == "auth.login":
            return {"token": _token()}
        if name == "tasks.create":
            task = f"task{len(self.tasks)}"
            self.tasks[task] = {**body, "id": task, "status": "created"}
            return {"id": task}
        if name in ("tasks.edit", "tasks.update"):
            known = self.tasks.setdefault(body["task"], {"id": body["task"]})
            known |= {key: value for key, value in body.items() if key not in ("task", "force")}
            return {"updated": 1, "fields": {}}
        if name in ("tasks.started", "tasks.completed", "tasks.failed", "tasks.stopped"):
            said = name.partition(".")[2]
            self.tasks[body["task"]]["status"] = "in_progress" if said == "started" else said
            return {"updated": 1, "started": 1, "fields": {}}
        if name == "tasks.get_by_id":
            return {"task": self.tasks[body["task"]]}
        if name in ("tasks.get_all", "tasks.get_all_ex"):
            return {"tasks": [self.tasks[one] for one in body.get("id") or []]}
        if name in ("projects.get_all", "projects.get_all_ex"):
            return {"projects": []}
        if name == "projects.create":
            return {"id": "project0"}
        if name == "events.add_batch":
            return {"added": len(body), "errors": 0, "errors_info": {}}
        return {}


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    protocol_version = "HTTP/1.1"
    server: FakeServer

    def do_GET(self) -> None:
        """Answer as for a POST: the client sends bodies with both."""
        self.do_POST()

    def do_PUT(self) -> None:
        """Answer as for a POST."""
        self.do_POST()

    def do_POST(self) -> None:
        """Keep what came and say yes."""
        body = self._body()
        kind = self.headers.get("Content-Type", "")
        if self.server.answer_with:
            self._say(self.server.answer_with.pop(0), b"{}")
            return
        if kind.startswith("multipart/"):
            head, _, data = body.partition(b"\r\n\r\n")
            name = head.decode().partition('filename="')[2].partition('"')[0]
            self.server.files[name] = data[: data.rfind(b"\r\n--")]
            self._say(200, b"{}")
            return
        name = self.path.partition("?")[0].rpartition("/")[2]
        lines = [json.loads(line) for line in body.splitlines() if line.strip()]
        told = lines if kind.startswith("application/json-lines") else lines[0] if lines else {}
        self.server.calls.append((name, told, self.headers.get("Authorization", "")))
        meta = {**META, "endpoint": {"name": name, "requested_version": "2.13", "actual_version": "2.13"}}
        self._say(200, json.dumps({"meta": meta, "data": self.server.answered(name, told)}).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _body(self) -> bytes:
        """Return what was sent, in one piece or in chunks."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _say(self, status: int, body: bytes) -> None:
        """Send an answer."""
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _token() -> str:
    """Return a token as the client wants one."""
    told = {"exp": int(time.time()) + 86400, "api_version": "2.13", "server_version": "1.9", "env": "x"}
    parts = ({"alg": "HS256", "typ": "JWT"}, told)
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts]
    return ".".join([*texts, base64.urlsafe_b64encode(b"0" * 32).decode().rstrip("=")])
