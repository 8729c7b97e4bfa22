"""Mirror a run to Weights & Biases: offline into a folder that `wandb sync` uploads, or online.

W&B drops steps that go backwards, so rows are counted by a step of our own and ours travels as `tracer_step`, which is
every metric's step there. A batch is taken when it stands in the run's `.wandb` file: rows that stand there already
are not sent again, also after a crash.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tracer import transfer
from tracer.backends import wandb_client as client
from tracer.backends.base import Backend, Limits, Rejected, RemoteIds
from tracer.backends.names import NameMap, ranked
from tracer.backends.wandb_artifacts import artifact
from tracer.backends.wandb_kept import Kept
from tracer.backends.wandb_values import STEP, chart_value, number_rows
from tracer.events import COMPLETED, RUNNING
from tracer.transfer import Event, RunInfo

#: Names that are W&B's own, ours beside them, and those that would lead out of a folder of media.
RESERVED = r"_step|_timestamp|_runtime|_wandb.*|tracer_step|tracer_rank|\*|/.*|.*/|(.*/)?\.\.?(/.*)?"
ALLOWED = r"[^\x00-\x1f\x7f\ud800-\udfff]"
LONGEST = 500
_LOSSES = {
    "order of steps": "W&B counts its own; ours is the metric `tracer_step`, the axis of every chart",
    "start time": "W&B takes the moment of mirroring; `tracer.started` in the config holds ours",
    "histograms of more than 512 buckets": "neighbouring buckets are added up until there are at most 512",
    "log lines": "the run's `output.log`, each with its time; level and fields are not kept",
    "media that W&B cannot show": "a file of the run, `media/<name>/<step>.<suffix>`",
    "spans": "not sent",
    "crashed": "exit code 255, which W&B shows as failed",
}


class WandbBackend(Backend):
    """One run in W&B.

    Args:
        options: See `tracer.backends.table`; `mode` is `offline` or `online`, by default online when a key is found.
    """

    name: ClassVar[str] = "wandb"
    kinds: ClassVar[frozenset[str]] = frozenset(transfer.KINDS) - {transfer.SPAN}
    limits: ClassVar[Limits] = Limits(batch=5000, repeatable=True, losses=_LOSSES)

    def __init__(self, options: Mapping[str, object]) -> None:
        super().__init__(options)
        self._names = NameMap(ALLOWED, LONGEST, RESERVED)
        self._run: Any = None
        self._told: dict[str, object] = {}
        self._named = 0

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Start W&B's run, or go on with the one of that id; what its earlier files hold is not sent again."""
        self._mode = str(self.options.get("mode") or "") or remote.get("mode") or client.mode(self.options)
        self._folder = client.folder(self.options)
        run_id = self._run_id = remote.get("run_id") or client.run_id(run.uid)
        self._kept = Kept(self._folder, run_id)
        self._run = client.start(self._options(run), self._folder, self._mode, run_id, _config(run))
        self._kept.follow(self._run.settings.sync_file, max(self._kept.next_step, int(self._run.step)))
        with client.translated():
            self._run.define_metric("*", step_metric=STEP)
        self._told = {"params": dict(run.params)}
        self._facts(run)
        told = {"run_id": run_id, "folder": os.path.join(self._folder, "wandb"), "mode": self._mode}
        if note := remote.get("note") or ("" if self._mode == "online" else client.why_offline(self.options)):
            told["note"] = note
        return told

    def write(self, events: Sequence[Event]) -> None:
        """Log a batch; on return the run's file holds it."""
        points = [one for one in events if isinstance(one, transfer.Points)]
        with client.translated():
            # First the table of names: once a row is in the file, what its names mean is there too.
            for event in events:
                if isinstance(event, (transfer.Points, transfer.Text, transfer.Media, transfer.Histogram)):
                    self._names.sent(event.name)
            self._tell_names()
            for key, row in number_rows(points, self._names, self._kept):
                self._log(key, row)
            others = [event for event in events if not isinstance(event, transfer.Points)]
            refused = [why for event in others if (why := self._refused(event))]
            self._kept.wait()
        if refused:
            raise Rejected(refused[0], lost=len(refused))

    def close(self, status: str, ended: int | None) -> None:
        """Finish W&B's run and end its process, unless somebody else's run needs it."""
        if self._run is None:
            return
        with client.translated():
            told = {"tracer.status": status} | ({} if ended is None else {"tracer.ended": ended})
            self._run.config.update(told, allow_val_change=True)
            code = {COMPLETED: 0, RUNNING: 0}.get(status, 255 if status == "crashed" else 1)
            # A run to be resumed ends too, or W&B's process could not; `tracer.status` says that more will come.
            client.end(self._run, code)
            self._kept.close()
        self._run = None

    def url(self) -> str | None:
        """Return the run's page; an offline run has its folder only."""
        if self._run is None or self._mode == "offline":
            return None
        found = self._run.url
        return str(found) if found else None

    def renamed(self) -> Mapping[str, str]:
        """Return the names that W&B would not take, with what it was told."""
        return self._names.changed

    def _options(self, run: RunInfo) -> dict[str, object]:
        """Return what W&B is told of a run when it starts."""
        given = self.options
        extra = given.get("tags") or ()
        tags = (*run.tags, *((extra,) if isinstance(extra, str) else tuple(extra)))  # type: ignore[arg-type]
        return {
            "project": client.project_name(str(given.get("project_name") or run.project)),
            "entity": given.get("entity"),
            "run_name": given.get("experiment_name") or run.name or None,
            "run_group": run.group,
            "run_job_type": given.get("job_type") or run.job_type,
            "run_notes": run.notes,
            "run_tags": client.tags(tags),
            "base_url": given.get("base_url"),
            "api_key": given.get("api_key"),
            "init_timeout": given.get("init_timeout_s"),
        }

    def readable(self) -> str:
        """Return the folder of W&B's files with the run's id."""
        return f"{os.path.join(self._folder, 'wandb')}#{self._run_id}"

    def _refused(self, event: Event) -> str:
        """Log one thing; return why it cannot be, or nothing."""
        try:
            self._one(event)
        except Rejected as error:
            return str(error)
        except (ValueError, TypeError, FileNotFoundError) as error:  # of W&B's own checks of a medium or a name
            return f"W&B refuses a {event.KIND}: {client.plain(error)}"
        return ""

    def _one(self, event: Event) -> None:
        """Log one thing that is no number."""
        if isinstance(event, RunInfo):
            self._facts(event)
        elif isinstance(event, transfer.LogLine):
            self._kept.line(self._run, event)
        elif isinstance(event, transfer.File):
            if self._kept.is_new_file(event.name, event.version):
                with client.quiet_environment(self._folder):
                    made, aliases = artifact(event)
                    self._run.log_artifact(made, aliases=aliases)
                self._kept.add_file(event.name, event.version)
        elif isinstance(event, (transfer.Text, transfer.Media, transfer.Histogram)):
            self._chart(event)
        else:
            message = f"W&B has no place for {event.KIND!r}."
            raise Rejected(message)

    def _chart(self, event: transfer.Text | transfer.Media | transfer.Histogram) -> None:
        """Log a text, a histogram or a medium at its step."""
        name = ranked(self._names.sent(event.name), event.rank)
        key = (name, event.step, event.time, None)
        if not self._kept.is_new(key):
            return
        with client.quiet_environment(self._folder):
            value = chart_value(event, name, self._run)
            row = {name: value, STEP: event.step, "_timestamp": event.time / 1e6}
            if event.rank:
                row["tracer_rank"] = event.rank
            self._log([key], row)

    def _log(self, keys: Sequence[tuple[object, ...]], row: Mapping[str, object]) -> None:
        """Log one row, and remember that it was."""
        self._run.log(row, step=self._kept.next_step, commit=True)
        self._kept.add(keys)

    def _facts(self, run: RunInfo) -> None:
        """Tell W&B what changed of the run's description."""
        told, wandb_run = self._told, self._run
        params = {name: value for name, value in run.params.items() if told.get("params", {}).get(name, told) != value}  # type: ignore[attr-defined]
        if params:
            wandb_run.config.update(params, allow_val_change=True)
        if run.tags and told.get("tags") not in (None, run.tags):
            wandb_run.tags = client.tags(self._options(run)["run_tags"])  # type: ignore[arg-type]
        if run.notes and told.get("notes") not in (None, run.notes):
            wandb_run.notes = run.notes
        if run.name and told.get("name") not in (None, run.name) and not self.options.get("experiment_name"):
            wandb_run.name = run.name
        if told.get("summary") != run.summary:
            wandb_run.summary.update({self._names.sent(name): value for name, value in run.summary.items()})
            # W&B's own summary also holds the last value of everything: this is the one that was told.
            wandb_run.config.update({"tracer.summary": dict(run.summary)}, allow_val_change=True)
        self._told = {"params": dict(run.params), "tags": run.tags, "notes": run.notes, "name": run.name,
                      "summary": dict(run.summary)}  # fmt: skip

    def _tell_names(self) -> None:
        """Keep the table of names that were changed with the run, so that an import maps them back."""
        if len(self._names.changed) != self._named:
            self._run.config.update({"tracer.names": dict(self._names.changed)}, allow_val_change=True)
            self._named = len(self._names.changed)


def _config(run: RunInfo) -> dict[str, object]:
    """Return W&B's config: the parameters, and under `tracer.` what else has to come back."""
    own: dict[str, object] = {"tracer.uid": run.uid, "tracer.started": run.started, "tracer.origin": run.origin}
    own["tracer.status"] = RUNNING
    own |= {"tracer.project": run.project, "tracer.name": run.name, "tracer.labels": dict(run.labels)}
    own |= {"tracer.environment": dict(run.environment), "tracer.git": dict(run.git)}
    return dict(run.params) | {name: value for name, value in own.items() if value}


__all__ = ["WandbBackend"]
