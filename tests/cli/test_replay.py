"""`tracer replay` in a process of its own: what it prints, and how it ends."""

from __future__ import annotations

import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from replay_programs import capsule_from, in_a_store, watched_run

Ask = Callable[..., Any]
pytestmark = pytest.mark.torch


def test_a_healthy_step_is_bit_exact(ask: Ask) -> None:
    path = capsule_from("plain")

    answer = ask("replay", path)

    assert answer.code == 0, answer.err
    assert "bit-exact, 4/4 gradients" in answer.lines
    assert "what   manual at step 2" in answer.text
    assert "running step 2 twice" in answer.err


def test_a_drift_is_an_exit_code_and_names_the_place(ask: Ask) -> None:
    path = capsule_from("penalty")

    answer = ask("replay", path)

    assert answer.code == 1
    assert any(line.startswith("drift at first (gradient first.weight), 3/4 gradients") for line in answer.lines)


def test_json_is_one_document(ask: Ask) -> None:
    path = capsule_from("nan")

    answer = ask("replay", path, "--origin", "--watch", "second", "--json", "--what-if", "drop-samples=1")

    assert (answer.code, answer.err) == (0, "")
    assert answer.json["version"] == 1
    assert (answer.json["kind"], answer.json["step"], answer.json["value"]) == ("nan_or_inf", 2, "NaN")
    assert answer.json["replay"]["exact"] is True
    assert answer.json["replay"]["reproduced"] is True
    assert answer.json["origin"]["op"] == "aten.log.default"
    assert answer.json["origin"]["samples"] == [1]
    assert answer.json["probes"]["steps"][0]["outputs"]["nonfinite"] == 1
    assert answer.json["what_if"]["outcomes"][0]["vanishes"] is True


def test_the_origin_is_shown_with_its_source(ask: Ask) -> None:
    answer = ask("replay", capsule_from("nan"), "--origin")

    assert answer.code == 0
    assert "operation  aten.log.default (forward, nan)" in answer.text
    assert any(line.startswith("→") and "torch.log" in line for line in answer.text)


def test_what_if_alone_tries_what_makes_sense(ask: Ask) -> None:
    answer = ask("replay", capsule_from("nan"), "--what-if")

    table = answer.text[answer.text.index("What if") + 1 :]
    assert table[1].startswith("drop-samples=1  gone")


def test_time_travel_prints_probes_of_each_step(ask: Ask) -> None:
    answer = ask("replay", capsule_from("steps"), "--from", "-3", "--watch", "second")

    assert answer.code == 0, answer.err
    rows = answer.text[answer.text.index("Watching second") + 2 :]
    assert [row.split()[0] for row in rows[:4]] == ["3", "4", "5", "6"]
    assert "After 3 steps all parameters are bit for bit those of the capsule." in answer.text


class _Page(HTMLParser):
    """What a page loads, and its tags that were not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "path", "circle"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if self.open and self.open[-1] == tag:
            self.open.pop()


def test_a_report_is_one_page_that_loads_nothing(ask: Ask, tmp_path: Path) -> None:
    answer = ask("replay", capsule_from("nan"), "--html", str(tmp_path / "out.html"), "--what-if")
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)

    assert answer.code == 0, answer.err
    assert (page.loads, page.open) == ([], [])
    assert "<script" not in text
    assert "prefers-color-scheme:dark" in text
    assert "aten.log.default" in text
    assert "drop-samples=1" in text
    assert text.count("<svg") >= 1


def test_a_run_and_a_step_mean_its_capsule(ask: Ask) -> None:
    name = in_a_store("twice")

    exact = ask("replay", name, "--step", "1")
    several = ask("replay", name)
    none = ask("replay", name, "--step", "77")

    assert exact.code == 0, exact.err
    assert (several.code, none.code) == (2, 2)
    assert "has 2 capsules; say which with --step: step-1-manual.trc, step-2-manual.trc." in several.err
    assert "has no capsule of step 77" in none.err


def test_a_stranger_s_capsule_needs_an_entry_or_trust(ask: Ask, tmp_path: Path) -> None:
    path = capsule_from("plain")
    stranger = {"XDG_STATE_HOME": str(tmp_path / "another"), "PYTHONPATH": ""}

    refused = ask("replay", path, env=stranger)
    built = ask("replay", path, "--entry", f"{path.rpartition('/')[0]}/train.py:build", env=stranger)
    trusted = ask("replay", path, "--trust", env=stranger)

    assert (refused.code, built.code, trusted.code) == (3, 0, 0), (built.err, trusted.err)
    assert "Three ways lead to it:" in refused.err
    assert "--trust" in refused.err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("missing.trc",), 3, "There is no capsule 'missing.trc'"),
        (("nothing",), 3, ""),
        (("made.trc",), 3, "is no capsule or was cut off"),
        (("made.trc", "--what-if", "dtype"), 2, "is not of the form CHANGE=VALUE"),
        (("made.trc", "--threads", "0"), 2, "--threads"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(ask: Ask, arguments: tuple[str, ...], code: int, said: str) -> None:
    Path("made.trc").write_text("not a ZIP")

    answer = ask("replay", *arguments)

    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err
    assert "Traceback" not in answer.err


def test_changes_and_modules_that_are_not_there_are_mistakes(ask: Ask) -> None:
    path = capsule_from("plain")

    change = ask("replay", path, "--what-if", "colour=red")
    module = ask("replay", path, "--watch", "secnd")
    steps = ask("replay", path, "--from", "-2")

    assert (change.code, module.code, steps.code) == (2, 2, 2)
    assert "There is no change 'colour'" in change.err
    assert "Did you mean 'second'?" in module.err
    assert "has no snapshot" in steps.err


def test_the_debugger_stops_where_the_fault_is_born(ask: Ask) -> None:
    answer = ask("replay", capsule_from("nan"), "--pdb", stdin="p x.shape\nq\n")

    assert "stopping at" in answer.err
    assert "torch.log" in answer.out
    assert "torch.Size([3, 4])" in answer.out


def test_help_says_what_the_exit_codes_mean(ask: Ask) -> None:
    answer = ask("replay", "--help")

    assert answer.code == 0
    assert "The exit code is 0 when the replay is" in answer.out


def test_a_watched_run_leaves_a_capsule_that_is_replayed_by_its_name(ask: Ask) -> None:
    path = watched_run()

    answer = ask("replay", "watched", "--origin")

    assert path.startswith(".tracer/runs/")
    assert answer.code == 0, answer.err
    assert "bit-exact, 4/4 gradients" in answer.text[6]
    assert "samples    1" in answer.text
