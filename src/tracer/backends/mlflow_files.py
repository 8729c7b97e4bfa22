"""What becomes an artifact in MLflow: files, pictures, texts, histograms and output.

    <artifact>/<part>                     a file of an artifact; `tracer/artifacts/<artifact>/<version>.json` lists them
    images/<name>+step+…                  a picture, as MLflow's own `log_image` names it
    media/<name>/<step><suffix>           any other medium
    text/<name>/<step>.txt                a text at a step
    histograms/<steps>-<digest>.jsonl     the histograms of one batch
    logs/output-<time>.log                output, in parts

Every name follows from what is sent, so a batch that comes again replaces its own files.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import posixpath
import shutil
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime

from tracer.backends.base import Rejected
from tracer.backends.mlflow_client import Connection
from tracer.backends.names import NameMap, ranked
from tracer.transfer import File, Histogram, LogLine, Media, Text

#: One part of the output is sent again with every batch until it is so long.
_LONGEST_PART = 256 << 10
_THUMBNAIL = 256
_PLACES = ("images", "media", "text", "histograms", "logs", "tracer")


class Artifacts:
    """The artifacts of one run; to be used inside `connection.calls()`."""

    def __init__(self, connection: Connection, run_id: str) -> None:
        self._client, self._run = connection.client, run_id
        # Servers get a path as part of an address that MLflow's client does not quote: no `%`, `#` or `?`.
        self.names = NameMap(r"[\w\-. +=,@()/]", 200, r"(?s)(?:.*/)?\.{1,2}(?:/.*)?|/.*|.*/|.*//.*")
        self._part = _Part()
        self._has_images = False

    def put(self, path: str, data: bytes | None = None, local: str | None = None) -> None:
        """Keep bytes, or a file, under a path."""
        folder, name = posixpath.split(path)
        with tempfile.TemporaryDirectory(prefix="tracer-mlflow-") as aside:
            named = os.path.join(aside, name)
            if data is not None:
                with open(named, "wb") as file:
                    file.write(data)
            elif local is not None:
                _place(local, named)
            self._client.log_artifact(self._run, named, folder or None)

    def file(self, sent: File) -> None:
        """Keep the files of an artifact, and the list of them."""
        folder = self._folder(sent.name)
        for part in sent.parts:
            self.put(f"{folder}/{self._inside(part.path)}", local=part.local)
        held = {
            "name": sent.name, "type": sent.type, "version": sent.version, "time": sent.time, "step": sent.step,
            "aliases": list(sent.aliases), "metadata": dict(sent.metadata), "folder": folder,
            "parts": [
                {"path": part.path, "sent": self._inside(part.path), "size": part.size, "digest": part.digest}
                for part in sent.parts
            ],
        }  # fmt: skip
        text = json.dumps(held, ensure_ascii=False, indent=1, default=str)
        version = self.names.sent(sent.version or "0").replace("/", "_")
        self.put(f"tracer/artifacts/{folder}/{version}.json", text.encode("utf-8", "replace"))

    def media(self, sent: Media) -> None:
        """Keep a picture where MLflow shows pictures, and anything else as a file."""
        data = _bytes(sent)
        name = self.names.sent(ranked(sent.name, sent.rank))
        picture = _picture(data) if sent.kind == "image" else None
        if picture is None:
            suffix = sent.suffix or (os.path.splitext(sent.path)[1] if sent.path else "") or ".json"
            self.put(f"media/{name}/{sent.step}{self.names.sent(suffix)}", data)
        else:
            key = hashlib.sha256(f"{sent.name}\0{sent.step}\0{sent.time}\0{sent.rank}".encode()).hexdigest()
            uid = f"{key[:8]}-{key[8:12]}-{key[12:16]}-{key[16:20]}-{key[20:32]}"
            stem = f"images/{name.replace('/', '~')}+step+{sent.step}+timestamp+{sent.time // 1000}+{uid}"
            self.put(f"{stem}.png", picture[0])
            self.put(f"{stem}+compressed.webp", picture[1])
            if not self._has_images:
                self._client.set_tag(self._run, "mlflow.loggedImages", "True")
                self._has_images = True
        if sent.caption:
            self.put(f"media/{name}/{sent.step}.caption.txt", sent.caption.encode("utf-8", "replace"))

    def text(self, sent: Text) -> None:
        """Keep a text at a step."""
        name = self.names.sent(ranked(sent.name, sent.rank))
        self.put(f"text/{name}/{sent.step}.txt", sent.body.encode("utf-8", "replace"))

    def histograms(self, sent: Sequence[Histogram]) -> None:
        """Keep the histograms of a batch in one file."""
        lines = [
            json.dumps(
                {"name": one.name, "step": one.step, "time": one.time, "rank": one.rank,
                 "edges": list(one.edges), "counts": list(one.counts)},
                ensure_ascii=False,
            )
            for one in sent
        ]  # fmt: skip
        data = ("\n".join(lines) + "\n").encode("utf-8", "replace")
        steps = f"{min(one.step for one in sent)}-{max(one.step for one in sent)}"
        self.put(f"histograms/{steps}-{hashlib.sha256(data).hexdigest()[:12]}.jsonl", data)

    def output(self, sent: Sequence[LogLine]) -> None:
        """Keep output: the last part again with what is new, until it is long enough."""
        text = "".join(_line(one) for one in sent)
        if not text or text == self._part.last:
            return  # the batch came again
        if not self._part.name or len(self._part.text) > _LONGEST_PART:
            self._part = _Part(f"logs/output-{_moment(sent[0].time)}.log")
        self.put(self._part.name, (self._part.text + text).encode("utf-8", "replace"))
        self._part.text, self._part.last = self._part.text + text, text

    def _folder(self, name: str) -> str:
        """Return where the files of an artifact stand; never among what the back end writes itself."""
        folder = self._inside(name)
        return f"_{folder}" if folder.partition("/")[0] in _PLACES else folder

    def _inside(self, path: str) -> str:
        """Return a path as MLflow takes it.

        Raises:
            Rejected: It would leave its folder.
        """
        if path.startswith(("/", "\\")) or ".." in path.replace("\\", "/").split("/"):
            message = f"The path {path!r} of an artifact leaves its folder; it is not sent."
            raise Rejected(message)
        return self.names.sent(path)


class _Part:
    """The part of the output that is being filled."""

    def __init__(self, name: str = "") -> None:
        self.name, self.text, self.last = name, "", ""


def _place(source: str, named: str) -> None:
    """Give a file another name without reading it, where the system can."""
    try:
        os.symlink(os.path.abspath(source), named)
    except OSError:
        shutil.copyfile(source, named)


def _bytes(sent: Media) -> bytes:
    """Return what a medium holds; small data become JSON."""
    if sent.data is not None:
        return sent.data
    if sent.path is not None:
        with open(sent.path, "rb") as file:
            return file.read()
    return json.dumps(dict(sent.fields), ensure_ascii=False, default=str).encode("utf-8", "replace")


def _picture(data: bytes) -> tuple[bytes, bytes] | None:
    """Return a picture as PNG and as the small one that MLflow's page shows; None where Pillow cannot."""
    try:
        import PIL.Image
    except ImportError:
        return None
    try:
        with PIL.Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")) as opened:
            large, small = io.BytesIO(), io.BytesIO()
            if opened.format == "PNG":
                large.write(data)
            else:
                opened.save(large, "PNG")
            shown = opened.convert("RGBA")
            shown.thumbnail((_THUMBNAIL, _THUMBNAIL))
            shown.save(small, "WEBP")
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError):
        return None
    return large.getvalue(), small.getvalue()


def _line(line: LogLine) -> str:
    """Return a line of output as the file holds it."""
    when = datetime.fromtimestamp(line.time / 1e6, UTC).isoformat(timespec="milliseconds")
    said = [when, f"[rank {line.rank}]" if line.rank else "", line.level or "", line.name or "", line.body or ""]
    if line.fields:
        said.append(json.dumps(dict(line.fields), ensure_ascii=False, default=str))
    return " ".join(part for part in said if part).rstrip("\n") + "\n"


def _moment(time: int) -> str:
    """Return a time as part of a file name."""
    return datetime.fromtimestamp(time / 1e6, UTC).strftime("%Y%m%dT%H%M%S.%f")
