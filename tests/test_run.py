"""A run from its first line to its last, as a program sees it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from journals import only_run, points, rows, runs, said
from programs import CALMLY, run

import tracer
from tracer import Config, Run, journal, runfile
from tracer.errors import RunNotFound, UsageError
from tracer.storage import Store


def checkpoints(folder: Path) -> list[tuple[int, dict[str, object]]]:
    """Return step and values of each checkpoint."""
    return [(found.step, found.content["values"]) for found in said(folder, journal.Kind.CHECKPOINT)]


def test_the_shortest_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracer.init(project="short", run_name="first", track_system_metrics=False, track_git=False, track_environment=False)
    for step in range(3):
        tracer.log({"loss": 1 / (step + 1)})
        tracer.step()
    assert tracer.get_step() == 3
    uid = tracer.get_run_id()
    tracer.finish()

    folder = only_run(tmp_path / ".tracer")
    facts = runfile.read(str(folder))
    assert points(folder) == [("loss", 0, 1.0), ("loss", 1, 0.5), ("loss", 2, 1 / 3)]
    assert (facts["id"], facts["project"], facts["name"], facts["status"], facts["steps"]) == (
        uid, "short", "first", "completed", 3,
    )  # fmt: skip
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "tracer: recording 'first' (project 'short') in .tracer"
    assert re.fullmatch(r"tracer: 'first' completed after 3 steps, \d+\.\d s", lines[1])
    assert re.fullmatch(r"tracer: recording took [\d.e-]+ s", lines[2])
    assert lines[3:] == ["tracer: see it with `tracer show first`"]


@pytest.mark.parametrize("call", ["log({'loss': 1.0})", "step()", "finish()", "get_run_id()", "watch(None)"])
def test_before_init_there_is_nothing_to_call(call: str) -> None:
    with pytest.raises(RuntimeError, match=r"not initialized. Call tracer.init\(\) first"):
        eval(f"tracer.{call}")  # noqa: S307 (the calls stand above)


def test_before_init_the_step_is_zero_and_the_state_says_so() -> None:
    assert tracer.get_step() == 0
    assert (tracer._state.is_initialized, tracer._state.run_id, tracer._state.step_count) == (False, None, 0)


def test_the_documents_names_work() -> None:
    with tracer.init(project="names", **CALMLY) as run_:
        assert isinstance(run_, tracer.TrainingTracer)
        assert tracer.TrainingTracer is Run
        assert tracer._state.tracer is run_
        assert tracer._state.config is run_.config
        tracer.log({"loss": 0.5, "word": "x"})
        assert run_.metric_buffer == {"loss": 0.5, "word": "x"}
        tracer.step()
        assert (run_.step_count, run_.checkpoint_count, run_.id) == (1, 0, run_.run_id)
        assert run_.write_queue is None
        assert repr(run_) == f"<Run {run_.name!r} of project 'names', step 1>"
    assert tracer._state.tracer is None


def test_a_whole_config_may_be_given(tmp_path: Path) -> None:
    config = Config(project_name="whole", checkpoint_interval=2, storage_path=tmp_path / "there", **CALMLY)

    with tracer.init(config=config) as run_:
        assert run_.config is config

    assert runfile.read(run_.folder)["project"] == "whole"
    assert runs(tmp_path / "there") == [Path(run_.folder)]


def test_what_is_known_of_a_run_is_kept(tmp_path: Path) -> None:
    with tracer.init(
        project="known", config={"lr": 3e-4, "model": {"layers": 6}}, tags=["a"], notes="why", group="sweep",
        job_type="train", custom_metrics={"acc": {"goal": "max", "unit": "%"}}, retention_days=3, **CALMLY,
    ):  # fmt: skip
        pass

    facts = runfile.read(str(only_run(tmp_path / ".tracer")))
    assert facts["config"] == {"lr": 3e-4, "model": {"layers": 6}}
    assert (facts["tags"], facts["notes"], facts["group"], facts["job_type"]) == (["a"], "why", "sweep", "train")
    assert (facts["goals"], facts["units"]) == ({"acc": "max"}, {"acc": "%"})
    assert facts["expires"] - facts["started"] == pytest.approx(3 * 86_400_000_000, abs=5_000_000)
    assert facts["settings"]["project_name"] == "known"


def test_by_default_nothing_expires(tmp_path: Path) -> None:
    with tracer.init(project="known", **CALMLY):
        pass

    assert runfile.read(str(only_run(tmp_path / ".tracer")))["expires"] is None


def test_a_checkpoint_holds_what_is_current_at_its_step(tmp_path: Path) -> None:
    with tracer.init(project="checkpoints", checkpoint_interval=2, **CALMLY) as run_:
        for step in range(5):
            run_.log({"loss": float(step), "word": f"at {step}"})
            if step == 0:
                run_.log({"once": 1.0})
            run_.step()
        assert run_.checkpoint_count == 2

    assert checkpoints(only_run(tmp_path / ".tracer")) == [
        (2, {"loss": 1.0, "word": "at 1", "once": 1.0}),
        (4, {"loss": 3.0, "word": "at 3"}),
        (5, {"loss": 4.0, "word": "at 4"}),
    ]
    assert runfile.read(run_.folder)["checkpoints"] == 3


def test_the_last_checkpoint_is_not_doubled(tmp_path: Path) -> None:
    with tracer.init(project="checkpoints", checkpoint_interval=2, **CALMLY) as run_:
        for _ in range(4):
            run_.log({"loss": 1.0})
            run_.step()

    assert [step for step, _ in checkpoints(only_run(tmp_path / ".tracer"))] == [2, 4]


def test_a_checkpoint_remembers_across_segments(tmp_path: Path) -> None:
    """What was logged long before in another segment is still current."""
    with tracer.init(project="checkpoints", **CALMLY) as run_:
        run_.log({"once": 1.0})
        for step in range(60_000):
            run_.log({"loss": float(step)}, step=step)
        run_.checkpoint()

    assert checkpoints(only_run(tmp_path / ".tracer"))[0][1] == {"once": 1.0, "loss": 59_999.0}


def test_metric_functions_are_called_at_checkpoints(tmp_path: Path) -> None:
    values = iter(range(10))

    with tracer.init(
        project="functions", checkpoint_interval=2, custom_metrics={"sensor": lambda: float(next(values))}, **CALMLY
    ) as run_:
        for _ in range(4):
            run_.log({"loss": 1.0})
            run_.step()

    found = [(step, value) for name, step, value in points(only_run(tmp_path / ".tracer")) if name == "sensor"]
    assert found == [(2, 0.0), (4, 1.0)]
    assert checkpoints(only_run(tmp_path / ".tracer"))[0][1] == {"loss": 1.0, "sensor": 0.0}


def test_a_resumed_run_goes_on_where_it_ended(tmp_path: Path) -> None:
    with tracer.init(project="resume", run_name="long", config={"lr": 0.1}, **CALMLY) as first:
        for _ in range(3):
            first.log({"loss": 1.0})
            first.step()
    with tracer.init(project="resume", resume="long", config={"lr": 0.2, "more": 1}, **CALMLY) as again:
        assert (again.run_id, again.step_count, again.name) == (first.run_id, 3, "long")
        again.log({"loss": 2.0})
        again.step()

    folder = only_run(tmp_path / ".tracer")
    facts = runfile.read(str(folder))
    assert sorted(points(folder)) == [("loss", 0, 1.0), ("loss", 1, 1.0), ("loss", 2, 1.0), ("loss", 3, 2.0)]
    assert (facts["status"], facts["steps"], facts["attempt"]) == ("completed", 4, 2)
    assert facts["config"] == {"lr": 0.2, "more": 1}


def test_resuming_by_id_and_by_true(tmp_path: Path) -> None:
    with tracer.init(project="resume", run_name="again", resume=True, **CALMLY) as first:
        first.log({"loss": 1.0})
    with tracer.init(project="resume", resume=first.run_id, **CALMLY) as second:
        assert second.run_id == first.run_id
    with tracer.init(project="resume", run_name="again", resume=True, **CALMLY) as third:
        assert third.run_id == first.run_id

    assert len(runs(tmp_path / ".tracer")) == 1


def test_what_cannot_be_resumed_is_said() -> None:
    with pytest.raises(UsageError, match="needs run_name"):
        tracer.init(project="resume", resume=True, **CALMLY)
    with tracer.init(project="resume", run_name="other", **CALMLY) as other:
        with pytest.raises(RunNotFound, match="absent"):
            tracer.init(project="resume", resume="absent", **CALMLY)
        assert tracer._state.tracer is other  # a refused call changes nothing


def test_a_run_that_another_process_writes_cannot_be_resumed(tmp_path: Path) -> None:
    with tracer.init(project="resume", run_name="busy", **CALMLY):
        done = run("import tracer; tracer.init(project='resume', resume='busy')", code=1)

    assert "is still running (process" in done.stderr
    assert len(runs(tmp_path / ".tracer")) == 1


def test_an_init_that_fails_has_ended_the_run_before_whole(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    tracer.init(project="keep", **CALMLY)
    tracer.log({"loss": 1.0})

    with pytest.raises(tracer.TracerError):
        tracer.init(project="other", storage_path=tmp_path / "file", **CALMLY)

    assert tracer._state.tracer is None
    folder = only_run(tmp_path / ".tracer")
    assert points(folder) == [("loss", 0, 1.0)]
    assert runfile.read(str(folder))["status"] == "completed"


def test_runs_of_one_name_are_two_runs(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        with tracer.init(project="same", run_name="same", **CALMLY):
            tracer.log({"loss": value})

    assert sorted(points(folder)[0][2] for folder in runs(tmp_path / ".tracer")) == [1.0, 2.0]


def test_a_quick_run_knows_its_surroundings(tmp_path: Path) -> None:
    """Reading them takes longer than the run: the end waits a moment."""
    with tracer.init(project="quick", quiet=True, track_system_metrics=False):
        tracer.log({"loss": 1.0})

    facts = runfile.read(str(only_run(tmp_path / ".tracer")))
    assert facts["environment"]
    assert said(only_run(tmp_path / ".tracer"), journal.Kind.METADATA)


def test_the_store_reads_what_the_journal_says(tmp_path: Path) -> None:
    with tracer.init(project="store", run_name="mine", config={"lr": 0.1}, **CALMLY) as run_:
        for step in range(100):
            run_.log({"loss": 1 / (step + 1), "word": f"at {step}"})
            run_.step()

    with Store.open(tmp_path / ".tracer") as store:
        row = store.run("mine")
        series = store.series(row.uid, "loss")
    assert (row.status, row.steps, row.config, row.project) == ("completed", 100, {"lr": 0.1}, "store")
    assert list(zip(series.step.tolist(), series.value.tolist(), strict=True)) == [
        (found.step, found.values["loss"]) for found in rows(only_run(tmp_path / ".tracer"))
    ]
