"""What a program's parser found becomes parameters of its run, given values told from defaults."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from programs import CALM, run

ON = {"TRACER_CAPTURE": "tensorboard"}  # hooks are in place from the beginning of the run
LISTEN = """
import sys
from tracer.capture.patching import patches
patches.start(["arguments"])
from tracer import sink
heard = []
"""
TELL = """
import json
from tracer import events
def told(heard):
    parameters = [(e.origin, e.values) for e in heard if isinstance(e, events.Parameters)]
    changes = [e.changes["arguments"] for e in heard if isinstance(e, events.Metadata)]
    print(json.dumps([parameters, changes]))
sink.listen(heard.append)
"""


def told(program: str, *arguments: str) -> tuple[dict[str, object], dict[str, object], dict[str, object]]:
    """Return the parameters that a program's first parser found, those given, and the defaults."""
    done = run(LISTEN + TELL + program + "\ntold(heard)\n", *arguments)
    parameters, changes = json.loads(done.stdout.splitlines()[-1])
    values: dict[str, object] = {}
    for origin, found in parameters:
        values |= {**found, "origin": origin}
    return values, changes[-1]["given"], changes[-1]["defaults"]


def facts(program: str, *arguments: str, env: dict[str, str] | None = None) -> dict[str, object]:
    """Return what is known of the run that a program records."""
    run(program, *arguments, env={"TRACER_TRACK_ARGUMENTS": "1", **(env or {})})
    (path,) = Path(".tracer/runs").glob("*/run.json")
    found: dict[str, object] = json.loads(path.read_text())
    return found


ARGPARSE = """
import argparse, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--batch-size", type=int, default=8)
parser.add_argument("-e", "--epochs", type=int, default=1)
parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("x/y"))
parser.add_argument("data", nargs="?", default="here")
args = parser.parse_args()
"""


def test_argparse_is_heard_and_what_was_given_is_told_apart() -> None:
    values, given, defaults = told(ARGPARSE, "--lr=0.1", "-e3", "--batch", "16")

    assert values == {
        "lr": 0.1, "batch_size": 16, "epochs": 3, "out": "x/y", "data": "here", "origin": "argparse",
    }  # fmt: skip
    assert given == {"lr": 0.1, "batch_size": 16, "epochs": 3}  # given, although it is the default
    assert defaults == {"out": "x/y", "data": "here"}


def test_later_parsers_and_those_of_other_words_are_ignored() -> None:
    values, _, _ = told(
        """
import argparse
other = argparse.ArgumentParser(); other.add_argument("--tool"); other.parse_args(["--tool", "x"])
first = argparse.ArgumentParser(); first.add_argument("--lr", type=float)
first.parse_args()
second = argparse.ArgumentParser(); second.add_argument("--wd"); second.parse_known_args()
""",
        "--lr",
        "0.5",
    )

    assert values == {"lr": 0.5, "origin": "argparse"}


def test_a_parser_that_refuses_still_ends_the_program() -> None:
    run(LISTEN + "import argparse\nargparse.ArgumentParser().parse_args()\n", "--unknown", code=2)


def test_the_arguments_of_subcommands_belong_to_the_first_parser() -> None:
    values, given, _ = told(
        """
import argparse
parser = argparse.ArgumentParser(); parser.add_argument("--seed", type=int, default=0)
train = parser.add_subparsers(dest="what").add_parser("train"); train.add_argument("--lr", type=float, default=1.0)
parser.parse_args()
""",
        "train",
        "--lr",
        "0.5",
    )

    assert values == {"seed": 0, "what": "train", "lr": 0.5, "origin": "argparse"}
    assert given == {"what": "train", "lr": 0.5}


def test_data_classes_of_transformers_are_heard() -> None:
    pytest.importorskip("transformers")
    values, given, _ = told(
        """
from dataclasses import dataclass
from transformers import HfArgumentParser
@dataclass
class Model:
    width: int = 4
    depth: int = 2
HfArgumentParser(Model).parse_args_into_dataclasses()
""",
        "--width",
        "9",
    )

    assert values == {"width": 9, "depth": 2, "origin": "argparse"}
    assert given == {"width": 9}


@pytest.mark.parametrize("group", [False, True])
def test_click_is_heard(group: bool) -> None:  # noqa: FBT001 -- pytest's
    program = """
import click
@click.{kind}()
@click.option("--lr", default=0.1)
@click.option("--seed", default=7, envvar="SEED")
def main(lr, seed): pass
{more}
try: main()
except SystemExit: pass
"""
    more = '@main.command()\n@click.option("--wd", default=0.0)\ndef train(wd): pass' if group else ""
    arguments = ["--lr", "0.5", *(["train", "--wd", "0.2"] if group else [])]

    values, given, defaults = told(program.format(kind="group" if group else "command", more=more), *arguments)

    extra = {"wd": 0.2} if group else {}
    assert values == {"lr": 0.5, "seed": 7, **extra, "origin": "click"}
    assert (given, defaults) == ({"lr": 0.5, **extra}, {"seed": 7})


