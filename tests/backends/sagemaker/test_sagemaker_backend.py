"""What stands in SageMaker Experiments after a run was mirrored, as boto3 reads it from Moto's server."""

from __future__ import annotations

import hashlib
import http.server
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracer.backends import table
from tracer.backends.base import Backend, Refused, Rejected, Throttled, Unreachable
from tracer.backends.sagemaker import SageMakerBackend
from tracer.testing import check_backend
from tracer.transfer import File, Part, Points, RunInfo, Text

boto3 = pytest.importorskip("boto3")
pytest.importorskip("moto")

KEY = "AKIASECRETSECRETSECR"
STARTED = 1_600_000_000_000_000


def info(**more: object) -> RunInfo:
    """Return a run that no other test has."""
    told: dict[str, Any] = {"uid": uuid.uuid4().hex[:12], "project": "vision", "name": "first", "started": STARTED}
    return RunInfo(**(told | more))


def points(name: str, values: list[float], first: int = 0, **more: Any) -> Points:  # noqa: ANN401 -- any field
    """Return a series that counts its steps from `first`."""
    steps = np.arange(first, first + len(values))
    return Points(name, steps, STARTED + steps * 1000, np.array(values), **more)


def opened(address: str, run: RunInfo, **options: object) -> tuple[Backend, Mapping[str, str]]:
    """Return a back end with a run, and what the run is called."""
    backend = table.backend("sagemaker", {"endpoint": address, **options})
    return backend, backend.open(run, {})


def described(address: str, remote: Mapping[str, str]) -> dict[str, Any]:
    """Return the component as boto3 reads it."""
    client = boto3.client("sagemaker", endpoint_url=address)
    found: dict[str, Any] = client.describe_trial_component(TrialComponentName=remote["component"])
    client.close()
    return found


