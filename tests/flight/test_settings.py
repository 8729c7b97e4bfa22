"""The recorder's settings, wherever they are written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tracer.flight.settings import FlightConfig

pytestmark = pytest.mark.torch


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("ring", 0, "a whole number from 1 to 1,000"),
        ("ring", 2.5, "a whole number from 1 to 1,000"),
        ("ring", True, "a whole number from 1 to 1,000"),
        ("check", "never", "one of 'auto', 'sync', 'delayed'"),
        ("snapshots", "often", "'off', 'auto', or a whole number of at least 1"),
        ("host_memory_share", 1.5, "a number from 0 to 1"),
        ("stall_s", 0, "'auto', 'off', or a number of at least 1"),
        ("on_anomaly", "explode", "a function that returns one of them"),
        ("signal", "SIGNAL", "the name of a signal such as 'SIGUSR1', or 'off'"),
        ("guard", "perhaps", "yes or no"),
    ],
)
def test_a_value_out_of_range_is_refused_with_what_is_accepted(name: str, value: object, wanted: str) -> None:
    settings: dict[str, Any] = {name: value}

    with pytest.raises(ValueError, match="is not accepted") as raised:
        FlightConfig(**settings)

    assert f"{name}={value!r}" in str(raised.value)
    assert wanted in str(raised.value)


def test_the_argument_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("project: gpt\nflight:\n  ring: 2\n  check: sync\n  stall_s: off\n", encoding="utf-8")
    environ = {"TRACER_CONFIG": str(file), "TRACER_FLIGHT_RING": "3", "TRACER_FLIGHT_SNAPSHOTS": "50"}

    config = FlightConfig.load({"check": "delayed"}, environ)

    assert (config.ring, config.check, config.stall_s, config.snapshots) == (3, "delayed", "off", 50)


def test_a_wrong_value_outside_the_program_is_told_and_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("flight:\n  rings: 2\n", encoding="utf-8")

    config = FlightConfig.load({}, {"TRACER_CONFIG": str(file), "TRACER_FLIGHT_RING": "many"})

    assert config == FlightConfig()
    said = capsys.readouterr().err
    assert "TRACER_FLIGHT_RING='many' is not accepted" in said
    assert "'rings' is not a setting of the flight recorder" in said


def test_the_whole_section_can_be_off(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("flight: off\n", encoding="utf-8")

    assert FlightConfig.load({}, {"TRACER_CONFIG": str(file)}).enabled is False


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(ValueError, match="'rings' is not a setting of the flight recorder"):
        FlightConfig.load({"rings": 3}, {})
