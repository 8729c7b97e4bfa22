"""`TraceletSettings`: where a value comes from, what it may be, and what is said when it may not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracelet import ConfigurationError
from tracelet.settings import TraceletSettings


def test_an_argument_wins_over_the_environment_and_that_over_env_file_and_file(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("tracelet.yaml").write_text("project: file\nexperiment_name: file\nbackend_url: file\nmetrics_interval: 3\n")
    Path(".env").write_text("TRACELET_PROJECT=dotenv\nTRACELET_EXPERIMENT_NAME=dotenv\nTRACELET_BACKEND_URL=dotenv\n")
    monkeypatch.setenv("TRACELET_PROJECT", "variable")
    monkeypatch.setenv("TRACELET_EXPERIMENT_NAME", "variable")

    settings = TraceletSettings(project="argument")

    assert (settings.project, settings.experiment_name) == ("argument", "variable")
    assert (settings.backend_url, settings.metrics_interval) == ("dotenv", 3.0)


def test_the_environment_is_left_as_it_was() -> None:
    Path(".env").write_text("TRACELET_PROJECT=dotenv\n")

    TraceletSettings()

    assert "TRACELET_PROJECT" not in os.environ


def test_an_env_file_is_read_as_the_shell_reads_it() -> None:
    Path("job.env").write_text(
        "# a comment\n\nexport TRACELET_PROJECT='a b'\nTRACELET_EXPERIMENT_NAME=\"x # y\"\n"
        "TRACELET_BACKEND=mlflow, wandb   # two\nTRACELET_API_KEY=\nOTHER=1\n"
    )

    settings = TraceletSettings(_env_file="job.env")

    assert (settings.project, settings.experiment_name) == ("a b", "x # y")
    assert (settings.backend, settings.api_key) == (["mlflow", "wandb"], None)


def test_a_json_file_is_read_and_one_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("tracelet.json").write_text('{"project": "json"}')
    Path("other.yaml").write_text("tracelet:\n  project_name: other\n")

    assert TraceletSettings().project == "json"
    monkeypatch.setenv("TRACELET_CONFIG", "other.yaml")
    assert TraceletSettings().project == "other"


@pytest.mark.parametrize("backend", ["mlflow,wandb", ["mlflow", "wandb"], ("mlflow", "wandb"), '["mlflow", "wandb"]'])
def test_back_ends_are_a_list_or_text_with_commas(backend: object) -> None:
    assert TraceletSettings(backend=backend).backend == ["mlflow", "wandb"]


def test_other_names_of_a_field_are_accepted() -> None:
    settings = TraceletSettings(project_name="p", track_system_metrics=False)

    assert (settings.project, settings.project_name) == ("p", "p")
    assert (settings.track_system, settings.track_system_metrics) == (False, False)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"projct": "x"}, "'projct' is not a setting (its value is 'x'). Did you mean 'project'?"),
        ({"track_gitt": True}, "Did you mean 'track_git'?"),
        ({"metrics_interval": "often"}, "metrics_interval='often' is not a number."),
        ({"metrics_interval": -1}, "metrics_interval=-1 is too small: at least 0.1 is needed."),
        ({"track_git": "maybe"}, "track_git='maybe' is not yes or no."),
    ],
)
def test_what_cannot_be_meant_is_refused_with_help(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        TraceletSettings(**wrong)  # type: ignore[arg-type]  # that is the point

    assert said in str(refused.value)
    assert isinstance(refused.value, ValueError)


def test_a_wrong_value_names_the_variable_or_file_it_came_from(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACELET_METRICS_INTERVAL", "often")
    with pytest.raises(ConfigurationError, match="TRACELET_METRICS_INTERVAL='often' is not a number"):
        TraceletSettings()
    monkeypatch.delenv("TRACELET_METRICS_INTERVAL")

    Path("tracelet.yaml").write_text("metrics_interval: often\n")
    with pytest.raises(ConfigurationError, match=r"tracelet.yaml: metrics_interval='often' is not a number"):
        TraceletSettings()

    Path("tracelet.yaml").write_text("metric_interval: 3\n")
    with pytest.raises(
        ConfigurationError,
        match=r"tracelet.yaml: 'metric_interval' is not a setting .* Did you mean 'metrics_interval'",
    ):
        TraceletSettings()


def test_a_misspelt_variable_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TRACELET_PROJCT", "x")

    TraceletSettings()

    said = "tracer: TRACELET_PROJCT is not a variable that is read. Did you mean TRACELET_PROJECT?\n"
    assert capsys.readouterr().err == said


def test_a_copy_has_what_is_changed_and_shares_nothing() -> None:
    settings = TraceletSettings(project="a", backend=["mlflow"])

    copy = settings.model_copy(update={"project": "b"})
    copy.backend.append("aim")

    assert (copy.project, settings.project, settings.backend) == ("b", "a", ["mlflow"])
    assert settings.copy() == settings
    assert settings.dict() == settings.model_dump() == dict(settings)
    assert TraceletSettings.from_dict(settings.model_dump()) == settings


def test_a_changed_field_is_checked() -> None:
    settings = TraceletSettings()
    settings.backend = "aim,clearml"

    assert settings.backend == ["aim", "clearml"]
    with pytest.raises(ConfigurationError, match="is not a number"):
        settings.metrics_interval = "x"
    with pytest.raises(ConfigurationError, match="Did you mean 'backend'"):
        settings.backnd = "aim"


def test_a_key_is_not_shown() -> None:
    assert "hush" not in repr(TraceletSettings(api_key="hush", wandb_api_key="hush"))


def test_pydantic_is_not_needed() -> None:
    program = "import sys; from tracelet.settings import TraceletSettings as T; T(); print('pydantic' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


def test_the_key_for_weights_and_biases_reaches_it_alone() -> None:
    from tracer.experiment.options import gather

    told = gather({}, settings=TraceletSettings(wandb_api_key="hush")).for_backends()

    assert told["wandb"] == {"api_key": "hush"}
    assert "hush" not in str({name: options for name, options in told.items() if name != "wandb"})
