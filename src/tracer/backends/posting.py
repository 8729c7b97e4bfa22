"""One HTTP request to a peer that we speak to ourselves: bounded in time and size, and its answer as our errors.

`http.client` alone bounds each wait, not the whole: a server that sends a byte a second would hold a lane for hours.
So every byte is read against one deadline. Redirects are not followed: they would carry headers to a stranger.
"""

from __future__ import annotations

import base64
import http.client
import io
import re
import socket
import ssl
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote, unquote, urlsplit

from tracer import clock
from tracer.backends.base import Refused, Rejected, Throttled, Unreachable
from tracer.errors import ConfigError
from tracer.version import __version__

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

#: A whole request may take so long, from the connection to the last byte of the answer.
TIMEOUT_S = 10.0
#: So much of an answer is read; what we need of it stands at its beginning.
ANSWER_BYTES = 65536
#: Longest wait that a peer can ask for, and what a peer that says 429 without a time gets.
LONGEST_WAIT_S, WAIT_S = 600.0, 5.0
#: Answers to a request that is too large, or has something bad among what is good: parts of it may be taken.
PARTED = frozenset({400, 413, 422})
RETRIED = frozenset({429, 502, 503, 504})
#: What stands in an address as it was written; anything else is escaped.
_WRITTEN = "/%:@!$&'()*+,;=~-._?"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class NotTaken(Rejected):
    """The peer answered, and will never take this."""

    def __init__(self, message: str, status: int, lost: int | None = None) -> None:
        super().__init__(message, lost)
        self.status = status


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer said."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def wait_s(self) -> float | None:
        """Return how long the peer asks to wait; a date is counted from now."""
        asked = self.headers.get("retry-after", "").strip()
        if asked.isdigit():
            return min(float(asked[:9]), LONGEST_WAIT_S)
        try:
            until = parsedate_to_datetime(asked).timestamp()
        except (TypeError, ValueError, OverflowError):
            return None
        return min(max(until - clock.now(), 0.0), LONGEST_WAIT_S)


class TimedReader(io.RawIOBase):
    """Reads a socket until a moment, however slowly the bytes come."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._socket, self._deadline = sock, deadline

    def readable(self) -> bool:
        """Tell that it reads."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read what is there, or wait for it as long as there is time."""
        self._socket.settimeout(max(self._deadline - clock.monotonic(), 0.001))
        return self._socket.recv_into(buffer)


class _TimedSocket:
    """What `http.client` uses of a socket, against one deadline."""

    def __init__(self, sock: socket.socket, deadline: float) -> None:
        self._socket, self._deadline = sock, deadline

    def sendall(self, data: bytes) -> None:
        self._socket.settimeout(max(self._deadline - clock.monotonic(), 0.001))
        self._socket.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(TimedReader(self._socket, self._deadline))

    def close(self) -> None:
        """Do nothing: `http.client` closes before it has read the answer, and counts on what real sockets count."""


