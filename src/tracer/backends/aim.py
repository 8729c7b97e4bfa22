"""Mirror a run to an Aim repository: numbers exactly as they were, at their own step and time.

`Run.track` takes no time, so points go to the tracker behind it, which does. Aim keeps one value per series and step:
a batch that comes again changes nothing.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import import_module
from typing import Any, ClassVar

from tracer import events, transfer
from tracer.backends import aim_files, aim_objects
from tracer.backends.aim_errors import OPENING, errors, hidden
from tracer.backends.base import Backend, Limits, Refused, Rejected, RemoteIds
from tracer.backends.names import NameMap
from tracer.transfer import Event, File, Histogram, LogLine, Media, Points, RunInfo, Text

_log = logging.getLogger("tracer.backends.aim")
#: So many lines are remembered, to know those that come again.
_LINES = 4000


class AimBackend(Backend):
    """One run in one Aim repository."""

    name: ClassVar[str] = "aim"
    kinds: ClassVar[frozenset[str]] = frozenset(transfer.KINDS) - {transfer.SPAN}
    limits: ClassVar[Limits] = Limits(
        batch=5000,
        losses={
            "spans": "not sent: Aim has no place for them",
            "several values of one step": "Aim keeps one value per series and step: the last",
            "text, media and histograms at a step below 0": "stand at step 0, the real one in the context `step`",
            "histograms with bins of several widths": "drawn with equal bins; the real edges travel along",
            "media that is no image, mp3, wav, flac or text": "a file `media/<name>/<step>` among the artifacts",
            "earlier versions of an artifact": "`<name>/<part>` holds the newest version, earlier ones are replaced",
            "whole numbers beyond 64 bits among parameters": "sent as text",
            "`remote_uri`": "Aim's server asks no one who they are: use it only where nobody else can reach it; it "
            "takes no artifacts, and says that a run began when it was first seen",
        },
    )

    def __init__(self, options: Mapping[str, object]) -> None:
        super().__init__(options)
        self._names = NameMap(r"[^\x00-\x1f\x7f\ud800-\udfff]", 500)
        self._repo: Any = None
        self._run: Any = None
        self._told: dict[str, object] = {}
        self._tags: set[str] = set()
        self._recent: deque[tuple[object, ...]] = deque(maxlen=_LINES)
        self._items: dict[tuple[object, ...], list[str]] = {}

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Create the run in the repository, or go on with it; its hash follows from our id, so there is only one."""
        with errors(OPENING):
            self._repo = self._repository()
            found = remote.get("run_hash") or self._created(run)
            self._run = import_module("aim").Run(
                found, repo=self._repo, system_tracking_interval=None, log_system_params=False,
                capture_terminal_logs=False,
            )  # fmt: skip
            self._facts(run)
            self._recent.extend(aim_files.lines(self._run, _LINES))
        return {"run_hash": str(self._run.hash), "repo": str(self._repo.root_path)}

    def write(self, events: Sequence[Event]) -> None:
        """Hand over a batch; what Aim will never take is left out, and the rest is written."""
        known, refused, lost = Counter(self._recent), "", 0
        for event in events:
            try:
                with errors("write to the repository"):
                    self._one(event, known)
            except Rejected as error:
                refused, lost = str(error), lost + (len(event) if isinstance(event, Points) else 1)
        with errors("write to the repository"):
            self._tell("names", {sent: name for name, sent in self._names.changed.items()})
        if refused:
            raise Rejected(refused, lost)

    def close(self, status: str, ended: int | None) -> None:
        """Say how it ended, and let go of it; a run that has ended is put into the index that Aim's readers ask."""
        if self._run is None:
            return
        run, self._run = self._run, None
        over = status != events.RUNNING
        with errors("end the run"):
            run["tracer", "status"] = status
            # It would write the time of this moment.
            run._resources.set_run_end_time = lambda: None  # noqa: SLF001
            if over:
                run.meta_run_tree["end_time"] = None if ended is None else ended / 1e6
            if status == events.COMPLETED:
                run.report_successful_finish(block=True)
            found = run.hash
            run.close()
            if over and not self._repo.is_remote_repo:
                aim_files.index(self._repo, found)
        self._told.clear()

    def readable(self) -> str:
        """Return the repository's folder."""
        return "" if self._repo is None or self._repo.is_remote_repo else str(self._repo.root_path)

    def renamed(self) -> Mapping[str, str]:
        """Return our names → Aim's, where they differ."""
        return dict(self._names.changed)

    def _repository(self) -> Any:  # noqa: ANN401 -- Aim's
        """Return the repository, made where there is none."""
        repo = import_module("aim").Repo
        remote = self.options.get("remote_uri")
        if remote:
            where = str(remote)
            if not where.startswith("aim://"):
                message = f"remote_uri={hidden(where)!r} is no Aim server. Write aim://HOST:PORT."
                raise Refused(message)
            _log.warning("Aim's server at %s asks no one who they are; anyone who reaches it can write.", hidden(where))
            return repo.from_path(where)
        where = os.path.abspath(str(self.options.get("repo_path") or self.options.get("storage_path") or "."))
        os.makedirs(where, exist_ok=True)
        if repo.check_repo_status(where) == import_module("aim.sdk.repo").RepoStatus.UPDATE_REQUIRED:
            message = f"The Aim repository in {where!r} is of an older version. Run `aim storage upgrade` there."
            raise Refused(message)
        return repo.from_path(where, init=not repo.exists(where))

    def _created(self, run: RunInfo) -> str | None:
        """Return the hash of a run that is there from now on, begun when ours began; None where a server makes one."""
        if self._repo.is_remote_repo:
            return None
        found = hashlib.sha256(f"tracer:{run.uid}".encode()).hexdigest()[:24]
        if found not in self._repo.list_all_runs():
            began = datetime.fromtimestamp(run.started / 1e6, UTC).replace(tzinfo=None)
            self._repo.request_props(found, read_only=False, created_at=began)
            self._repo.request_tree("meta", found, read_only=False)
            # What runs there are is remembered for half a second.
            type(self._repo)._all_run_hashes.cache_clear()  # noqa: SLF001
        return found

    def _facts(self, info: RunInfo) -> None:
        """Write what is known of the run beside its values; only what changed."""
        run, tags = self._run, self.options.get("tags")
        for place, value in (
            ("name", str(self.options.get("run_name") or info.name)),
            ("experiment", str(self.options.get("experiment_name") or info.project)),
            ("description", info.notes or ""),
        ):
            if self._told.get(place) != value:
                setattr(run, place, aim_objects.clean(value))
                self._told[place] = value
        more = tags if isinstance(tags, (list, tuple)) else [tags] if tags else []
        wanted = {aim_objects.clean(str(tag)) for tag in (*info.tags, *more)}
        for tag in sorted(wanted - self._tags - set(run.tags)):
            run.add_tag(tag)
        for tag in sorted(self._tags - wanted):  # those that were given there by hand stay
            run.remove_tag(tag)
        self._tags = wanted
        if self._told.get("hparams") != info.params:
            run["hparams"] = aim_objects.plain(info.params)
            self._told["hparams"] = dict(info.params)
        for name in ("uid", "origin", "project", "name", "group", "job_type", "status", "steps", "labels", "summary",
                     "environment", "git"):  # fmt: skip
            self._tell(name, getattr(info, name))

    def _tell(self, name: str, value: object) -> None:
        """Write one fact that Aim has no field for, if it changed."""
        if value not in (None, "", {}) and self._told.get(f"tracer/{name}") != value:
            self._run["tracer", name] = aim_objects.plain(value)
            self._told[f"tracer/{name}"] = value

    def _one(self, event: Event, known: Counter[tuple[object, ...]]) -> None:
        """Write one event."""
        match event:
            case Points():
                self._points(event)
            case Text():
                self._object(aim_objects.text(event.body), event, "text")
            case LogLine():
                self._line(event, known)
            case Histogram():
                self._object(aim_objects.distribution(event), event, "histogram")
            case Media():
                self._media(event)
            case File():
                if not self._repo.is_remote_repo:
                    aim_files.keep(self._run, event)
            case RunInfo():
                self._facts(event)

    def _points(self, points: Points) -> None:
        """Write one series."""
        track, name = self._run._tracker._track, self._names.sent(points.name)  # noqa: SLF001
        context = _context(points.rank)
        seen = self._run._tracker.sequence_infos.get((_index(context), name))  # noqa: SLF001
        if seen is not None and seen.dtype not in (None, "float", "int"):
            context["kind"] = "points"
        times = (points.times / 1e6).tolist()
        for step, time, value in zip(points.steps.tolist(), times, points.values.tolist(), strict=True):
            track(value, time, name, step, None, context=context)

    def _object(self, made: Any, event: Text | Histogram | Media, kind: str, item: int = 0) -> None:  # noqa: ANN401
        """Write one object; a series holds one kind, so where it is of another the context tells them apart."""
        name, context = self._names.sent(event.name), _context(event.rank)
        if item:
            context["item"] = item
        step = event.step
        if step < 0:  # Aim cannot read a sequence of objects that has one
            context["step"], step = step, 0
        tracker = self._run._tracker  # noqa: SLF001
        seen = tracker.sequence_infos.get((_index(context), name))
        if seen is not None and seen.dtype not in (None, made.get_typename()):
            context["kind"] = kind
        tracker._track(made, event.time / 1e6, name, step, None, context=context)  # noqa: SLF001

    def _line(self, event: LogLine, known: Counter[tuple[object, ...]]) -> None:
        """Write a line after the others, unless it stands there from a batch that came before."""
        sequence, made = aim_objects.line(event)
        key = aim_files.identity(event)
        if known[key] > 0:
            known[key] -= 1
            return
        self._run._tracker._track(  # noqa: SLF001
            made, event.time / 1e6, sequence, None, None, context=_context(event.rank)
        )
        self._recent.append(key)

    def _media(self, event: Media) -> None:
        """Write something to look at or listen to: as Aim's object, or as a file."""
        data = aim_files.content(event)
        if event.kind == "text":
            self._object(aim_objects.text(data.decode("utf-8", "replace")), event, "media")
            return
        made = aim_objects.picture(event, data)
        if made is not None:
            self._object(made, event, event.kind, self._item(event, data))
        elif not self._repo.is_remote_repo:
            aim_files.keep_media(self._run, event, data)

    def _item(self, event: Media, data: bytes) -> int:
        """Return which one it is of those that share a name and a step; the same bytes are the same one."""
        told = hashlib.sha256(data).hexdigest()
        at = self._items.setdefault((event.name, event.step, event.rank, event.kind), [])
        if told not in at:
            at.append(told)
        if len(self._items) > _LINES:
            self._items.pop(next(iter(self._items)))
        return at.index(told)


def _context(rank: int) -> dict[str, object]:
    """Return where a series of a rank stands."""
    return {"rank": rank} if rank else {}


def _index(context: Mapping[str, object]) -> int:
    """Return what Aim's tracker calls a context."""
    found: int = import_module("aim.storage.context").Context(dict(context)).idx
    return found
