"""`tracer settings`: what a new run would get, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Ask


def test_each_value_names_where_it_comes_from(ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tracer.yaml").write_text("checkpoint_interval: 50\n", encoding="utf-8")
    monkeypatch.setenv("TRACELET_PROJECT", "gpt")

    found = {one["name"]: (one["value"], one["source"]) for one in ask("settings", "--json").json["settings"]}

    assert found["checkpoint_interval"] == (50, "tracer.yaml")
    assert found["project_name"] == ("gpt", "TRACELET_PROJECT")
    assert found["durability"] == ("interval", "default")


def test_one_setting_is_found_by_a_part_of_its_name(ask: Ask) -> None:
    assert ask("settings", "overhead").text[1].split()[:3] == ["max_overhead", "0.01", "default"]


def test_a_name_that_no_setting_bears_is_refused(ask: Ask) -> None:
    answer = ask("settings", "nosuch")

    assert (answer.code, answer.out) == (2, "")
    assert "No setting has 'nosuch' in its name. `tracer settings` lists them all." in answer.err
