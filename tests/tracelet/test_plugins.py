"""Plugins: found, checked, started in order, one broken one at a time; and back ends that get every value in order."""

# ruff: noqa: ANN401, D102 -- what reads a run back is a class of `conftest.py`; plugins here are made to be called
from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tracelet
import tracer
from tracelet import ConfigurationError
from tracelet.core.plugins import (
    BackendPlugin,
    CollectorPlugin,
    PluginManager,
    PluginMetadata,
    PluginState,
    PluginType,
    register_plugin,
)

Put = Callable[..., Path]

#: The shape of the documents: these three methods and nothing else; it writes what it gets into a file.
SINK = """
import json
from tracelet.core.plugins import BackendPlugin, PluginMetadata, PluginType

class Sink(BackendPlugin):
    @classmethod
    def get_metadata(cls):
        return PluginMetadata(name="{name}", version="1.0.0", type=PluginType.BACKEND)

    def initialize(self, config):
        self.write(config)

    def log_metric(self, name, value, iteration):
        self.write([name, value, iteration])

    def write(self, value):
        with open("{name}.jsonl", "a") as file:
            file.write(json.dumps(value) + "\\n")
"""
TWO = """
from tracelet.core.plugins import CollectorPlugin, PluginMetadata, PluginType, ProcessorPlugin

class Room(CollectorPlugin):
    @classmethod
    def get_metadata(cls):
        return PluginMetadata("room", "1", PluginType.COLLECTOR)

    def collect(self):
        return {"celsius": 21.5}

class Halve(ProcessorPlugin):
    @classmethod
    def get_metadata(cls):
        return PluginMetadata("halve", "1", PluginType.PROCESSOR)

    def process(self, metric):
        metric.value /= 2
        return None if metric.name == "secret" else metric
"""


class Kept(BackendPlugin):
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {}
        self.got: list[tuple[str, float, int]] = []
        self.parameters: dict[str, Any] = {}
        self.threads: set[str] = set()
        self.stopped = False

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        return PluginMetadata("kept", "1.0", PluginType.BACKEND)

    def initialize(self, config: dict[str, Any]) -> None:
        self.config = config

    def log_metric(self, name: str, value: Any, iteration: Any) -> None:
        self.threads.add(threading.current_thread().name)
        self.got.append((name, value, iteration))

    def log_params(self, params: dict[str, Any]) -> None:
        self.parameters.update(params)

    def stop(self) -> None:
        self.stopped = True


def lines(name: str) -> list[Any]:
    """Return what a plugin wrote: its settings, then what it got."""
    import json

    return [json.loads(line) for line in Path(f"{name}.jsonl").read_text().splitlines()]


# ------------------------------------------------------------------------------- back ends of an experiment


def test_a_plugin_of_the_documents_shape_gets_every_value_in_order(
    plugin_folder: Put, calm: dict[str, Any], recorded: Any
) -> None:
    plugin_folder(mine=SINK.format(name="mine"))

    with tracelet.start_logging("x", project="p", backend="mine", api_key="k", config=calm) as experiment:
        for step in range(500):
            experiment.log_metric("loss", step / 2, step)
        tracer.log({"other": 1.0, "loss": -1.0}, step=500)

    settings, *values = lines("mine")
    assert (settings["project"], settings["experiment_name"], settings["api_key"]) == ("p", "x", "k")
    assert [value for value in values if value[0] == "loss"] == [["loss", n / 2, n] for n in range(500)] + [
        ["loss", -1.0, 500]
    ]
    assert ["other", 1.0, 500] in values
    assert recorded().lanes() == {"mine": "complete"}
    assert (recorded().lane("mine")["sent"], recorded().lane("mine").get("rejected", 0)) == (502, 0)


def test_an_object_or_a_class_of_the_program_is_a_back_end(calm: dict[str, Any]) -> None:
    kept = Kept()

    with tracelet.start_logging(
        "x", backend=[kept], config={**calm, "backend_options": {"kept": {"colour": "red"}}}
    ) as run:
        run.log_params({"lr": 0.1, "password": "hunter2"})
        run.log_metric("a", float("inf"), 0)
        assert run.get_active_backends() == ["kept"]

    assert (kept.got, kept.stopped) == ([("a", float("inf"), 0)], True)
    assert (kept.parameters["lr"], "hunter2" in str(kept.parameters)) == (0.1, False)
    assert kept.config["colour"] == "red"
    assert kept.threads == {"tracer-lane-kept"}