def test_typer_is_heard() -> None:
    values, given, _ = told(
        """
import typer
def main(lr: float = 0.1, name: str = "x"): pass
try: typer.run(main)
except SystemExit: pass
""",
        "--lr",
        "0.5",
    )

    assert values == {"lr": 0.5, "name": "x", "origin": "click"}
    assert given == {"lr": 0.5}


def test_fire_is_heard() -> None:
    values, given, defaults = told(
        """
import fire
def main(data, lr=0.1, steps=5): pass
fire.Fire(main)
""",
        "mnist",
        "--lr=0.5",
    )

    assert values == {"data": "mnist", "lr": 0.5, "steps": 5, "origin": "fire"}
    assert (given, defaults) == ({"data": "mnist", "lr": 0.5}, {"steps": 5})


def test_absl_is_heard() -> None:
    values, given, _ = told(
        """
from absl import app, flags
flags.DEFINE_float("lr", 0.1, "rate")
flags.DEFINE_integer("steps", 5, "steps")
try: app.run(lambda argv: None)
except SystemExit: pass
""",
        "--lr=0.5",
    )

    assert values == {"lr": 0.5, "steps": 5, "origin": "absl"}
    assert given == {"lr": 0.5}


HYDRA = """
import hydra
from dataclasses import dataclass, field
from hydra.core.config_store import ConfigStore
@dataclass
class Optim:
    lr: float = 0.1
@dataclass
class Settings:
    optim: Optim = field(default_factory=Optim)
    seed: int = 1
    name: str = "run-${seed}"
ConfigStore.instance().store(name="config", node=Settings)
@hydra.main(version_base=None, config_name="config")
def main(cfg):
    BODY
main()
"""


def test_hydra_is_heard_resolved() -> None:
    pytest.importorskip("hydra")
    values, given, defaults = told(HYDRA.replace("BODY", "pass"), "optim.lr=0.5")

    assert values == {"optim": {"lr": 0.5}, "seed": 1, "name": "run-1", "origin": "hydra"}
    assert given == {"optim": {"lr": 0.5}}
    assert defaults == {"seed": 1, "name": "run-1"}


INIT = 'import tracer\nwith tracer.init(project="demo", quiet=True, config={"lr": 9.0}) as r: r.log({"loss": 1.0})\n'


def test_what_was_parsed_before_the_run_is_found_in_the_main_module() -> None:
    found = facts(ARGPARSE + INIT, "--lr", "0.5", "--epochs", "4")

    assert found["config"] == {"lr": 9.0, "batch_size": 8, "epochs": 4, "out": "x/y", "data": "here"}  # the program's
    assert found["arguments"]["given"] == {"lr": 0.5, "epochs": 4}  # type: ignore[index]


def test_what_was_parsed_inside_a_function_is_not_guessed_at() -> None:
    inside = "def main():\n" + "".join(f"    {line}\n" for line in (ARGPARSE + INIT).splitlines()) + "main()\n"

    found = facts(inside, "--lr", "0.5")

    assert found["config"] == {"lr": 9.0}
    assert found["environment"] == {}


def test_inside_of_hydra_and_click_they_are_asked_themselves() -> None:
    pytest.importorskip("hydra")
    body = INIT.replace("\n", "\n    ").replace("import tracer", "import tracer")

    found = facts(HYDRA.replace("BODY", body), "seed=5", env={"TRACER_STORAGE": str(Path(".tracer").resolve())})

    assert found["config"] == {"lr": 9.0, "optim": {"lr": 0.1}, "seed": 5, "name": "run-5"}


@pytest.mark.parametrize("wanted", ["1", "0"])
def test_the_setting_rules_it(wanted: str) -> None:
    found = facts(ARGPARSE + INIT, "--lr", "0.5", env={"TRACER_TRACK_ARGUMENTS": wanted, **ON})

    assert ("arguments" in found) is (wanted == "1")
    assert ("epochs" in found["config"]) is (wanted == "1")  # type: ignore[operator]


def test_everything_is_put_back_when_the_run_ends() -> None:
    run(
        """
        import argparse
        before = argparse.ArgumentParser.parse_known_args
        import tracer
        with tracer.init(project="demo", capture=["tensorboard"], quiet=True):
            assert argparse.ArgumentParser.parse_known_args is not before
        assert argparse.ArgumentParser.parse_known_args is before
        """,
        env={**CALM, "TRACER_TRACK_ARGUMENTS": "1"},
    )
