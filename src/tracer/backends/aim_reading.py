"""Read the runs of an Aim repository: from what each run wrote itself, so that no index is needed and none is made."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from tracer.backends import aim_objects
from tracer.backends.aim_opening import info, opened, tree
from tracer.backends.base import Refused, Source, Unreachable
from tracer.backends.names import unescaped
from tracer.plugins import missing
from tracer.transfer import Event, File, LogLine, Media, Part, Points, RunInfo, Text, sha256

_CHUNK = 100_000
#: What is read, as Aim calls it.
_KINDS = ("metric", "texts", "logs", "log_records", "images", "audios", "distributions")


class AimSource(Source):
    """The runs of an Aim repository.

    Args:
        uri: The folder in which `.aim` lies, or `.aim` itself; an empty one is the working folder.
        options: None.
    """

    name: ClassVar[str] = "aim"

    def __init__(self, uri: str, options: Mapping[str, object] | None = None) -> None:
        super().__init__(uri, options)
        where = os.path.abspath(uri or ".")
        self._folder = os.path.dirname(where) if os.path.basename(where) == ".aim" else where

    def runs(self) -> Iterator[RunInfo]:
        """Yield the runs, the oldest first."""
        repo = self._repository()
        found = []
        for run_hash in sorted(repo.list_all_runs()):
            with self._skipping(f"Run {run_hash}"):
                found.append(info(opened(repo, run_hash)))
        yield from sorted(found, key=lambda one: (one.started, one.origin))

    def events(self, run: RunInfo) -> Iterator[Event]:
        """Yield what a run holds: points, texts, lines, media, histograms, artifacts."""
        repo = self._repository()
        found = opened(repo, run.origin.partition(":")[2])
        self._names = tree(found, "tracer").get("names") or {}
        self._ours = bool(tree(found, "tracer"))
        for kind, name, context in self._listed(found):
            with self._skipping(f"{name!r} of run {found.hash}"):
                yield from self._sequence(found, kind, name, context)
        yield from self._files(found)

    def _repository(self) -> Any:  # noqa: ANN401 -- Aim's
        """Return the repository, if this version of Aim reads it as it is."""
        try:
            repo = import_module("aim.sdk.repo")
        except ModuleNotFoundError as error:
            if error.name != "aim":
                raise
            extra = "aim"
            raise missing(extra, extra=extra, purpose="Reading Aim") from None
        status = repo.Repo.check_repo_status(self._folder)
        if status == repo.RepoStatus.MISSING:
            message = f"{self._folder!r} holds no Aim repository. Name the folder in which `.aim` lies."
            raise Refused(message)
        if status != repo.RepoStatus.UPDATED:
            message = (
                f"The Aim repository in {self._folder!r} is of an older version, and nothing is changed where runs are "
                "read. Run `aim storage upgrade` on a copy of it."
            )
            raise Refused(message)
        try:
            return repo.Repo.from_path(self._folder)
        except (OSError, RuntimeError) as error:
            message = f"The Aim repository in {self._folder!r} could not be opened: {error}."
            raise Unreachable(message) from error

    def _listed(self, run: Any) -> Iterator[tuple[str, str, dict[str, object]]]:  # noqa: ANN401
        """Yield kind, name and context of the series of a run, kind after kind.

        `collect_sequence_info` does this for all kinds but lines, whose one type it takes apart letter by letter.
        """
        import_module("aim.ext.resource.log")  # registers the lines of output
        registry = import_module("aim.sdk.sequence").Sequence.registry
        traces = run.meta_run_tree.subtree("traces")
        keys = list(traces.keys())
        listed = [(run.idx_to_ctx(key).to_dict(), name, one) for key in keys for name, one in traces[key].items()]
        taken = {id(one): False for _, _, one in listed}
        for kind in _KINDS:
            types = registry[kind].allowed_dtypes()
            for context, name, one in listed:
                if one.get("dtype", "float") in ([types] if isinstance(types, str) else types):
                    taken[id(one)] = True
                    yield kind, name, context
        for _, name, one in listed:
            if not taken[id(one)]:
                self.notes.append(f"{name!r} of run {run.hash} holds {one.get('dtype')!r}, which is not read.")

    def _sequence(self, run: Any, kind: str, sent: str, context: dict[str, object]) -> Iterator[Event]:  # noqa: ANN401
        """Yield one series."""
        wanted = import_module("aim.storage.context").Context(context)
        found = run._get_sequence(kind, sent, wanted)  # noqa: SLF001
        if found is None:
            return
        name, rank, negative = self._place(sent, context, kind)
        if kind == "metric":
            yield from _points(found, name, rank)
            return
        for at, (value, _, seconds) in found.data.items():
            step, time = (int(at) if negative is None else negative), round(seconds * 1e6)
            for one in value if isinstance(value, (list, tuple)) else [value]:
                with self._skipping(f"{sent!r} at step {step} of run {run.hash}"):
                    yield _object(kind, one, Text(name, step, time, "", rank))

    def _place(self, sent: str, context: dict[str, object], kind: str) -> tuple[str, int, int | None]:
        """Return the name, the rank and the negative step that a name and its context mean."""
        left = dict(context)
        rank, negative = left.pop("rank", 0), left.pop("step", None) if kind != "metric" and self._ours else None
        if self._ours:
            left.pop("kind", None)
            left.pop("item", None)
        if not isinstance(rank, int) or not 0 <= rank < 2**31:
            left["rank"], rank = rank, 0
        name = str(self._names.get(sent) or (unescaped(sent) if self._ours else sent))
        if left and kind not in ("logs", "log_records"):
            name = "/".join([name, *(f"{key}={value}" for key, value in sorted(left.items()))])
            self.notes.append(f"{sent!r} with the context {left!r} is named {name!r}.")
        return name, rank, negative if isinstance(negative, int) else None

    def _files(self, run: Any) -> Iterator[Event]:  # noqa: ANN401
        """Yield artifacts: files under the repository's own folder of artifacts, and what was media once more."""
        grouped: dict[tuple[str, str], tuple[dict[str, Any], list[Part]]] = {}
        for name, artifact in sorted(run.artifacts.items()):
            with self._skipping(f"The artifact {name!r} of run {run.hash}"):
                local = self._local(str(artifact.uri), str(artifact.name))
                if local is None:
                    continue
                more = _more(artifact)
                if "media" in more:
                    yield _media(more, local)
                    continue
                size = os.path.getsize(local)
                told = str(more.get("digest", "")) or sha256(local)
                part = Part(str(more.get("part", name)), local, size, told)
                of = (str(more.get("artifact", name)), str(more.get("version", "v0")))
                grouped.setdefault(of, (more, []))[1].append(part)
        for (name, version), (more, parts) in grouped.items():
            step = more.get("step")
            yield File(
                name, str(more.get("type", "file")), version, tuple(parts), int(more.get("time") or 0),
                step if isinstance(step, int) else None, tuple(more.get("aliases") or ()), more.get("metadata") or {},
            )  # fmt: skip

    def _local(self, uri: str, name: str) -> str | None:
        """Return the file an artifact names, if it is one of this machine that lies where the repository keeps them."""
        if not uri.startswith("file://"):
            self.notes.append(f"The artifact {name!r} lies at {uri.partition('?')[0]!r} and is not fetched.")
            return None
        root = os.path.realpath(os.path.join(self._folder, ".aim", "artifacts"))
        told = uri.removeprefix("file://")
        # A repository that was moved still names its old place.
        tail = told.rpartition("/.aim/artifacts/")[2]
        for tried in (told, os.path.join(root, tail)):
            path = os.path.realpath(tried)
            if os.path.isfile(path) and os.path.commonpath([root, path]) == root:
                return path
        self.notes.append(f"The artifact {name!r} lies outside {root!r} or is gone; it is not read.")
        return None

    @contextmanager
    def _skipping(self, what: str) -> Iterator[None]:
        """Leave out what cannot be read, with a note."""
        rocks = import_module("aimrocks.errors")
        unread = (rocks.RocksIOError, rocks.Corruption, import_module("aim.sdk.errors").RepoIntegrityError)
        try:
            yield
        except (*unread, OSError, KeyError, ValueError, TypeError, AttributeError, IndexError, SystemError) as error:
            # SystemError: Aim cannot read objects at a negative step.
            self.notes.append(f"{what} could not be read and is left out: {error or type(error).__name__}.")


