"""One experiment: what it is told is what the run holds, from start to stop, whoever ends it."""

# ruff: noqa: ANN401 -- what reads a run back is a class of `conftest.py`
from __future__ import annotations

import csv
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import tracelet
import tracer
from tracelet import ConfigurationError, Experiment, ExperimentConfig, TraceletSettings
from tracelet.core.orchestrator import MetricData, MetricType


def test_values_parameters_project_and_name_arrive_as_given(calm: dict[str, Any], recorded: Any) -> None:
    experiment = tracelet.start_logging("first", project="vision", config=calm)
    experiment.log_params({"model": "resnet", "lr": 0.001})
    experiment.log_hyperparameter("batch_size", 32)
    experiment.log_hyperparameters({"depth": 4})
    experiment.log_metric("loss", 0.5, 0)
    experiment.log_metric("loss", 0.25, 7)
    tracelet.stop_logging()

    run = recorded("first")
    assert (run.row.project, run.row.name, run.row.status) == ("vision", "first", "completed")
    assert run.facts["config"] == {"model": "resnet", "lr": 0.001, "batch_size": 32, "depth": 4}
    assert run.series("loss") == {0: 0.5, 7: 0.25}


def test_step_0_is_a_step_and_none_is_the_iteration(calm: dict[str, Any], recorded: Any) -> None:
    with tracelet.start_logging("steps", config=calm) as experiment:
        experiment.set_iteration(5)
        experiment.log_metric("a", 1.0, 0)
        experiment.log_metric("a", 2.0)
        assert experiment.iteration == experiment.step_count == 5

    assert recorded().series("a") == {0: 1.0, 5: 2.0}


def test_the_same_object_is_the_active_experiment_and_none_is_when_it_ended(calm: dict[str, Any]) -> None:
    assert tracelet.get_active_experiment() is None
    tracelet.stop_logging()  # without an experiment nothing happens

    experiment = tracelet.start_logging("one", config=calm)
    assert tracelet.get_active_experiment() is experiment
    tracelet.stop_logging()
    tracelet.stop_logging()

    assert tracelet.get_active_experiment() is None


def test_a_second_start_ends_the_first_and_nothing_of_it_goes_there(
    calm: dict[str, Any], recorded: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tracelet.start_logging("first", config=calm)
    first.log_metric("a", 1.0, 0)
    second = tracelet.start_logging("second", config=calm)
    second.log_metric("a", 2.0, 0)

    assert "'first' was still running; it is finished before the new run begins" in capsys.readouterr().err
    assert tracelet.get_active_experiment() is second
    with pytest.raises(RuntimeError, match="'first' is finished"):
        first.log_metric("a", 3.0, 1)
    tracelet.stop_logging()
    assert (recorded("first").series("a"), recorded("second").series("a")) == ({0: 1.0}, {0: 2.0})


def test_whoever_ends_the_run_ends_the_experiment(calm: dict[str, Any]) -> None:
    tracelet.start_logging("one", config=calm)
    tracer.finish()
    assert tracelet.get_active_experiment() is None

    tracelet.start_logging("two", config=calm)
    tracer.init(project="other", quiet=True)
    assert tracelet.get_active_experiment() is None


def test_there_is_one_run_underneath(calm: dict[str, Any], recorded: Any) -> None:
    experiment = tracelet.start_logging("one", config=calm)
    tracer.log({"b": 3.0}, step=1)
    tracer.step()
    experiment.log({"c": 4.0})

    assert experiment.id == experiment.run_id == tracer.get_run_id()
    assert (experiment.config.project_name, experiment.config.track_git) == ("default", False)
    tracelet.stop_logging()
    assert (recorded().series("b"), recorded().series("c")) == ({1: 3.0}, {1: 4.0})


def test_an_exception_marks_the_run_failed(calm: dict[str, Any], recorded: Any) -> None:
    with pytest.raises(ZeroDivisionError), tracelet.start_logging("bad", config=calm):
        _ = 1 / 0

    assert (recorded().row.status, tracelet.get_active_experiment()) == ("failed", None)


def test_an_experiment_can_be_made_and_started_by_hand(calm: dict[str, Any], recorded: Any) -> None:
    experiment = Experiment("hand", config=calm, tags=["a"])
    assert (experiment.name, experiment.iteration, experiment.is_active) == ("hand", 0, False)
    with pytest.raises(RuntimeError, match="'hand' was not started yet"):
        experiment.log_metric("loss", 1.0)

    experiment.start()
    experiment.start()
    experiment.log_metric("loss", 1.0, 3)
    experiment.add_tag("b")
    experiment.add_tag("b")
    assert experiment.tags == ["a", "b"]
    experiment.set_tags(["c"])
    experiment.end()

    run = recorded("hand")
    assert (run.series("loss"), run.facts["tags"]) == ({3: 1.0}, ["c"])


@pytest.mark.parametrize("form", ["dictionary", "settings", "config"])
def test_settings_come_in_three_forms(form: str, recorded: Any) -> None:
    settings = TraceletSettings(project="p", backend=[], track_system=False, track_git=False, track_stdout=False)
    config = ExperimentConfig(track_system_metrics=False, track_git=False, track_stdout=False)
    if form == "dictionary":
        experiment = tracelet.start_logging("x", config={**settings.model_dump(), "quiet": True})
    elif form == "settings":
        experiment = tracelet.start_logging("x", settings=settings)
    else:
        experiment = tracelet.start_logging("x", project="p", config=config)
    chosen = experiment.run.config
    tracelet.stop_logging()

    assert (chosen.project_name, chosen.run_name) == ("p", "x")
    assert (chosen.track_system_metrics, chosen.track_git, chosen.track_output) == (False, False, "off")
    assert recorded("x").row.project == "p"


def test_configure_is_what_experiments_begin_with(calm: dict[str, Any]) -> None:
    tracelet.configure({"project": "configured", "backend": []})
    one = tracelet.start_logging("a", config=calm).run.config.project_name
    two = tracelet.start_logging("b", project="argument", config=calm).run.config.project_name

    assert (one, two) == ("configured", "argument")


FLAGS = [
    ("track_system", "track_system_metrics", True, False),
    ("track_git", "track_git", True, False),
    ("track_env", "track_environment", True, False),
    ("track_args", "track_arguments", True, False),
    ("track_stdout", "track_output", "wrap", "off"),
    ("track_checkpoints", "track_checkpoints", True, False),
]


@pytest.mark.parametrize(("flag", "setting", "on", "off"), FLAGS, ids=[row[0] for row in FLAGS])
def test_a_flag_reaches_the_run_both_ways(
    flag: str, setting: str, on: object, off: object, calm: dict[str, Any]
) -> None:
    found = []
    for value in (True, False):
        found.append(getattr(tracelet.start_logging("f", config={**calm, flag: value}).run.config, setting))
        tracelet.stop_logging()

    assert found == [on, off]


def test_an_experiment_keeps_what_is_printed_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, calm: dict[str, Any]
) -> None:
    del calm["track_stdout"]

    def chosen() -> str:
        mode: str = tracelet.start_logging("f", config=calm).run.config.track_output
        tracelet.stop_logging()
        return mode

    assert chosen() == "wrap"
    monkeypatch.setenv("TRACER_TRACK_OUTPUT", "fd")
    assert chosen() == "fd"
    monkeypatch.setenv("TRACELET_TRACK_STDOUT", "0")
    assert chosen() == "off"


