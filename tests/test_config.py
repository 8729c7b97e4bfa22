"""Settings: argument, else environment, else file, else default; and each wrong one says where it came from."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import tracer
from tracer import Config
from tracer.config import SETTINGS
from tracer.errors import ConfigError


def test_every_setting_has_one_name_everywhere_and_a_sentence() -> None:
    assert len({row.name for row in SETTINGS}) == len(SETTINGS)
    assert len({name for row in SETTINGS for name in row.env}) == sum(len(row.env) for row in SETTINGS)
    assert [row.name for row in SETTINGS if not re.fullmatch(r"[A-Z`].*\.", row.help)] == []
    assert {row.name for row in SETTINGS} == set(Config().to_dict())


def test_defaults_are_what_the_table_says() -> None:
    config = Config()

    assert config.project_name == "default"
    assert config.storage_path == str(Path(".tracer").resolve())
    assert re.fullmatch(r"run_\d{8}_\d{6}_[\w-]+", config.run_name)
    assert {row.name: getattr(config, row.name) for row in SETTINGS if isinstance(row.default, (int, float))} == {
        row.name: row.default for row in SETTINGS if isinstance(row.default, (int, float))
    }
    assert (config.tags, config.custom_metrics, config.gradient_layers) == ([], {}, None)


def test_no_two_configs_share_a_default() -> None:
    Config().tags.append("x")
    Config().custom_metrics["x"] = 1

    assert (Config().tags, Config().custom_metrics) == ([], {})


def test_the_order_is_argument_environment_file_default(tmp_path: Path) -> None:
    file = tmp_path / "tracer.yaml"
    file.write_text("project: file\ncheckpoint_interval: 7\ntags: [a, b]\nnotes: from the file\n", encoding="utf-8")
    environ = {"TRACER_CHECKPOINT_INTERVAL": "8", "TRACELET_PROJECT": "environment", "TRACER_TAGS": "c, d"}

    config = Config.load({"tags": ["e"]}, environ)

    assert (config.project_name, config.checkpoint_interval) == ("environment", 8)
    assert (config.tags, config.notes, config.quiet) == (["e"], "from the file", False)
    assert Config.load({}, {}).project_name == "file"
    assert Config.load({"project": "argument"}, environ).project_name == "argument"
    assert Config.load({}, environ).tags == ["c", "d"]


def test_the_older_name_gives_way_to_the_newer() -> None:
    assert Config.load({}, {"TRACELET_PROJECT": "old", "TRACER_PROJECT": "new"}).project_name == "new"


def test_the_file_may_have_another_name_and_a_section(tmp_path: Path) -> None:
    file = tmp_path / "elsewhere.yml"
    file.write_text("tracer:\n  storage: there\nother: 3\n", encoding="utf-8")

    assert Config.load({}, {"TRACER_CONFIG": str(file)}).storage_path == str(Path("there").resolve())


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "tracer.yaml").write_text("# nothing yet\n", encoding="utf-8")

    assert Config.load({}, {}).project_name == "default"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("- a\n- b\n", "holds list"),
        ("project: [", "cannot be read"),
        ("\x00", "cannot be read"),
        ("checkpoint_interval: soon", r"tracer.yaml: checkpoint_interval='soon' is not a whole number"),
        ("checkpoint_intervall: 3", "Did you mean 'checkpoint_interval'"),
        ("project: !!python/object/apply:os.system ['true']", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused_by_name(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "tracer.yaml").write_text(content, encoding="utf-8")

    with pytest.raises(ConfigError, match=said) as caught:
        Config.load({}, {})
    assert "tracer.yaml" in str(caught.value) or "Did you mean" in str(caught.value)


def test_a_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent.yaml.*unset TRACER_CONFIG"):
        Config.load({}, {"TRACER_CONFIG": str(tmp_path / "absent.yaml")})


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"checkpoint_interval": 0}, "checkpoint_interval=0 is too small: at least 1"),
        ({"checkpoint_interval": 2.5}, "is not a whole number"),
        ({"checkpoint_interval": None}, "is not a whole number"),
        ({"retention_days": -1}, "too small"),
        ({"finish_timeout_s": "never"}, "is not a number"),
        ({"finish_timeout_s": float("nan")}, "too small"),
        ({"durability": "always"}, "Choose one of: interval, step, none"),
        ({"quiet": "maybe"}, "is not yes or no"),
        ({"tags": 3}, "is not a list of names"),
        ({"run_name": 3}, "is not text"),
        ({"custom_metrics": ["x"]}, "is not a dictionary"),
        ({"checkpoint_intervall": 3}, "Did you mean 'checkpoint_interval'"),
        ({"zzz": 3}, "tracer settings"),
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_meant_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said) if "(" in said else said):
        Config(**settings)  # type: ignore[arg-type]


def test_a_wrong_variable_is_named() -> None:
    with pytest.raises(ConfigError, match="TRACER_CHECKPOINT_INTERVAL='soon'"):
        Config.load({}, {"TRACER_CHECKPOINT_INTERVAL": "soon"})


@pytest.mark.parametrize(("text", "value"), [("1", True), ("Yes", True), ("off", False), ("", False), ("FALSE", False)])
def test_a_flag_is_read_as_people_write_it(text: str, *, value: bool) -> None:
    assert Config.load({}, {"TRACER_QUIET": text}).quiet is value


def test_settings_are_json_and_functions_are_named() -> None:
    config = Config(custom_metrics={"sensor": len, "acc": {"goal": "max"}}, tags=("a", "b"))

    said = json.loads(json.dumps(config.to_dict()))

    assert said["custom_metrics"] == {"sensor": "<function len>", "acc": {"goal": "max"}}
    assert said["tags"] == ["a", "b"]


def test_no_asynchronous_writes_means_a_sync_at_each_step() -> None:
    assert Config(async_writes=False).durability == "step"


def test_a_config_shows_what_was_given() -> None:
    assert repr(Config(project_name="gpt", quiet=True)) == "Config(project_name='gpt', quiet=True)"


def test_the_public_names_are_the_same_class() -> None:
    assert tracer.TracerConfig is tracer.Config is Config
