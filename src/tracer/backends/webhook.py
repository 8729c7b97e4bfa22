"""A run to any address that takes a POST: one JSON object for a batch, signed and with a key that repeats with it.

{"schema": "tracer.webhook/1", "batch": "<64 hexadecimal digits>",
 "run": {"id": …, "project": …, "name": …}, "events": [{"kind": "points", …}, …]}
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import ClassVar

from tracer import clock, transfer
from tracer.backends import posting
from tracer.backends.base import Backend, Limits, RemoteIds
from tracer.backends.posting import Address, headers_of
from tracer.backends.webhook_events import facts, told
from tracer.errors import ConfigError
from tracer.events import RUNNING
from tracer.transfer import Event, Points, RunInfo

SCHEMA = "tracer.webhook/1"


class WebhookBackend(Backend):
    """One run, told to one address.

    Options: `url`; `headers`; `secret`, with which every request is signed; `media_bytes`, up to which size the bytes
    of media travel in the event (256 KiB); `timeout_s`.
    """

    name: ClassVar[str] = "webhook"
    kinds: ClassVar[frozenset[str]] = frozenset(transfer.KINDS)
    limits: ClassVar[Limits] = Limits(
        batch=1000,
        # The key is the same when the batch is: a receiver that remembers keys takes it once.
        repeatable=True,
        losses={
            "NaN and ±Inf": 'the words "NaN", "Infinity" and "-Infinity", for which JSON has no numbers',
            "the bytes of artifacts": "not sent: name, version, paths, sizes and SHA-256 are",
            "the bytes of media beyond 256 KiB": "not sent: name, step, size and caption are; `media_bytes` moves it",
        },
    )

    def __init__(self, options: Mapping[str, object]) -> None:
        super().__init__(options)
        headers = headers_of(options.get("headers"), "headers")
        if options.get("api_key"):
            headers.setdefault("Authorization", f"Bearer {options['api_key']}")
        if not options.get("url"):
            message = (
                "A webhook needs its address, which is kept nowhere since it may be a secret. Give it as the option "
                "`url`; `tracer sync RUN --to webhook --option url=https://…` sends what is owed."
            )
            raise ConfigError(message)
        self._address = Address(str(options.get("url")), headers, what="url")
        secret = options.get("secret")
        self._secret = str(secret).encode() if secret else b""
        self._media_bytes = int(str(options.get("media_bytes", 262144)))
        self._timeout_s = float(str(options.get("timeout_s") or posting.TIMEOUT_S))
        self._run: dict[str, object] = {}

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Tell that the run began or goes on."""
        self._run = {"id": run.uid, "project": run.project, "name": run.name}
        self._post([{**facts(run), "kind": "run.resumed" if remote else "run.started"}], "the beginning of the run", 0)
        return {"run": run.uid}

    def write(self, events: Sequence[Event]) -> None:
        """Tell a batch."""
        if events:
            points = sum(len(event) for event in events if isinstance(event, Points))
            others = sum(not isinstance(event, (Points, RunInfo)) for event in events)
            what = f"{points} points and {others} other events"
            self._post([told(event, self._media_bytes) for event in events], what, points + others)

    def close(self, status: str, ended: int | None) -> None:
        """Tell how the run ended; one that will be resumed has not."""
        if status != RUNNING:
            self._post([{"kind": "run.ended", "status": status, "ended": ended}], "the end of the run", 0)

    def url(self) -> str | None:
        """Return where it is told; only the server, for the path can be a secret."""
        return self._address.shown

    def _post(self, events: Sequence[Mapping[str, object]], what: str, things: int) -> None:
        """Send one object, with its digest as its key."""
        content: dict[str, object] = {"run": self._run, "events": events}
        batch = hashlib.sha256(_bytes(content)).hexdigest()
        body = _bytes({"schema": SCHEMA, "batch": batch, **content})
        headers = {"Content-Type": "application/json", "Idempotency-Key": batch}
        if self._secret:
            headers |= signature(self._secret, str(int(clock.now())), body)
        answer = self._address.send(body, headers, timeout_s=self._timeout_s)
        posting.judge(answer, self._address, what, things)


def signature(secret: bytes, moment: str, body: bytes) -> dict[str, str]:
    """Return the two headers by which a receiver knows that we sent this, and when.

    Example:
        >>> signature(b"secret", "0", b"{}")["X-Tracer-Signature"][:16]
        'sha256=4bbe8d39d'
    """
    made = hmac.new(secret, moment.encode("ascii") + b"." + body, hashlib.sha256).hexdigest()
    return {"X-Tracer-Timestamp": moment, "X-Tracer-Signature": f"sha256={made}"}


def _bytes(content: Mapping[str, object]) -> bytes:
    # What cannot be JSON was made so where the events were told; a NaN left over would be a bug, and is said.
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii")