class Address:
    """Where requests go: checked when it is made, and shown without what could be secret.

    Args:
        url: `http` or `https`; a user and password in it become a header, and are shown nowhere.
        headers: Sent with every request.
        what: The option that holds the address, for messages.
    """

    def __init__(self, url: str, headers: Mapping[str, str], *, what: str) -> None:
        try:
            parts = urlsplit(url)
            port = parts.port
            (parts.hostname or "").encode("idna")
        except ValueError:
            parts, port = urlsplit(""), None
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            message = f"The option `{what}` is no address of a server. Write it as https://host:port/path."
            raise ConfigError(message)
        self.secure, self.host = parts.scheme == "https", parts.hostname
        self.port = port or (443 if self.secure else 80)
        path, query = quote(parts.path or "/", safe=_WRITTEN), quote(parts.query, safe=_WRITTEN)
        self.target = f"{path}?{query}" if query else path
        self.headers = _checked(headers, what)
        if parts.username is not None:
            self.headers["Authorization"] = _basic(parts.username, parts.password)

    @property
    def shown(self) -> str:
        """Scheme, host and port: a path can be a secret, as those of chat services are."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = 443 if self.secure else 80
        return f"{'https' if self.secure else 'http'}://{host}" + ("" if self.port == usual else f":{self.port}")

    def send(
        self, body: bytes, headers: Mapping[str, str], *, method: str = "POST", timeout_s: float = TIMEOUT_S
    ) -> Answer:
        """Send one request and return the answer.

        Raises:
            Unreachable: There was no connection, or no whole answer in time.
            Refused: Its certificate is not one that we trust.
        """
        deadline = clock.monotonic() + timeout_s
        connection, target, more = self._connection(timeout_s)
        raw: socket.socket | None = None
        try:
            connection.connect()
            raw = connection.sock
            connection.sock = _TimedSocket(raw, deadline)
            connection.request(method, target, body, {**_OWN_HEADERS, **self.headers, **more, **headers})
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, told, answer.read(ANSWER_BYTES))
        except ssl.SSLCertVerificationError as error:
            message = f"The certificate of {self.shown} is not trusted: {error.verify_message}."
            raise Refused(message) from None
        except TimeoutError:
            message = f"{self.shown} did not answer within {timeout_s:g} s."
            raise Unreachable(message) from None
        except (OSError, http.client.HTTPException) as error:
            message = f"{self.shown} cannot be reached: {getattr(error, 'strerror', None) or type(error).__name__}."
            raise Unreachable(message) from None
        finally:
            (raw or connection).close()

    def _connection(self, timeout_s: float) -> tuple[http.client.HTTPConnection, str, dict[str, str]]:
        """Return a connection, the target to name and further headers: through a proxy where the system has one."""
        proxy = _proxy("https" if self.secure else "http", self.host)
        if proxy is None:
            made = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
            return made(self.host, self.port, timeout=timeout_s), self.target, {}
        host, port, credentials = proxy
        if self.secure:
            tunnel = http.client.HTTPSConnection(host, port, timeout=timeout_s)
            tunnel.set_tunnel(self.host, self.port, credentials)
            return tunnel, self.target, {}
        return http.client.HTTPConnection(host, port, timeout=timeout_s), f"{self.shown}{self.target}", credentials


def judge(answer: Answer, address: Address, what: str, things: int | None = None) -> None:
    """Say in our errors what an answer means; a good one is passed over.

    Args:
        answer: What the peer said.
        address: Who said it.
        what: What was sent, as `17 data points`.
        things: How many are lost where no part of it would be taken either; None where that is not known.

    Raises:
        Throttled: The peer asks to wait.
        Unreachable: It cannot now, but may later.
        Refused: Credentials, or the peer lives elsewhere.
        NotTaken: It will never take this.
    """
    status = answer.status
    if 200 <= status < 300:  # noqa: PLR2004 (the status codes that mean yes)
        return
    wait_s = answer.wait_s() if status in RETRIED else None
    if wait_s is not None or status == http.HTTPStatus.TOO_MANY_REQUESTS:
        message = f"{address.shown} asks to wait (HTTP {status})."
        raise Throttled(message, WAIT_S if wait_s is None else wait_s)
    if status in RETRIED:
        message = f"{address.shown} cannot take anything now (HTTP {status})."
        raise Unreachable(message)
    _refuse(status, address)
    message = f"{address.shown} does not take {what} (HTTP {status}{_phrase(answer)})."
    raise NotTaken(message, status, None if status in PARTED else things)


def _refuse(status: int, address: Address) -> None:
    if status in {401, 403}:
        message = f"{address.shown} refuses our credentials (HTTP {status}). Check the key or the headers."
        raise Refused(message)
    if 300 <= status < 400:  # noqa: PLR2004 (the status codes that redirect)
        message = f"{address.shown} redirects (HTTP {status}), which is not followed. Name the final address."
        raise Refused(message)


def _phrase(answer: Answer) -> str:
    """Return the beginning of what the peer said, where it is text in one line."""
    text = " ".join(answer.body[:400].decode("utf-8", "replace").split())
    return f": {text[:160]}" if text and text.isprintable() and not text.startswith("<") else ""


def headers_of(value: object, what: str) -> dict[str, str]:
    """Return headers from a mapping, or from text as OpenTelemetry writes it: `name=value,name=value`."""
    if value is None or value == "":
        return {}
    if isinstance(value, Mapping):
        return {str(name): str(told) for name, told in value.items()}
    found: dict[str, str] = {}
    for piece in str(value).split(","):
        name, equals, told = piece.partition("=")
        if piece.strip() and not equals:
            _refuse_headers(what)
        if piece.strip():
            found[unquote(name.strip())] = unquote(told.strip())
    return found


def _checked(headers: Mapping[str, str], what: str) -> dict[str, str]:
    """Return headers that a request can carry; the message names none of their values."""
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or not value.isprintable() or not value.isascii():
            _refuse_headers(what)
    return dict(headers)


def _refuse_headers(what: str) -> NoReturn:
    message = f"The headers beside `{what}` cannot be sent. Write them as name=value,name=value, or as a dictionary."
    raise ConfigError(message)


def _proxy(scheme: str, host: str) -> tuple[str, int, dict[str, str]] | None:
    """Return host, port and credentials of the proxy that this system wants used, if any."""
    if host in {"localhost", "::1"} or host.startswith("127."):
        return None
    named = urllib.request.getproxies().get(scheme)
    if not named or urllib.request.proxy_bypass(host):
        return None
    parts = urlsplit(named if "//" in named else f"//{named}")
    credentials = {} if parts.username is None else {"Proxy-Authorization": _basic(parts.username, parts.password)}
    return parts.hostname or "", parts.port or 80, credentials


def _basic(user: str, password: str | None) -> str:
    told = f"{unquote(user)}:{unquote(password or '')}".encode()
    return f"Basic {base64.b64encode(told).decode('ascii')}"


_OWN_HEADERS = {"User-Agent": f"tracer/{__version__}", "Connection": "close"}