def _points(found: Any, name: str, rank: int) -> Iterator[Points]:  # noqa: ANN401
    """Yield a series of numbers as arrays."""
    steps, (values, _, seconds) = found.data.numpy()
    times = np.nan_to_num(np.round(np.asarray(seconds, np.float64) * 1e6)).astype(np.int64)
    for start in range(0, len(steps), _CHUNK):
        cut = slice(start, start + _CHUNK)
        yield Points(
            name, np.asarray(steps[cut], np.int64), times[cut], np.asarray(values[cut], np.float64), rank
        )  # fmt: skip


def _object(kind: str, value: Any, where: Text) -> Text | LogLine | Media | Event:  # noqa: ANN401
    """Return one of Aim's objects as it travels."""
    if kind == "texts":
        return Text(where.name, where.step, where.time, str(value.data), where.rank)
    if kind in ("logs", "log_records"):
        return aim_objects.read_line(value, where.time, where.rank)
    if kind == "distributions":
        return aim_objects.read_distribution(value, where.name, where.step, where.time, where.rank)
    return aim_objects.read_picture(value, "image" if kind == "images" else "audio", where)


def _media(more: Mapping[str, Any], local: str) -> Media:
    """Return media that was kept as a file."""
    data = suffix = None
    fields = more.get("fields") or {}
    if not fields or more.get("suffix"):
        data, suffix = local, str(more.get("suffix", ""))
    return Media(
        name=str(more.get("name", "")), kind=str(more["media"]), step=int(more.get("step", 0)),
        time=int(more.get("time", 0)), path=data, suffix=suffix or "", caption=more.get("caption"), fields=fields,
        rank=int(more.get("rank", 0)),
    )  # fmt: skip


def _more(artifact: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return what we wrote beside an artifact."""
    try:
        told = json.loads(artifact.storage["tracer"])
    except (KeyError, TypeError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