def metrics(address: str, remote: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the component's metrics by name."""
    return {one["MetricName"]: one for one in described(address, remote)["Metrics"]}


def test_a_run_becomes_a_component_in_a_trial_in_an_experiment(moto_address: str) -> None:
    run = info(params={"lr": 0.1, "layers": [1, 2], "deep": {"a": 1}, "amp": True}, tags=("a", "b"), notes="n")
    backend, remote = opened(moto_address, run)
    backend.write([points("loss", [0.5, 0.25, 1 / 3])])
    backend.close("completed", STARTED + 9_000_000)

    found = described(moto_address, remote)
    assert found["Status"]["PrimaryStatus"] == "Completed"
    assert round(found["StartTime"].timestamp()) == 1_600_000_000
    assert round(found["EndTime"].timestamp()) == 1_600_000_009
    assert found["Parameters"]["lr"] == {"NumberValue": 0.1}
    assert found["Parameters"]["deep"] == {"StringValue": '{"a": 1}'}
    assert found["Parameters"]["amp"] == {"StringValue": "true"}
    assert found["Parameters"]["tracer.uid"] == {"StringValue": run.uid}
    assert found["Parameters"]["tracer.tags"] == {"StringValue": '["a", "b"]'}
    client = boto3.client("sagemaker", endpoint_url=moto_address)
    trials = client.list_trials(ExperimentName=remote["experiment"])["TrialSummaries"]
    in_trial = client.list_trial_components(TrialName=remote["trial"])["TrialComponentSummaries"]
    searched = client.search(Resource="ExperimentTrialComponent")["Results"]
    client.close()
    assert remote["trial"] in {one["TrialName"] for one in trials}
    assert [one["TrialComponentName"] for one in in_trial] == [remote["component"]]
    assert remote["component"] in {one["TrialComponent"]["TrialComponentName"] for one in searched}


def test_metrics_come_back_as_aws_sums_them_up(moto_address: str) -> None:
    backend, remote = opened(moto_address, info())
    backend.write([points("loss", [3.0, 1.0, 2.0]), points("loss", [7.0], rank=1), points("a b/c[0]: ü", [1e-300])])
    backend.close("completed", None)

    found = metrics(moto_address, remote)
    assert {name: found["loss"][name] for name in ("Min", "Max", "Avg", "Last", "Count")} == {
        "Min": 1.0, "Max": 3.0, "Avg": 2.0, "Last": 2.0, "Count": 3,
    }  # fmt: skip
    assert found["rank1/loss"]["Last"] == 7.0
    assert found["a b/c[0]: ü"]["Last"] == 1e-300


def test_no_request_holds_more_than_ten_metrics(moto_address: str) -> None:
    backend, remote = opened(moto_address, info())
    sizes: list[int] = []
    client: Any = backend._clients.metrics  # type: ignore[attr-defined]
    client.meta.events.register(
        "provide-client-params.sagemaker-metrics.BatchPutMetrics",
        lambda params, **_: sizes.append(len(params["MetricData"])),
    )
    backend.write([points("loss", [1.0] * 33), points("accuracy", [2.0] * 12)])
    backend.close("completed", None)

    assert max(sizes) == 10
    assert sum(sizes) == 45
    assert len(sizes) == 5
    assert {name: one["Count"] for name, one in metrics(moto_address, remote).items()} == {"loss": 33, "accuracy": 12}


def test_a_repeated_batch_and_a_resumed_run_double_nothing(moto_address: str) -> None:
    run = info(params={"lr": 1})
    backend, remote = opened(moto_address, run)
    backend.write([points("loss", [1.0, 2.0])])
    backend.write([points("loss", [1.0, 2.0])])
    backend.close("running", None)
    assert described(moto_address, remote)["Status"]["PrimaryStatus"] == "InProgress"

    again = table.backend("sagemaker", {"endpoint": moto_address})
    assert again.open(run, remote) == remote
    again.write([points("loss", [2.0, 3.0], first=1)])
    again.write([info(uid=run.uid, params={"lr": 1, "new": "x"}, summary={"best": 0.5})])
    again.close("failed", STARTED)

    found = described(moto_address, remote)
    assert found["Status"]["PrimaryStatus"] == "Failed"
    assert found["Parameters"]["new"] == {"StringValue": "x"}
    assert found["Parameters"]["tracer.summary"] == {"StringValue": '{"best": 0.5}'}
    assert found["Metrics"][0]["Count"] == 3


def test_a_crash_is_told(moto_address: str) -> None:
    backend, remote = opened(moto_address, info())
    backend.close("crashed", STARTED)

    assert described(moto_address, remote)["Status"] == {"PrimaryStatus": "Failed", "Message": "crashed"}


def test_what_has_no_place_is_counted_with_the_run(moto_address: str) -> None:
    backend, remote = opened(moto_address, info())
    backend.write([points("loss", [1.0, float("nan"), float("inf"), 2.0], first=-1)])
    backend.write([points("loss", [1.0, float("nan"), float("inf"), 2.0], first=-1)])
    backend.close("completed", None)

    found = described(moto_address, remote)
    assert found["Metrics"][0]["Count"] == 1
    told = found["Parameters"]["tracer.left_out"]["StringValue"]
    assert told == '{"loss: step out of range": 1, "loss: nan": 1, "loss: inf": 1}'


def test_more_parameters_than_aws_takes_are_counted(moto_address: str) -> None:
    backend, remote = opened(moto_address, info(params={f"p{number}": number for number in range(400)}))
    backend.close("completed", None)

    found = described(moto_address, remote)["Parameters"]
    left_out = int(found["tracer.parameters_left_out"]["NumberValue"])
    assert len(found) <= 300
    assert sum(name.startswith("p") for name in found) + left_out == 400


def test_a_parameter_of_ours_and_one_of_the_users_stay_apart(moto_address: str) -> None:
    run = info(params={"tracer.uid": "theirs"})
    backend, remote = opened(moto_address, run)
    backend.close("completed", None)

    found = described(moto_address, remote)["Parameters"]
    assert found["tracer.uid"] == {"StringValue": run.uid}
    assert {"StringValue": "theirs"} in found.values()


def test_artifacts_go_to_s3_byte_for_byte(moto_address: str, tmp_path: Path) -> None:
    content = bytes(range(256)) * 100
    (tmp_path / "weights").write_bytes(content)
    part = Part("sub/weights.bin", str(tmp_path / "weights"), len(content), hashlib.sha256(content).hexdigest())
    files = boto3.client("s3", endpoint_url=moto_address)
    bucket = f"runs-{uuid.uuid4().hex[:8]}"
    files.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    backend, remote = opened(moto_address, info(), bucket=f"s3://{bucket}/mirror")
    backend.write([File("model", "model", "v1", (part,)), File("data", "dataset", "v1", (part,))])
    with pytest.raises(Rejected, match="outside"):
        backend.write([File("model", "model", "v2", (Part("../../evil", part.local, part.size, part.digest),))])
    backend.close("completed", None)

    listed = described(moto_address, remote)["OutputArtifacts"]
    assert sorted(listed) == ["data:v1", "model:v1"]
    key = listed["model:v1"]["Value"].removeprefix(f"s3://{bucket}/") + "/sub/weights.bin"
    answer = files.get_object(Bucket=bucket, Key=key)
    assert answer["Body"].read() == content
    assert answer["Metadata"] == {"sha256": part.digest}
    assert files.list_objects_v2(Bucket=bucket)["KeyCount"] == 2
    answer["Body"].close()
    files.close()


def test_without_a_bucket_an_artifact_is_rejected_with_the_remedy(moto_address: str) -> None:
    backend, _ = opened(moto_address, info())
    with pytest.raises(Rejected, match="option `bucket`"):
        backend.write([File("model", "model", "v1", ())])
    with pytest.raises(Rejected, match="no place"):
        backend.write([Text("note", 1, STARTED, "x")])
    backend.close("completed", None)


def test_a_training_job_gives_the_trial_its_name(moto_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINING_JOB_NAME", "resnet-2026-11-21")
    monkeypatch.setenv("TRAINING_JOB_ARN", "arn:aws:sagemaker:eu-west-1:1:training-job/resnet-2026-11-21")
    backend, remote = opened(moto_address, info())
    backend.close("completed", None)

    assert remote["trial"] == "resnet-2026-11-21"
    assert "sagemaker.training_job_arn" in described(moto_address, remote)["Parameters"]


@pytest.mark.parametrize("name", ["a", "my project/2", "../x", "ü", "-", "x" * 500, "CON", "a--b"])
def test_names_are_ones_that_aws_takes(moto_address: str, name: str) -> None:
    backend, remote = opened(moto_address, info(project=name, name=name, group=name))
    backend.close("completed", None)

    found = described(moto_address, remote)["Parameters"]
    assert found["tracer.project"]["StringValue"] == name[:2500]


def test_two_projects_that_look_alike_are_two_experiments(moto_address: str) -> None:
    one, two = (opened(moto_address, info(project=project)) for project in ("a/b", "a?b"))
    one[0].close("completed", None)
    two[0].close("completed", None)

    assert one[1]["experiment"] != two[1]["experiment"]


def test_a_closed_port_is_unreachable() -> None:
    with pytest.raises(Unreachable) as raised:
        opened("http://127.0.0.1:9", info())
    assert KEY not in str(raised.value)


def test_missing_credentials_are_refused(moto_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(Refused, match="credentials"):
        opened(moto_address, info())


def test_a_missing_region_is_refused(moto_address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    with pytest.raises(Refused, match="region"):
        opened(moto_address, info())


@contextmanager
def _answering(status: int, code: str) -> Iterator[str]:
    """Serve one answer to everything, as AWS words its errors."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            body = f'{{"__type": "{code}", "message": "no"}}'.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Retry-After", "7")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "ThrottlingException", Throttled),
        (429, "TooManyRequestsException", Throttled),
        (400, "AccessDeniedException", Refused),
        (403, "UnrecognizedClientException", Refused),
        (400, "ResourceLimitExceeded", Refused),
        (400, "ValidationException", Rejected),
        (500, "InternalFailure", Unreachable),
        (503, "ServiceUnavailable", Unreachable),
    ],
)
def test_answers_of_aws_become_what_the_lane_reacts_to(status: int, code: str, expected: type[Exception]) -> None:
    with _answering(status, code) as address, pytest.raises(expected) as raised:
        opened(address, info())
    assert KEY not in str(raised.value)
    if isinstance(raised.value, Throttled):
        assert raised.value.after_s == 7.0


def test_it_keeps_the_contract(moto_address: str) -> None:
    dead = {"endpoint": "http://127.0.0.1:9"}
    check_backend(
        SageMakerBackend, read=None, options={"endpoint": moto_address, "bucket": _bucket(moto_address)}, dead=dead
    )


def _bucket(address: str) -> str:
    """Make a bucket; return its name."""
    files = boto3.client("s3", endpoint_url=address)
    name = f"runs-{uuid.uuid4().hex[:8]}"
    files.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    files.close()
    return name
