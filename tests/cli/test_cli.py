"""What all commands have in common: help, errors, exit codes, pipes, terminals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.shell_completion import ShellComplete

from tracer.cli import COMMANDS, cli, main

READING = ("list", "show", "compare", "anomalies", "plot", "query", "restore", "gc", "fsck", "info", "doctor")

#: Runs a command or records a run; see conftest.py.
Ask = Callable[..., Any]


def test_help_names_every_command_with_its_sentence(ask: Ask) -> None:
    answer = ask("--help", env={"COLUMNS": "100"})

    assert answer.code == 0
    listed = [line.split(maxsplit=1) for line in answer.lines if line.startswith("  ") and line.split()[0] in COMMANDS]
    assert listed == [[name, sentence] for name, (_, _, sentence) in COMMANDS.items()]


def test_help_loads_click_and_none_of_the_commands(loaded: Callable[..., list[str]]) -> None:
    modules = loaded("--help")

    assert [name for name in modules if name.startswith("tracer.cli.")] == ["tracer.cli.group"]
    assert not {"numpy", "duckdb", "rich", "torch", "sqlite3", "importlib.metadata"} & set(modules)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_without_a_store(name: str, ask: Ask) -> None:
    answer = ask(name, "--help")

    assert answer.code == 0
    assert answer.lines[0].startswith(f"Usage: tracer {name}")


def test_the_table_agrees_with_the_commands() -> None:
    for name in COMMANDS:
        found = cli.get_command(None, name)  # type: ignore[arg-type]  # it needs none

        assert found is not None
        assert found.name == name


@pytest.mark.parametrize("name", READING)
def test_every_reading_command_speaks_json(name: str) -> None:
    found = cli.get_command(None, name)  # type: ignore[arg-type]  # it needs none

    assert found is not None
    options = {option for parameter in found.params for option in parameter.opts}
    assert {"--json", "--storage", "--quiet", "--no-color"} <= options


def test_an_unknown_command_is_wrong_usage_and_the_near_one_is_named(ask: Ask) -> None:
    answer = ask("lst")

    assert answer.code == 2
    assert "There is no command 'lst'. Did you mean 'list'?" in answer.err


def test_an_unknown_option_is_wrong_usage(ask: Ask) -> None:
    assert ask("list", "--nonsense").code == 2


def test_a_missing_store_is_unreadable(ask: Ask) -> None:
    answer = ask("list")

    assert (answer.code, answer.out) == (3, "")
    assert "There is no store in .tracer" in answer.err


def test_an_unknown_run_is_wrong_usage_and_near_names_are_told(ask: Ask, record: Ask) -> None:
    record("baseline", [{"loss": 1.0}])

    answer = ask("show", "basline")

    assert (answer.code, answer.out) == (2, "")
    assert "'baseline'" in answer.err


def test_a_store_of_a_newer_tracer_is_refused(ask: Ask, record: Ask, tmp_path: Path) -> None:
    record("run", [{"loss": 1.0}])
    (tmp_path / ".tracer" / "store.json").write_text('{"format": 999}')

    answer = ask("list")

    assert answer.code == 3
    assert "999" in answer.err


def test_storage_is_given_before_or_after_the_command_or_by_the_environment(
    ask: Ask, record: Ask, tmp_path: Path
) -> None:
    record("here", [{"loss": 1.0}], storage_path=str(tmp_path / "elsewhere"))
    path = str(tmp_path / "elsewhere")

    answers = [
        ask("--storage", path, "list"),
        ask("list", "--storage", path),
        ask("list", env={"TRACER_STORAGE": path}),
    ]

    assert [answer.lines[1].split()[0] for answer in answers] == ["here"] * 3


def test_the_nearest_store_above_is_found(
    ask: Ask, record: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record("above", [{"loss": 1.0}])
    below = tmp_path / "some" / "folder"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)

    assert ask("list").lines[1].split()[0] == "above"


def test_two_runs_of_one_name_are_said_to_be_two(ask: Ask, record: Ask) -> None:
    record("twin", [{"loss": 1.0}])
    newest = record("twin", [{"loss": 2.0}])

    answer = ask("show", "twin")

    assert f"one more run has the name 'twin'; this is the newest, {newest}." in answer.err
    assert ask("show", "twin", "--quiet").err == ""
    assert ask("show", "twin", "--json").json["run"]["id"] == newest


def test_a_reader_that_leaves_early_ends_it_quietly(record: Ask) -> None:
    for index in range(30):
        record(f"run-{index}", [{"loss": 1.0}])
    pipe, end = os.pipe()
    os.close(pipe)

    done = subprocess.run(
        [sys.executable, "-m", "tracer", "list"], stdout=end, stderr=subprocess.PIPE, text=True, check=False, timeout=60
    )
    os.close(end)

    assert (done.returncode, done.stderr) == (0, "")


def test_an_interrupt_is_130(record: Ask, tmp_path: Path) -> None:
    program = tmp_path / "slow.py"
    program.write_text(
        "import sys, time\n"
        "import tracer.storage.store as store\n"
        "store.Store.runs = lambda *_, **__: (print('ready', flush=True), time.sleep(60))\n"
        "from tracer.cli import main\n"
        "sys.exit(main(['list']))\n"
    )
    record("run", [{"loss": 1.0}])
    process = subprocess.Popen(
        [sys.executable, str(program)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"

    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)

    assert (process.returncode, out, err.strip()) == (130, "", "tracer: interrupted.")


def test_names_cannot_move_the_cursor(ask: Ask, on_terminal: Ask, record: Ask) -> None:
    record("evil\x1b[2J\x1b]0;owned\x07name\n", [{"loss\x1b[31m": 1.0}], tags=["a\x1b[1m"], notes="x\x07y")

    for answer in (ask("list", "--columns", "name,tags,notes"), ask("show", "@last"), on_terminal("show", "@last")):
        assert answer.code == 0
        assert "\x1b[2J" not in answer.out
        assert "\x1b]" not in answer.out
        assert "\x07" not in answer.out


@pytest.mark.parametrize(
    ("env", "seen"),
    [
        ({}, {"colour", "rule"}),
        ({"NO_COLOR": "1"}, {"rule"}),
        ({"TERM": "dumb"}, set()),
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, {"rule"}),
    ],
)
def test_a_terminal_gets_what_it_can_show(on_terminal: Ask, record: Ask, env: dict[str, str], seen: set[str]) -> None:
    record("run", [{"loss": 1.0}])

    out = on_terminal("list", env=env).out

    signs = {"colour": "\x1b[3" in out or "\x1b[1;3" in out, "rule": "───" in out}
    assert {name for name, is_there in signs.items() if is_there} == seen


def test_colour_can_be_refused_and_forced(ask: Ask, on_terminal: Ask, record: Ask) -> None:
    record("run", [{"loss": 1.0}])

    assert "\x1b[3" not in on_terminal("list", "--no-color").out
    assert "\x1b[3" in ask("list", env={"FORCE_COLOR": "1"}).out
    assert "\x1b" not in ask("list").out


def test_columns_says_how_wide_the_terminal_is(on_terminal: Ask, record: Ask) -> None:
    record("run-with-a-rather-long-name", [{"loss": 1.0}])

    lines = on_terminal("list", columns=120, env={"COLUMNS": "50"}).text

    assert max(map(len, lines)) <= 50


def test_a_terminal_without_utf8_gets_ascii(on_terminal: Ask, record: Ask) -> None:
    record("größe", [{"loss": float(index)} for index in range(20)])

    answer = on_terminal("plot", "größe", "loss", env={"PYTHONIOENCODING": "ascii"})

    assert answer.code == 0
    assert answer.out.isascii()
    assert "gr\\xf6\\xdfe" in answer.out


def test_json_and_csv_together_are_refused(ask: Ask, record: Ask) -> None:
    record("run", [{"loss": 1.0}])

    assert ask("list", "--json", "--csv").code == 2


def test_the_seed_documents_path_holds_the_group_and_can_be_called(capsys: pytest.CaptureFixture[str]) -> None:
    import tracer.cli.main as module
    from tracer.cli.main import cli as group

    assert group is cli
    assert module(["--version"]) == 0
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("tracer ")


def completed(words: list[str], incomplete: str) -> list[str]:
    """Return what the shell would offer."""
    completer = ShellComplete(cli, {}, "tracer", "_TRACER_COMPLETE")
    return [item.value for item in completer.get_completions(words, incomplete)]


def test_the_shell_offers_commands_runs_projects_and_metrics(record: Ask) -> None:
    record("alpha", [{"loss": 1.0, "lr": 0.1}], project="first")
    record("beta", [{"accuracy": 1.0}], project="second")

    assert completed([], "com") == ["compare"]
    assert completed(["show"], "") == ["beta", "alpha", "@last"]
    assert completed(["list", "--project"], "f") == ["first"]
    assert completed(["plot", "alpha"], "l") == ["loss", "lr"]
    assert completed(["show", "-m"], "") == ["accuracy"]


def test_completion_without_a_store_offers_nothing() -> None:
    assert completed(["show"], "") == []


def test_completion_is_printed_for_a_shell(ask: Ask, record: Ask) -> None:
    record("alpha", [{"loss": 1.0}])

    answer = ask(env={"_TRACER_COMPLETE": "bash_complete", "COMP_WORDS": "tracer show al", "COMP_CWORD": "2"})

    assert answer.lines == ["plain,alpha"]


def test_python_m_tracer_and_the_console_script_are_one(ask: Ask) -> None:
    script = Path(sys.executable).with_name("tracer")

    done = subprocess.run([str(script), "--version"], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout == ask("--version").out


def test_help_costs_little_processor_time() -> None:
    before = os.times()
    subprocess.run([sys.executable, "-m", "tracer", "--help"], stdout=subprocess.DEVNULL, check=True, timeout=60)
    after = os.times()

    spent = after.children_user - before.children_user + after.children_system - before.children_system
    assert spent < 2.0, "the benchmark measures it; this only notices a heavy import"