def test_a_flag_that_changes_nothing_says_so(calm: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    tracelet.start_logging("f", config={**calm, "track_gpu": False})

    assert "track_gpu=False changes nothing yet" in capsys.readouterr().err


def test_the_interval_and_the_folders_reach_the_run(calm: dict[str, Any]) -> None:
    settings = {**calm, "metrics_interval": 5.0, "artifact_watch_dirs": ["out"]}
    config = tracelet.start_logging("i", config=settings).run.config

    assert (config.system_interval_s, config.artifact_folders) == (5.0, ["out"])


def test_the_environment_reaches_the_run(monkeypatch: pytest.MonkeyPatch, calm: dict[str, Any], recorded: Any) -> None:
    monkeypatch.setenv("TRACELET_PROJECT", "container")
    monkeypatch.setenv("TRACELET_EXPERIMENT_NAME", "job-7")

    with tracelet.start_logging(config=calm):
        pass

    assert (recorded().row.project, recorded().row.name) == ("container", "job-7")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"config": {"track_gitt": True}}, "Did you mean 'track_git'?"),
        ({"config": {"checkpoint_intervall": 5}}, "Did you mean"),
        ({"config": 5}, "config=5 is a int"),
        ({"backend": "mlfow"}, "backend='mlfow' is not a known back end. Did you mean 'mlflow'?"),
        ({"backend": "mlflow,wandbb"}, "Did you mean 'wandb'?"),
        ({"config": {"automagic_frameworks": ["pytroch"]}}, "Did you mean 'pytorch'?"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_begins(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        tracelet.start_logging("never", **wrong)

    assert said in str(refused.value)
    assert (tracelet.get_active_experiment(), tracer._state.is_initialized) == (None, False)


def test_unknown_fields_of_a_config_are_refused() -> None:
    with pytest.raises(TypeError, match="track_gitt"):
        ExperimentConfig(track_gitt=True)  # type: ignore[call-arg]  # that is the point


def test_a_missing_client_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aim", None)  # what Python itself makes of a package that cannot be imported

    with pytest.raises(ImportError, match=r"The back end Aim needs the aim package, which is not installed. pip inst"):
        tracelet.start_logging("never", backend="aim")


def test_everything_that_was_given_arrives_at_the_back_end(calm: dict[str, Any], recorded: Any) -> None:
    told = {"backend_options": {"csv": {"path": "copy"}}}
    with tracelet.start_logging("x", "p", backend="csv", config={**calm, **told}) as experiment:
        experiment.log_params({"lr": 0.5})
        experiment.add_tag("good")
        for step in range(200):
            experiment.log_metric("loss", step / 4, step)
        assert experiment.get_active_backends() == ["csv"]

    assert recorded().lanes() == {"csv": "complete"}
    assert recorded().lane("csv")["options"]["path"] == "copy"
    folder = Path(recorded().lane("csv")["remote"]["folder"])
    assert folder == Path.cwd() / "copy" / "p" / "x"
    with (folder / "points.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["name"] == "loss"]
    assert [(int(row["step"]), float(row["value"])) for row in rows] == [(step, step / 4) for step in range(200)]
    about = json.loads((folder / "run.json").read_text())
    assert (about["project"], about["name"], about["params"]["lr"], about["tags"]) == ("p", "x", 0.5, ["good"])


def test_keys_and_passwords_are_kept_nowhere(calm: dict[str, Any], recorded: Any) -> None:
    told = {"mlflow_tracking_uri": "http://me:hush@127.0.0.1:9", "backend_options": {"mlflow": {"run_name": "r"}}}
    with tracelet.start_logging("x", backend="mlflow", api_key="hush", config={**calm, **told, "finish_timeout_s": 0}):
        pass

    options = recorded().lane("mlflow")["options"]
    assert options["run_name"] == "r"
    kept = [path for path in Path(".tracer").rglob("*") if path.is_file() and b"hush" in path.read_bytes()]
    assert kept == []


OPTIONS = {
    "mlflow": "experiment_name run_name tracking_uri",
    "wandb": "project_name experiment_name entity tags job_type disable_stats quiet",
    "clearml": "project_name task_name task_type tags auto_connect_arg_parser auto_connect_frameworks",
    "aim": "experiment_name run_name tags remote_uri repo_path",
}


@pytest.mark.parametrize("name", OPTIONS)
def test_a_back_end_takes_its_options_and_no_other(name: str) -> None:
    from tracer.experiment.options import gather

    given = dict.fromkeys(OPTIONS[name].split(), "x")

    assert gather({}, {"backend_options": {name: given}}).for_backends()[name] == given
    with pytest.raises(ConfigurationError, match=f"has no option '{OPTIONS[name].split()[0]}x'. Did you mean"):
        gather({}, {"backend_options": {name: {OPTIONS[name].split()[0] + "x": 1}}}).for_backends()


def test_settings_that_are_passed_keep_their_own_back_end_and_none_is_asked_for_without() -> None:
    assert Experiment("a", config=None).backend == []
    assert Experiment("b", config=TraceletSettings()).backend == ["mlflow"]  # type: ignore[arg-type]  # a third form


def test_metrics_of_a_router_are_recorded_by_their_type(calm: dict[str, Any], recorded: Any) -> None:
    with tracelet.start_logging("emitted", config=calm) as experiment:
        experiment.emit_metric(MetricData("loss", 0.5, MetricType.SCALAR, 0))
        experiment.emit_metric(MetricData("lr", 0.1, MetricType.PARAMETER))
        experiment.emit_metric(MetricData("note", "warm", MetricType.TEXT, 3))
        with pytest.raises(TypeError, match="cannot be emitted as a value"):
            experiment.emit_metric(MetricData("picture", b"", MetricType.IMAGE))
        assert experiment.get_source_id() == "experiment.emitted"

    assert (recorded().series("loss"), recorded().facts["config"]) == ({0: 0.5}, {"lr": 0.1})


def test_start_and_stop_many_times_leave_nothing_behind(calm: dict[str, Any]) -> None:
    import threading

    from tracer.capture.frameworks import FRAMEWORKS
    from tracer.capture.patching import patches

    before = set(threading.enumerate())
    for number in range(20):
        with tracelet.start_logging(f"r{number}", config=calm) as experiment:
            experiment.log_metric("n", number, number)

    assert not any(patches.is_on(name) for name in FRAMEWORKS)
    left = [thread.name for thread in threading.enumerate() if thread not in before]
    assert [name for name in left if name.startswith(("tracer-lane", "tracer-coll"))] == []


def test_stop_returns_within_a_second(calm: dict[str, Any]) -> None:
    took = []
    for _ in range(3):  # the machine may be busy; the promise is ours
        experiment = tracelet.start_logging("quick", config=calm)
        for step in range(1000):
            experiment.log_metric("loss", step, step)
        began = time.monotonic()
        tracelet.stop_logging()
        took.append(time.monotonic() - began)

    assert min(took) < 1.0