def test_a_back_end_that_is_added_later_gets_the_run_from_its_beginning(calm: dict[str, Any]) -> None:
    kept = Kept()
    with tracelet.start_logging("x", config=calm) as experiment:
        experiment.log_params({"lr": 0.1})
        experiment.log_metric("a", 1.0, 0)
        experiment.add_backend(kept)
        experiment.log_metric("a", 2.0, 1)

    assert (kept.got, kept.parameters) == ([("a", 1.0, 0), ("a", 2.0, 1)], {"lr": 0.1})


def test_several_back_ends_each_get_everything_and_a_broken_one_stops_none(
    plugin_folder: Put, calm: dict[str, Any], recorded: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken(Kept):
        @classmethod
        def get_metadata(cls) -> PluginMetadata:
            return PluginMetadata("broken", "1", PluginType.BACKEND)

        def log_metric(self, name: str, value: Any, iteration: Any) -> None:
            message = f"{name} {iteration}" if value else ""
            raise OSError(message)

    class Unreachable(Broken):
        @classmethod
        def get_metadata(cls) -> PluginMetadata:
            return PluginMetadata("unreachable", "1", PluginType.BACKEND)

        def initialize(self, config: dict[str, Any]) -> None:  # noqa: ARG002
            message = "no route"
            raise OSError(message)

    plugin_folder(mine=SINK.format(name="mine"))
    kept = Kept()
    with tracelet.start_logging("x", backend=["mine", Broken(), Unreachable(), kept], config=calm) as experiment:
        for step in range(3):
            experiment.log_metric("a", 1.0, step)

    assert len(kept.got) == len(lines("mine")) - 1 == 3
    told = {"broken": "complete", "kept": "complete", "mine": "complete", "unreachable": "refused"}
    assert recorded().lanes() == told
    assert recorded().lane("broken")["rejected"] == 3
    said = capsys.readouterr().err
    assert said.count("broken did not take 3 values (The plugin 'broken' raised OSError: a ") == 1
    assert "the plugin 'unreachable'" in said
    assert "initialising it failed with OSError: no route" in said


def test_a_back_end_that_hangs_holds_nothing_up(calm: dict[str, Any], recorded: Any, capsys: Any) -> None:
    gate = threading.Event()

    class Hangs(Kept):
        def log_metric(self, name: str, value: Any, iteration: Any) -> None:  # noqa: ARG002
            gate.wait()

    with tracelet.start_logging("x", backend=[Hangs()], config=calm) as experiment:
        experiment.log_metric("a", 1.0, 0)
        experiment.log_metric("a", 2.0, 1)
        began = time.monotonic()
    took = time.monotonic() - began
    standing = recorded().lanes()
    gate.set()

    assert took < 5
    assert recorded().series("a") == {0: 1.0, 1: 2.0}
    assert standing == {"kept": "active"}
    assert "They are safe in .tracer; send them with `tracer sync`." in capsys.readouterr().err


def test_a_plugin_says_which_settings_it_needs_and_is_refused_without_them(calm: dict[str, Any]) -> None:
    class Picky(Kept):
        @classmethod
        def get_metadata(cls) -> PluginMetadata:
            schema = {"required": ["url"], "properties": {"url": {"type": "string"}, "retries": {"type": "integer"}}}
            return PluginMetadata("picky", "1", PluginType.BACKEND, config_schema=schema)

    with pytest.raises(ConfigurationError, match="'picky' needs the setting 'url'"):
        tracelet.start_logging("x", backend=[Picky], config=calm)
    assert not tracer._state.is_initialized
    wrong = {"backend_options": {"picky": {"url": "u", "retries": "many"}}}
    with pytest.raises(ConfigurationError, match="retries='many' is not of the type integer"):
        tracelet.start_logging("x", backend=[Picky], config={**calm, **wrong})


def test_collectors_and_processors_that_are_found_are_active(
    plugin_folder: Put, calm: dict[str, Any], recorded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin_folder(two=TWO)
    kept = Kept()
    with tracelet.start_logging("x", backend=[kept], config=calm) as experiment:
        experiment.log_metric("a", 4.0, 0)
        experiment.log_metric("secret", 4.0, 0)
        until = time.monotonic() + 30
        while "room/celsius" not in experiment.metric_buffer and time.monotonic() < until:
            threading.Event().wait(0.01)

    assert set(recorded().series("room/celsius").values()) == {21.5}
    assert ("a", 2.0, 0) in kept.got
    assert "secret" not in {name for name, _, _ in kept.got}
    assert recorded().series("secret") == {0: 4.0}  # what is stored is what was logged

    monkeypatch.setenv("TRACER_PLUGINS_OFF", "halve,room")
    other = Kept()
    with tracelet.start_logging("y", backend=[other], config=calm) as experiment:
        experiment.log_metric("a", 4.0, 0)
    assert other.got == [("a", 4.0, 0)]


# ------------------------------------------------------------------------------------------------ discovery


def test_a_file_may_hold_several_plugins_and_a_broken_file_is_named_and_skipped(
    plugin_folder: Put, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = plugin_folder(two=TWO, broken="import nowhere_at_all", mine=SINK.format(name="mine"))
    found = PluginManager()
    found.discover_plugins()

    assert {"room", "halve", "mine"} <= set(found.plugins)
    assert (found.plugins["broken"].state, "No module named" in str(found.plugins["broken"].error)) == (
        PluginState.ERROR,
        True,
    )
    assert not found.load_plugin("broken")
    assert f"the plugin file {folder / 'broken.py'} is skipped: ModuleNotFoundError" in capsys.readouterr().err


def test_user_folders_and_entry_points_are_looked_into(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("tracer", "tracelet"):
        folder = Path.home() / f".{name}" / "plugins"
        folder.mkdir(parents=True, mode=0o755)
        (folder / "own.py").write_text(SINK.format(name=f"of_{name}"))
    site = tmp_path / "site"
    (site / "packaged-2.1.dist-info").mkdir(parents=True)
    (site / "packaged.py").write_text(SINK.format(name="packaged"))
    (site / "packaged-2.1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: packaged\nVersion: 2.1\n")
    (site / "packaged-2.1.dist-info" / "entry_points.txt").write_text("[tracer.backends]\npackaged = packaged:Sink\n")
    monkeypatch.syspath_prepend(str(site))

    found = PluginManager()
    found.discover_plugins()

    assert {"of_tracer", "of_tracelet", "packaged"} <= set(found.plugins)
    info = found.plugins["packaged"]
    assert (info.metadata.version, info.state) == ("2.1", PluginState.DISCOVERED)
    assert found.load_plugin("packaged")
    assert (info.metadata.version, info.state) == ("1.0.0", PluginState.LOADED)


def test_what_others_could_write_is_not_executed(plugin_folder: Put, capsys: pytest.CaptureFixture[str]) -> None:
    folder = plugin_folder(mine=SINK.format(name="mine"), open="raise SystemExit")
    (folder / "open.py").chmod(0o666)
    found = PluginManager()
    found.discover_plugins()
    assert "mine" in found.plugins
    assert f"{folder / 'open.py'} is not loaded: others may write it (mode 666)" in capsys.readouterr().err

    folder.chmod(0o777)
    found = PluginManager()
    found.discover_plugins()
    assert "mine" not in found.plugins
    assert f"plugins in {folder} are not loaded: others may write it" in capsys.readouterr().err


def test_the_working_folder_is_never_looked_into(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    Path("mine.py").write_text(SINK.format(name="mine"))
    monkeypatch.setenv("TRACER_PLUGIN_PATH", os.getcwd())

    found = PluginManager()
    found.discover_plugins()

    assert found.plugins == {}
    assert "the working folder is no place for plugins" in capsys.readouterr().err


def test_of_two_plugins_of_one_name_the_first_wins_and_it_is_said(plugin_folder: Put, capsys: Any) -> None:
    plugin_folder(a=SINK.format(name="same"), b=SINK.format(name="same"))

    found = PluginManager()
    found.discover_plugins()
    found.discover_plugins()

    assert found.plugins["same"].module_path.endswith("a.py")
    assert capsys.readouterr().err.count("two plugins are called 'same'") == 2


def test_plugins_can_be_turned_off(plugin_folder: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin_folder(mine=SINK.format(name="mine"))
    register_plugin(Kept)
    monkeypatch.setenv("TRACER_PLUGINS", "off")

    found = PluginManager()
    found.discover_plugins()

    assert set(found.plugins) == {"kept"}


def test_what_is_no_plugin_is_refused_by_name(calm: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="is no plugin: it has no get_metadata"):
        tracelet.start_logging("x", backend=[object()], config=calm)
    with pytest.raises(TypeError, match="is no plugin"):
        register_plugin(int)


# ------------------------------------------------------------------------------------------------ lifecycle


def plugin(name: str, *needs: str, kind: PluginType = PluginType.BACKEND, does: str = "") -> type:
    """Return a plugin class; `does` is the method that raises."""

    class Made(Kept):
        @classmethod
        def get_metadata(cls) -> PluginMetadata:
            return PluginMetadata(name, "1", kind, dependencies=list(needs))

    def fail(self: object, *_: object) -> None:  # noqa: ARG001
        message = f"{does} of {name}"
        raise RuntimeError(message)

    if does:
        setattr(Made, does, fail)
    return Made


def managed(*plugins: type) -> PluginManager:
    """Return a manager that knows these and no others."""
    manager = PluginManager(use_default_paths=False)
    for one in plugins:
        manager.add(one)
    return manager


def test_a_plugin_goes_from_found_to_active_to_stopped() -> None:
    manager = managed(plugin("a"))
    states = [manager.plugins["a"].state]
    for step in (manager.load_plugin, manager.validate_plugin, manager.initialize_plugin, manager.start_plugin):
        assert step("a")
        states.append(manager.plugins["a"].state)
    assert manager.stop_plugin("a")
    states.append(manager.plugins["a"].state)

    names = ("DISCOVERED", "LOADED", "VALIDATED", "INITIALIZED", "ACTIVE", "STOPPED")
    assert [state.name for state in states] == list(names)
    assert manager.start_plugin("a")


def test_the_settings_really_reach_the_plugin(tmp_path: Path) -> None:
    (tmp_path / "plugins.yaml").write_text("plugins:\n  a:\n    url: here\n")
    manager = managed(plugin("a"), plugin("b"))
    manager.load_config(str(tmp_path / "plugins.yaml"))

    manager.initialize_plugin("a")
    manager.initialize_plugin("b", {"url": "there"})

    assert manager.get_plugin_instance("a").config == {"url": "here"}
    assert manager.get_plugin_instance("b").config == {"url": "there"}
    assert manager.get_plugin_instance("c") is None


@pytest.mark.parametrize("step", ["initialize", "start", "stop"])
def test_a_plugin_that_fails_is_in_error_and_not_loaded(step: str, capsys: pytest.CaptureFixture[str]) -> None:
    manager = managed(plugin("bad", does=step), plugin("good"))

    assert manager.start_plugin("bad") is (step == "stop")
    assert manager.stop_plugin("bad") is False
    assert manager.plugins["bad"].state is PluginState.ERROR
    assert f"{step} of bad" in str(manager.plugins["bad"].error)
    assert not manager.load_plugin("bad")
    assert manager.get_plugin_instance("bad") is None
    assert manager.start_plugin("good")
    assert "'bad'" in capsys.readouterr().err


def test_a_plugin_without_the_method_of_its_kind_is_not_valid() -> None:
    class Silent(BackendPlugin):
        @classmethod
        def get_metadata(cls) -> PluginMetadata:
            return PluginMetadata("silent", "1", PluginType.BACKEND)

    class Idle(CollectorPlugin):
        @classmethod
        def get_metadata(cls) -> PluginMetadata:
            return PluginMetadata("idle", "1", PluginType.COLLECTOR)

    manager = managed(Silent, Idle)

    assert (manager.validate_plugin("silent"), manager.validate_plugin("idle")) == (False, False)
    assert "has no method log_metric()" in str(manager.plugins["silent"].error)
    assert "has no method collect()" in str(manager.plugins["idle"].error)


def test_dependencies_come_first_and_a_circle_is_named() -> None:
    manager = managed(plugin("c", "b"), plugin("b", "a"), plugin("a"))
    assert manager.resolve_dependencies(["c"]) == ["a", "b", "c"]
    assert manager.start_plugin("c")
    assert manager.plugins["a"].state is PluginState.ACTIVE

    circle = managed(plugin("x", "y"), plugin("y", "z"), plugin("z", "x"))
    with pytest.raises(ValueError, match=r"Circular dependency detected: x → y → z → x\."):
        circle.resolve_dependencies(["x"])
    with pytest.raises(ValueError, match="depends on 'gone', which was not found"):
        managed(plugin("w", "gone")).resolve_dependencies(["w"])


def test_what_depends_on_a_plugin_that_failed_is_not_started() -> None:
    manager = managed(plugin("b", "a"), plugin("a", does="start"))

    assert not manager.start_plugin("b")
    assert "it depends on 'a', which failed" in str(manager.plugins["b"].error)


def test_status_and_kinds_are_told() -> None:
    manager = managed(plugin("a"), plugin("f", kind=PluginType.FRAMEWORK))
    manager.start_plugin("a")

    status = manager.get_status()
    assert (status["a"]["state"], status["f"]["state"]) == ("ACTIVE", "DISCOVERED")
    assert status["a"]["status"] == {"name": "a"}
    assert [info.metadata.name for info in manager.get_plugins_by_type(PluginType.FRAMEWORK)] == ["f"]
    with pytest.raises(ValueError, match=r"There is no plugin 'zz'\. Found: a, f"):
        manager.start_plugin("zz")
