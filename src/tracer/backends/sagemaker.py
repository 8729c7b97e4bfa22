"""Mirror a run to SageMaker Experiments: a trial component, in a trial, in an experiment.

The metrics go to `sagemaker-metrics`, ten a request; files go to S3 where a bucket is named. `boto3` alone is used:
the `sagemaker` package has no Experiments any more.
"""

from __future__ import annotations

import contextlib
import json
import mimetypes
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tracer import events as vocabulary
from tracer import transfer
from tracer.backends import sagemaker_values as values
from tracer.backends.base import Backend, Limits, Refused, Rejected, RemoteIds, Unreachable
from tracer.backends.names import NameMap
from tracer.backends.sagemaker_client import Clients, code_of, translated
from tracer.transfer import Event, RunInfo

_STATUS = {
    vocabulary.RUNNING: "InProgress", vocabulary.COMPLETED: "Completed",
    vocabulary.FAILED: "Failed", vocabulary.CRASHED: "Failed",
}  # fmt: skip
#: So many points that were left out are known by name and step, so that a repeated batch counts them once.
_MOST_SEEN = 1_000_000
_LOSSES = {
    "NaN, ±Inf": "not sent; the parameter `tracer.left_out` counts them by metric",
    "negative steps, steps above 2147483647 (large)": "not sent; counted in `tracer.left_out`",
    "points of a series": "AWS gives back minimum, maximum, average, last and count of each metric",
    "parameters beyond 300": "left out; `tracer.parameters_left_out` counts them",
    "texts and nested parameters": "JSON text, cut at 2,500 characters",
    "artifacts": "to S3 where `bucket` is set, at most 60 are listed with the run; without a bucket they are not sent",
    "text, log lines, media, histograms, spans": "not sent",
    "crashed": "Failed, with the message `crashed`",
}


