"""Servers as they are on a bad day: each answer, and each silence, becomes the error that says what comes next."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tracer.backends import posting
from tracer.backends.base import BackendError, Refused, Rejected, Throttled, Unreachable
from tracer.backends.posting import Address
from tracer.errors import ConfigError

Serve = Callable[[socket.socket, threading.Event], None]


@contextmanager
def server(serve: Serve) -> Iterator[int]:
    """Run a server that treats each connection as told; yield its port."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while not over.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    try:
                        serve(connection, over)
                    except OSError:  # the client has given up, as it should
                        continue

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)
    assert not thread.is_alive()


def whole(connection: socket.socket) -> bytes:
    """Read a request to its end: a server that closes before it has, resets the connection."""
    connection.settimeout(5)
    asked = b""
    while b"BODY" not in asked and (piece := connection.recv(65536)):
        asked += piece
    return asked


def saying(text: str) -> Serve:
    """Return a server that reads what is sent and says this."""

    def serve(connection: socket.socket, _: threading.Event) -> None:
        whole(connection)
        connection.sendall(text.encode())

    return serve


def outcome(port: int, timeout_s: float = 5.0) -> BackendError | None:
    """Send one request and return the error that it ended with."""
    address = Address(f"http://user:hunter2@127.0.0.1:{port}/services/T0/secret-path", {"X-Key": "k3y"}, what="url")
    try:
        answer = address.send(b"BODY", {}, timeout_s=timeout_s)
        posting.judge(answer, address, "7 events")
    except BackendError as error:
        found = error
    else:
        return None
    assert not [secret for secret in ("hunter2", "secret-path", "k3y") if secret in str(found)]
    return found


def test_a_good_answer_is_no_error() -> None:
    with server(saying("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")) as port:
        assert outcome(port) is None


@pytest.mark.parametrize(
    ("answer", "error", "after_s"),
    [
        ("429 Too Many\r\nRetry-After: 17", Throttled, 17.0),
        ("429 Too Many", Throttled, 5.0),
        ("503 Busy\r\nRetry-After: 99999999", Throttled, 600.0),
        ("503 Busy\r\nRetry-After: Thu, 01 Jan 1970 00:00:00 GMT", Throttled, 0.0),
        ("503 Busy\r\nRetry-After: soon", Unreachable, None),
        ("502 Bad Gateway", Unreachable, None),
        ("504 Late", Unreachable, None),
        ("400 Bad", Rejected, None),
        ("404 Nowhere", Rejected, None),
        ("413 Too Large", Rejected, None),
        ("500 Broken", Rejected, None),
        ("401 Who", Refused, None),
        ("403 Not You", Refused, None),
        ("302 Found\r\nLocation: http://127.0.0.1:1/", Refused, None),
    ],
)
def test_an_answer_says_what_comes_next(answer: str, error: type[BackendError], after_s: float | None) -> None:
    with server(saying(f"HTTP/1.1 {answer}\r\nContent-Length: 0\r\n\r\n")) as port:
        found = outcome(port)

    assert type(found) is error or isinstance(found, error)
    assert getattr(found, "after_s", None) == after_s


def test_the_beginning_of_the_answer_is_told() -> None:
    with server(saying("HTTP/1.1 400 Bad\r\nContent-Length: 15\r\n\r\nno field 'loss'")) as port:
        found = outcome(port)
    assert str(found) == f"http://127.0.0.1:{port} does not take 7 events (HTTP 400: no field 'loss')."


def test_a_server_that_says_nothing_is_given_up() -> None:
    with server(lambda _, over: over.wait(20) and None) as port:
        assert isinstance(outcome(port, 0.2), Unreachable)


def test_a_server_that_says_a_byte_now_and_then_is_given_up() -> None:
    def drip(connection: socket.socket, over: threading.Event) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 4000:
            if over.wait(0.02):
                return
            connection.sendall(bytes((byte,)))

    with server(drip) as port:
        began = time.monotonic()
        assert isinstance(outcome(port, 0.4), Unreachable)
        assert time.monotonic() - began < 10


def test_a_connection_that_is_reset_is_unreachable() -> None:
    def reset(connection: socket.socket, _: threading.Event) -> None:
        connection.recv(10)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with server(reset) as port:
        assert isinstance(outcome(port), Unreachable)


@pytest.mark.parametrize("said", ["SSH-2.0-OpenSSH\r\n", "HTTP/1.1 200 OK\r\n" + "X: y\r\n" * 500, ""])
def test_nonsense_is_unreachable(said: str) -> None:
    with server(saying(said)) as port:
        assert isinstance(outcome(port), Unreachable)


def test_an_answer_without_end_is_read_as_far_as_is_of_use() -> None:
    def endless(connection: socket.socket, over: threading.Event) -> None:
        whole(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while not over.is_set():
            connection.sendall(b"a" * 65536)

    with server(endless) as port:
        assert outcome(port) is None


def test_a_name_that_nobody_knows_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Unreachable, match=r"collector\.invalid cannot be reached: Name or service not known"):
        Address("http://collector.invalid/", {}, what="url").send(b"BODY", {})


@pytest.mark.parametrize(
    ("url", "target"),
    [("http://h/a b/ü?q=1 2", "/a%20b/%C3%BC?q=1%202"), ("http://h?q", "/?q"), ("http://h/%2F", "/%2F")],
)
def test_an_address_is_escaped_where_it_must_be(url: str, target: str) -> None:
    assert Address(url, {}, what="url").target == target


def test_nobody_there_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert str(outcome(port)) == f"http://127.0.0.1:{port} cannot be reached: Connection refused."


@pytest.mark.parametrize(
    "url", ["", "loss", "ftp://host/", "http://", "http://host:port/", "http://[::1/", "http://a..b/"]
)
def test_a_wrong_address_is_said_at_once(url: str) -> None:
    with pytest.raises(ConfigError, match="no address of a server"):
        Address(url, {}, what="url")


@pytest.mark.parametrize("headers", [{"a b": "c"}, {"a": "b\r\nc: d"}, {"": "x"}, {"a": "ü"}])
def test_a_header_that_cannot_be_sent_is_said_without_its_value(headers: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as found:
        Address("http://host", headers, what="url")
    assert "c: d" not in str(found.value)


def test_headers_are_read_as_opentelemetry_writes_them() -> None:
    assert posting.headers_of("authorization=Basic%20abc, x-scope = a,", "headers") == {
        "authorization": "Basic abc",
        "x-scope": "a",
    }


def test_a_proxy_of_the_system_is_used_but_not_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def proxy(connection: socket.socket, _: threading.Event) -> None:
        asked.append(whole(connection))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with server(proxy) as port:
        monkeypatch.setenv("http_proxy", f"http://me:pass@127.0.0.1:{port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        Address("http://collector.example/hook", {}, what="url").send(b"BODY", {})

    assert asked[0].startswith(b"POST http://collector.example/hook HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic bWU6cGFzcw==" in asked[0]
