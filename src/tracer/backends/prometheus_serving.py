"""A page that Prometheus scrapes: `GET /metrics`, from a thread beside the lane, bounded in requests and in time."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import cast

from tracer import clock
from tracer.backends.posting import TimedReader
from tracer.backends.prometheus_text import CONTENT_TYPE

#: So many requests are answered at once, each within so many seconds; others are closed.
REQUESTS, REQUEST_S = 8, 5.0


class _Page(BaseHTTPRequestHandler):
    """Answers one request and closes."""

    timeout = REQUEST_S
    server_version, sys_version = "tracer", ""

    def setup(self) -> None:
        """Read against one deadline: a client that sends a byte a second must not hold one of the few places."""
        super().setup()
        self.rfile = io.BufferedReader(TimedReader(self.connection, clock.monotonic() + REQUEST_S))

    def do_GET(self) -> None:
        """Give the text at `/metrics`, and the way there at the root."""
        server = cast("_Server", self.server)
        path = self.path.partition("?")[0]
        if path == "/metrics":
            self._answer(200, CONTENT_TYPE, server.page())
        elif path == "/":
            self._answer(200, "text/plain; charset=utf-8", b"Prometheus scrapes /metrics here.\n")
        else:
            self._answer(404, "text/plain; charset=utf-8", b"There is only /metrics.\n")

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: the terminal is the training's."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], page: Callable[[], bytes]) -> None:
        self.page, self._places = page, threading.Semaphore(REQUESTS)
        super().__init__(address, _Page)

    def process_request(self, request: object, client_address: object) -> None:
        """Answer on a thread of its own, if there is a place."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)  # type: ignore[arg-type]
        else:
            self.shutdown_request(request)  # type: ignore[arg-type]

    def process_request_thread(self, request: object, client_address: object) -> None:
        """Answer, then give the place back."""
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self._places.release()

    def handle_error(self, *_: object) -> None:
        """Say nothing of a scraper that went away in the middle."""


class Serving:
    """The page, until it is closed.

    Args:
        host: The address to listen on; only this machine sees 127.0.0.1.
        port: 0 for one that is free.
        page: Gives the text of one scrape.
    """

    def __init__(self, host: str, port: int, page: Callable[[], bytes]) -> None:
        self._server = _Server((host, port), page)
        self.port = int(self._server.server_address[1])
        # A scrape waits at most a tenth of a second for the thread to end.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.1,), name="tracer-prometheus", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Stop listening; a scrape that is under way is answered."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(REQUEST_S)
