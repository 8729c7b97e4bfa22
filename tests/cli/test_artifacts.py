"""What runs kept, on the command line: `tracer artifacts`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import CALMLY

import tracer

#: Runs a command; see conftest.py.
Ask = Callable[..., Any]


@pytest.fixture(autouse=True)
def _runs() -> None:
    """Two versions of a folder and of a file of tensors; the second run uses what the first made."""
    calm: Any = {**CALMLY, "track_code": False, "track_arguments": False}
    Path("data").mkdir()
    Path("data/a.txt").write_text("a")
    with tracer.init(project="gpt", run_name="first", **calm) as run:
        run.log_artifact("data", metadata={"rows": 1})
        run.log_artifact({"w": np.zeros(3, np.float32), "b": np.zeros(1)}, name="model", aliases=["best"])
    Path("data/b.txt").write_text("bb")
    with tracer.init(project="gpt", run_name="second", **calm) as run:
        run.use_artifact("model:best")
        run.log_artifact("data", metadata={"rows": 2})
        run.log_artifact({"w": np.array([0, 0.5, 0], np.float32), "b": np.zeros(1)}, name="model")


def test_the_list_names_versions_with_their_aliases(ask: Ask) -> None:
    answer = ask("artifacts", "list")

    rows = [line.split()[:4] for line in answer.lines]
    assert answer.code == 0
    assert rows == [
        ["artifact", "version", "aliases", "type"],
        ["data", "v0", "-", "folder"],
        ["data", "v1", "latest", "folder"],
        ["model", "v0", "best", "weights"],
        ["model", "v1", "latest", "weights"],
    ]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), ["data:v0", "data:v1", "model:v0", "model:v1"]),
        (("first",), ["data:v0", "model:v0"]),
        (("second", "--used"), ["model:v0"]),
        (("--project", "other"), []),
        (("--name", "model"), ["model:v0", "model:v1"]),
        (("--type", "folder"), ["data:v0", "data:v1"]),
    ],
)
def test_the_list_is_filtered(ask: Ask, arguments: tuple[str, ...], wanted: list[str]) -> None:
    found = ask("artifacts", "list", *arguments, "--json").json["artifacts"]

    assert [one["reference"] for one in found] == wanted


def test_one_version_is_shown_with_its_files_and_users(ask: Ask) -> None:
    shown = ask("artifacts", "show", "model:best")
    found = ask("artifacts", "show", "data", "--json").json["artifact"]

    assert "used by  second" in shown.out
    assert "model.safetensors" in shown.out
    assert ([one["path"] for one in found["files"]], found["metadata"]) == (["a.txt", "b.txt"], {"rows": 2})


def test_files_are_fetched_and_never_replaced_unasked(ask: Ask) -> None:
    assert ask("artifacts", "get", "data:v1", "--to", "out").out == "data:v1: 3 B in out\n"
    assert Path("out/b.txt").read_text() == "bb"
    Path("out/b.txt").write_text("mine")

    refused = ask("artifacts", "get", "data:v1", "--to", "out")
    assert refused.code == 2
    assert "Replace 'a.txt' and 1 more in 'out'? There is no terminal to answer on. Say so with --yes." in refused.err
    assert Path("out/b.txt").read_text() == "mine"
    assert ask("artifacts", "get", "data:v1", "--to", "out", "--yes", "--json").json["path"].endswith("/out")
    assert Path("out/b.txt").read_text() == "bb"


def test_a_difference_names_files_tensors_and_metadata(ask: Ask) -> None:
    files, tensors = ask("artifacts", "diff", "data:v0", "data:v1"), ask("artifacts", "diff", "model:v0", "model:v1")

    assert files.code == tensors.code == 1
    assert "added    b.txt (2 B)" in files.lines
    assert "1 files are the same." in files.lines
    assert ["w", "values", "F32[3]", "F32[3]", "0.5", "1", "of", "3"] in [line.split() for line in tensors.lines]
    assert "1 tensors are the same." in tensors.lines
    assert ask("artifacts", "diff", "data:v0", "data:v0").code == 0
    found = ask("artifacts", "diff", "model:v0", "model:v1", "--json").json["difference"]
    assert found["files"][0]["tensors"][0]["max_abs_difference"] == 0.5


def test_damage_is_found_and_told_by_the_exit_code(ask: Ask) -> None:
    assert ask("artifacts", "verify").out == "4 artifacts, 284 B: every file has its SHA-256.\n"
    digest = next(one for one in ask("artifacts", "show", "data:v1", "--json").json["artifact"]["files"])["digest"]
    for path in Path(".tracer/runs").glob(f"*/artifacts/{digest}"):
        path.unlink()

    answer = ask("artifacts", "verify", "--json")
    assert answer.code == 1
    assert [one["artifact"] for one in answer.json["problems"]] == ["data:v0", "data:v1"]
    assert ask("artifacts", "verify", "model").code == 0
    assert ask("fsck").code == 1


@pytest.mark.parametrize("command", ["show", "get"])
def test_an_artifact_that_is_not_there_is_an_error_that_names_near_ones(ask: Ask, command: str) -> None:
    answer = ask("artifacts", command, "modle")

    assert (answer.code, answer.err) == (2, "tracer: There is no artifact 'modle'. Near: model.\n")


def test_a_name_with_control_characters_is_shown_without_them(ask: Ask) -> None:
    import json

    path = next(Path(".tracer/runs").glob("*/artifacts/index/*.json"))
    other = path.with_suffix(".new")
    other.write_text(json.dumps(json.loads(path.read_text()) | {"name": "evil\x1b[31m"}))
    other.replace(path)

    assert "\x1b[31m" not in ask("artifacts", "list").out


def test_the_page_of_a_run_names_what_it_made_used_and_logged_to_look_at(ask: Ask) -> None:
    calm: Any = {**CALMLY, "track_code": False, "track_arguments": False}
    with tracer.init(project="gpt", run_name="third", **calm) as run:
        run.use_artifact("model")
        run.log_artifact(b"x", name="note.txt")
        run.log_media("sample", "text", step=3)

    shown = [line.split() for line in ask("show", "third").lines]
    assert ["note.txt:v0", "made", "file", "1", "B"] in shown
    assert ["model:v1", "used", "weights"] in [line[:3] for line in shown]
    assert ["sample", "text", "1", "3-3"] in shown
    found = ask("show", "third", "--json").json["run"]
    assert [one["artifact"] for one in found["artifacts"]] == ["note.txt:v0"]
    assert [one["artifact"] for one in found["used_artifacts"]] == ["model:v1"]
    assert found["media"] == [{"name": "sample", "kind": "text", "count": 1, "first_step": 3, "last_step": 3}]
