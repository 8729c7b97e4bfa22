"""What an address is told, read by the code that a receiver would have."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pytest

from tracer.backends import table
from tracer.backends.base import Backend, Throttled
from tracer.backends.webhook import WebhookBackend
from tracer.testing import check_backend
from tracer.transfer import File, Histogram, LogLine, Media, Part, Points, RunInfo, Span, Text

RUN = RunInfo("r1", "demo", "first", started=5, params={"lr": 0.1, "bad": float("nan")}, tags=("a",))


class Receiver(HTTPServer):
    """Takes what is posted; answers as `answers` says, then with 200."""

    def __init__(self) -> None:
        self.took: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[tuple[int, dict[str, str]]] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        """Where it takes."""
        return f"http://127.0.0.1:{self.server_address[1]}/hook?key=1"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.took.append(({**dict(self.headers.items()), "path": self.path}, body))
        status, headers = self.server.answers.pop(0) if self.server.answers else (200, {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join(5)


def opened(receiver: Receiver, **options: object) -> Backend:
    backend = table.backend("webhook", {"url": receiver.url, **options})
    assert backend.open(RUN, {}) == {"run": "r1"}
    return backend


def told(receiver: Receiver) -> list[dict[str, object]]:
    return [event for _, body in receiver.took for event in json.loads(body)["events"]]


def test_a_run_is_told_from_its_beginning_to_its_end(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"12345")
    backend = opened(receiver)

    backend.write([
        Points("loss", np.array([1, 2**62]), np.array([5, 6]), np.array([0.1, np.nan])),
        Points("loss", np.array([1]), np.array([5]), np.array([-np.inf]), rank=3),
        Text("say", 1, 7, "héllo"),
        LogLine("log", 8, "careful", level="WARNING", fields={"a": np.inf}),
        Media("pic", "image", 1, 9, data=b"png", suffix=".png"),
        Histogram("h", 1, 10, (0.0, 1.0), (3.0,)),
        File("model", "model", "v1", (Part("w", str(tmp_path / "weights"), 5, "ab"),), time=11),
        Span("step", "ab" * 16, "cd" * 8, 1, 2),
    ])  # fmt: skip
    backend.close("failed", 99)

    began, *events, ended = told(receiver)
    assert (began["kind"], began["params"], began["tags"]) == ("run.started", {"lr": 0.1, "bad": "NaN"}, ["a"])
    assert events[0] == {
        "kind": "points", "name": "loss", "rank": 0, "steps": [1, 2**62], "times": [5, 6], "values": [0.1, "NaN"],
    }  # fmt: skip
    assert (events[1]["rank"], events[1]["values"]) == (3, ["-Infinity"])
    assert (events[2]["body"], events[3]["log_kind"], events[3]["fields"]) == ("héllo", "log", {"a": "Infinity"})
    assert (events[4]["media_kind"], events[4]["base64"], events[4]["size"]) == ("image", "cG5n", 3)
    assert events[5]["edges"] == [0.0, 1.0]
    assert events[6]["parts"] == [{"path": "w", "size": 5, "sha256": "ab"}]
    assert str(tmp_path) not in json.dumps(events)
    assert (events[7]["span_kind"], events[7]["trace"]) == ("internal", "ab" * 16)
    assert ended == {"kind": "run.ended", "status": "failed", "ended": 99}
    for headers, body in receiver.took:
        content = json.loads(body)
        assert (headers["Idempotency-Key"], headers["path"]) == (content["batch"], "/hook?key=1")
        assert content["run"] == {"id": "r1", "project": "demo", "name": "first"}


def test_a_batch_that_comes_again_has_the_same_key(receiver: Receiver) -> None:
    backend = opened(receiver)
    batch = [Text("say", 1, 7, "once")]
    receiver.answers = [(503, {"Retry-After": "3"})]

    with pytest.raises(Throttled) as found:
        backend.write(batch)
    backend.write(batch)
    backend.write([Text("say", 2, 7, "once")])

    keys = [headers["Idempotency-Key"] for headers, _ in receiver.took[1:]]
    assert found.value.after_s == 3.0
    assert keys[0] == keys[1] != keys[2]


def test_a_receiver_that_shares_the_secret_can_tell_that_we_sent_it(receiver: Receiver) -> None:
    opened(receiver, secret="sesame", headers={"X-Team": "a"})  # noqa: S106

    headers, body = receiver.took[0]
    signed = headers["X-Tracer-Timestamp"].encode() + b"." + body
    assert headers["X-Tracer-Signature"] == f"sha256={hmac.new(b'sesame', signed, hashlib.sha256).hexdigest()}"
    assert headers["X-Team"] == "a"


def test_without_a_secret_nothing_is_signed_and_a_key_is_a_bearer(receiver: Receiver) -> None:
    opened(receiver, api_key="k")

    assert "X-Tracer-Signature" not in receiver.took[0][0]
    assert receiver.took[0][0]["Authorization"] == "Bearer k"


def test_large_media_are_told_without_their_bytes(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "big.png").write_bytes(b"x" * 11)
    backend = opened(receiver, media_bytes=10)

    backend.write(
        [Media("pic", "image", 1, 9, path=str(tmp_path / "big.png")), Media("gone", "image", 1, 9, path="no")]
    )

    big, gone = told(receiver)[1:]
    assert (big["size"], "base64" in big) == (11, False)
    assert (gone["size"], "base64" in gone) == (0, False)


def test_a_run_that_goes_on_is_resumed_and_one_that_will_has_not_ended(receiver: Receiver) -> None:
    backend = WebhookBackend({"url": receiver.url})
    backend.open(RUN, {"run": "r1"})
    backend.close("running", None)

    assert [event["kind"] for event in told(receiver)] == ["run.resumed"]
    assert backend.url() == receiver.url.partition("/hook")[0]


def test_it_keeps_the_contract(receiver: Receiver) -> None:
    def read(remote: Mapping[str, str]) -> dict[str, list[tuple[int, float]]]:
        found: dict[str, list[tuple[int, float]]] = {}
        batches = {headers["Idempotency-Key"]: json.loads(body) for headers, body in receiver.took}
        for batch in batches.values():
            for event in batch["events"] if batch["run"]["id"] == remote["run"] else []:
                if event["kind"] == "points":
                    points = zip(event["steps"], (float(value) for value in event["values"]), strict=True)
                    found.setdefault(event["name"], []).extend(points)
        return found

    with socket.create_server(("127.0.0.1", 0)) as free:
        dead = f"http://127.0.0.1:{free.getsockname()[1]}"
    check_backend(WebhookBackend, read=read, options={"url": receiver.url}, dead={"url": dead})