class SageMakerBackend(Backend):
    """One run in SageMaker Experiments.

    Args:
        options: `experiment_name`, `trial_name`, `region`, `endpoint`, `bucket`; all may be left out.
    """

    name: ClassVar[str] = "sagemaker"
    kinds: ClassVar[frozenset[str]] = frozenset({transfer.POINTS, transfer.LAYER, transfer.FACTS, transfer.FILE})
    limits: ClassVar[Limits] = Limits(batch=500, losses=_LOSSES)

    def __init__(self, options: Mapping[str, object]) -> None:
        super().__init__(options)
        self._names = NameMap(r"[^\x00-\x1f\x7f\ud800-\udfff]", values.LONGEST_METRIC_NAME)
        self._parameter_names = NameMap(
            r"[^\x00-\x1f\x7f\ud800-\udfff]", values.LONGEST_PARAMETER_NAME, r"tracer\..*|sagemaker\..*"
        )
        self._clients: Clients | None = None
        self._left_out: dict[str, int] = {}
        self._seen: set[int] = set()
        self._told: dict[str, Any] = {}
        self._artifacts: dict[str, dict[str, str]] = {}

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Create experiment, trial and component, each unless it is there."""
        job = os.environ.get("TRAINING_JOB_NAME", "")
        with translated():
            self._clients = Clients(self.options)
            experiment = str(self.options.get("experiment_name") or run.project)
            trial = str(self.options.get("trial_name") or run.group or job or f"{run.project}-{run.uid}")
            self._ids = {
                "experiment": remote.get("experiment") or values.entity_name(experiment),
                "trial": remote.get("trial") or values.entity_name(trial),
                "component": remote.get("component") or values.entity_name(f"{run.name}-{run.uid}", lower=True),
                "region": self._clients.region,
            }
        component = self._ids["component"]
        self._create("experiment", ExperimentName=self._ids["experiment"])
        self._create("trial", TrialName=self._ids["trial"], ExperimentName=self._ids["experiment"])
        if not self._known():
            self._create("trial_component", TrialComponentName=component, StartTime=values.when(run.started))
        with translated():
            self._clients.api.associate_trial_component(TrialComponentName=component, TrialName=self._ids["trial"])
        self._told = {"Status": {"PrimaryStatus": "InProgress"}}
        self._update(run)
        return dict(self._ids)

    def write(self, events: Sequence[Event]) -> None:
        """Send a batch; a metric's value at a step replaces what stood there."""
        points = [event for event in events if isinstance(event, transfer.Points)]
        for batch in values.requests(points, self._names, self._leave_out):
            self._put(batch)
        refused = [why for event in events if (why := self._refused(event))]
        if refused:
            raise Rejected(refused[0], lost=len(refused))

    def _refused(self, event: Event) -> str:
        """Send one thing that is no point; return why it cannot be, or nothing."""
        try:
            if isinstance(event, RunInfo):
                self._update(event)
            elif isinstance(event, transfer.File):
                self._send_file(event)
            elif not isinstance(event, transfer.Points):
                return f"SageMaker Experiments has no place for {event.KIND!r}."
        except Rejected as error:
            return str(error)
        return ""

    def close(self, status: str, ended: int | None) -> None:
        """Set how and when the run ended."""
        if self._clients is None:
            return
        told: dict[str, object] = {"PrimaryStatus": _STATUS.get(status, "Failed")}
        if status == vocabulary.CRASHED:
            told["Message"] = status
        self._told["Status"] = told
        if ended is not None and status != vocabulary.RUNNING:
            self._told["EndTime"] = values.when(ended)
        try:
            self._update(self._run)
        finally:
            self._clients.close()
            self._clients = None

    def url(self) -> str | None:
        """Return the component's address: its name, as the console has no lasting pages of its own for them."""
        return f"sagemaker:{self._ids['region']}/{self._ids['component']}" if self._clients else None

    def renamed(self) -> Mapping[str, str]:
        """Return the names of metrics that SageMaker would not take, with what it was told."""
        return self._names.changed

    @property
    def _open_clients(self) -> Clients:
        """The clients of a run that is open."""
        if self._clients is None:
            message = "The SageMaker back end is not open."
            raise Refused(message)
        return self._clients

    def _create(self, kind: str, **told: object) -> None:
        """Create something unless it is there already, whoever made it."""
        try:
            with translated():
                getattr(self._open_clients.api, f"create_{kind}")(**told)
        except Rejected as error:
            if "exist" not in str(error) and code_of(error) not in {"ResourceInUse", "ConflictException"}:
                raise

    def _known(self) -> bool:
        """Take in what the component holds already; false when there is none."""
        with contextlib.suppress(Rejected), translated():
            found = self._open_clients.api.describe_trial_component(TrialComponentName=self._ids["component"])
            self._artifacts = dict(found.get("OutputArtifacts") or {})
            told = (found.get("Parameters") or {}).get("tracer.left_out", {}).get("StringValue", "{}")
            with contextlib.suppress(ValueError, AttributeError):
                self._left_out = {str(name): int(count) for name, count in json.loads(told).items()}
            return True
        return False

    def _leave_out(self, name: str, step: int, why: str) -> None:
        """Count a point that is not sent, once."""
        key = hash((name, step, why))
        if key not in self._seen:
            if len(self._seen) < _MOST_SEEN:
                self._seen.add(key)
            told = f"{name}: {why}"
            self._left_out[told] = self._left_out.get(told, 0) + 1

    def _update(self, run: RunInfo) -> None:
        """Send everything that describes the run: an update may replace the whole of what it names or leaves out."""
        self._run = run
        extra = {f"sagemaker.{name.lower()}": os.environ[name] for name in ("TRAINING_JOB_ARN",) if name in os.environ}
        if self._left_out:
            extra["tracer.left_out"] = json.dumps(self._left_out)
        with translated():
            self._open_clients.api.update_trial_component(
                TrialComponentName=self._ids["component"],
                Parameters=values.parameters(run, self._parameter_names, extra),
                OutputArtifacts=self._artifacts,
                **self._told,
            )

    def _put(self, batch: Sequence[Mapping[str, object]]) -> None:
        """Send ten metrics at most, and see what became of each."""
        with translated():
            answer = self._open_clients.metrics.batch_put_metrics(
                TrialComponentName=self._ids["component"], MetricData=list(batch)
            )
        found = values.errors(answer, batch)
        if found.keys() & {"INTERNAL_ERROR", "CONFLICT_ERROR"}:
            message = f"SageMaker did not take {sum(found.values())} of {len(batch)} metrics now ({', '.join(found)})."
            raise Unreachable(message)
        if found:
            message = f"SageMaker refuses {sum(found.values())} of {len(batch)} metrics ({', '.join(sorted(found))})."
            raise Rejected(message)

    def _send_file(self, file: transfer.File) -> None:
        """Upload an artifact, and list it with the run."""
        clients, bucket = self._open_clients, str(self.options.get("bucket") or "")
        if clients.files is None:
            message = f"The artifact {file.name!r} was not sent: name an S3 bucket with the option `bucket`."
            raise Rejected(message)
        bucket, _, prefix = bucket.removeprefix("s3://").partition("/")
        place = "/".join(part for part in (prefix.strip("/"), self._ids["component"], file.name, file.version) if part)
        for part in file.parts:
            if not _is_inside(f"{file.name}/{part.path}"):
                message = f"The part {part.path!r} of the artifact {file.name!r} lies outside it; it was not sent."
                raise Rejected(message)
        with translated():
            for part in file.parts:
                with open(part.local, "rb") as body:
                    clients.files.put_object(
                        Bucket=bucket, Key=f"{place}/{part.path}", Body=body, Metadata={"sha256": part.digest}
                    )
        if len(self._artifacts) >= values.MOST_ARTIFACTS:
            return
        kind = mimetypes.guess_type(file.parts[0].path)[0] if len(file.parts) == 1 else None
        listed = {"MediaType": kind or "application/x-directory", "Value": f"s3://{bucket}/{place}"}
        self._artifacts[f"{file.name}:{file.version}"[:128]] = listed
        self._update(self._run)


def _is_inside(path: str) -> bool:
    """Tell whether a relative path stays in its folder."""
    parts = path.replace("\\", "/").split("/")
    return "\0" not in path and all(part not in {"", ".", ".."} for part in parts)


__all__ = ["SageMakerBackend"]
