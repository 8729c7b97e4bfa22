"""Where runs stand, as a text says it; and what is recognised at a bare path."""

from __future__ import annotations

import sqlite3
import zipfile
from pathlib import Path

import pytest

from tracer.errors import ConfigError
from tracer.migration.addresses import Address, address, without_secrets


@pytest.mark.parametrize(
    ("text", "name", "uri"),
    [
        ("mlflow:sqlite:///ml.db", "mlflow", "sqlite:///ml.db"),
        ("mlflow:http://host:5000", "mlflow", "http://host:5000"),
        ("wandb:./wandb", "wandb", "./wandb"),
        ("trackio", "trackio", ""),
        ("tensorboard:C:/runs", "tensorboard", "C:/runs"),
    ],
)
def test_a_place_is_named_by_tracker_and_address(text: str, name: str, uri: str) -> None:
    found = address(text)

    assert (found.name, found.uri, found.guessed) == (name, uri, False)


def test_a_password_is_used_and_never_shown() -> None:
    found = address("mlflow:https://me:geheim@host/x?api_key=abc&page=2", {"token": "t-1"})

    assert found.uri == "https://me:geheim@host/x?api_key=abc&page=2"
    assert found.shown == "mlflow:https://host/x?api_key=…&page=2"
    assert "geheim" not in found.shown
    assert "t-1" not in repr(found)


def test_the_digest_of_a_place_knows_no_secret_and_no_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = address("mlflow:https://host/").digest
    here = address("mlflow:sqlite:///ml.db").digest
    monkeypatch.chdir(tmp_path.parent)

    assert address("mlflow:https://other:pw@host/", {"api_key": "k"}).digest == plain
    assert address("mlflow:sqlite:///ml.db").digest != here
    assert address(f"mlflow:sqlite:///{tmp_path}/ml.db").digest == here


def test_an_address_that_is_nothing_says_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"neither a path that exists nor a tracker. Known: mlflow, wandb"):
        address("mlfow")
    with pytest.raises(ConfigError, match=r"https://host/.* does not say what stands there"):
        address("https://me:pw@host/")


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("aim:repo", {"repo_path": "repo"}),
        ("aim:aim://host:53800", {"remote_uri": "aim://host:53800"}),
        ("wandb:out", {"dir": "out", "mode": "offline"}),
        ("tensorboard:runs", {"log_dir": "runs"}),
        ("csv:x.csv", {"path": "x.csv"}),
        ("mlflow:sqlite:///a.db", {"tracking_uri": "sqlite:///a.db"}),
        ("trackio", {}),
    ],
)
def test_a_back_end_is_told_an_address_by_its_own_option(target: str, options: dict[str, object]) -> None:
    assert address(target, writing=True).backend_options() == options


def _make(path: Path, tables: str) -> None:
    connection = sqlite3.connect(path)
    for name in tables.split():
        connection.execute(f"CREATE TABLE {name} (x)")
    connection.close()


def test_what_stands_at_a_bare_path_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "run.csv").write_text("step,loss\n")
    (tmp_path / "run.jsonl").write_text("{}\n")
    (tmp_path / "tb" / "deep").mkdir(parents=True)
    (tmp_path / "tb" / "deep" / "events.out.tfevents.1.host").write_bytes(b"")
    (tmp_path / "repo" / ".aim").mkdir(parents=True)
    (tmp_path / "wb" / "offline-run-1-x").mkdir(parents=True)
    (tmp_path / "wb" / "offline-run-1-x" / "run-x.wandb").write_bytes(b"")
    (tmp_path / "mlruns" / "0").mkdir(parents=True)
    (tmp_path / "mlruns" / "0" / "meta.yaml").write_text("")
    _make(tmp_path / "ml.db", "experiments runs latest_metrics metrics")
    _make(tmp_path / "old.db", "runs checkpoints gradient_stats system_metrics")
    with zipfile.ZipFile(tmp_path / "task.zip", "w") as archive:
        archive.writestr("task.json", "{}")

    found = {
        name: address(name).name
        for name in ("run.csv", "run.jsonl", "tb", "repo", "wb", "mlruns", "ml.db", "old.db", "task.zip")
    }

    assert found == {
        "run.csv": "csv", "run.jsonl": "jsonl", "tb": "tensorboard", "repo": "aim", "wb": "wandb",
        "mlruns": "mlflow", "ml.db": "mlflow", "old.db": "layerclaw", "task.zip": "clearml",
    }  # fmt: skip
    assert address("ml.db").uri == f"sqlite:///{tmp_path}/ml.db"
    assert address("tb").guessed


def test_what_is_not_recognised_asks_for_a_name(tmp_path: Path) -> None:
    (tmp_path / "thing").mkdir()

    with pytest.raises(ConfigError, match=r"Nothing at 'thing' was recognised. Say which tracker wrote it"):
        address("thing")


def test_a_target_that_is_a_path_is_known_by_its_ending_only(tmp_path: Path) -> None:
    (tmp_path / "tb").mkdir()

    assert address("out.jsonl", writing=True).name == "jsonl"
    with pytest.raises(ConfigError, match="does not say which tracker the runs go to"):
        address("tb", writing=True)


def test_no_secret_is_left_in_an_address() -> None:
    assert without_secrets("aim://u:p@h:1/x") == "aim://h:1/x"
    assert without_secrets("http://h/?auth_token=1&x=2;password=3") == "http://h/?auth_token=…&x=2;password=…"
    assert isinstance(Address("aim"), Address)
