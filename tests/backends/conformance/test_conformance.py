"""The suite for back ends: ours pass it, plugins too, and each broken one is told what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest

from tracer.backends.base import Backend, Limits, RemoteIds, Unreachable
from tracer.backends.memory import MemoryBackend
from tracer.plugins.kinds import BackendPlugin, PluginMetadata, PluginType
from tracer.testing import check_backend
from tracer.transfer import POINTS, Event, Points, RunInfo

Found = dict[str, list[tuple[int, float]]]


def of_memory(remote: Mapping[str, str]) -> Found:
    """Return what a memory back end has."""
    found: Found = {}
    for event in MemoryBackend.runs[remote["run"]]["events"]:  # type: ignore[attr-defined]
        if isinstance(event, Points):
            found.setdefault(event.name, []).extend(zip(event.steps.tolist(), event.values.tolist(), strict=True))
    return found


class Plugin(BackendPlugin):
    """A plugin as the README shows one."""

    runs: ClassVar[dict[str, Found]] = {}

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """Say what it is."""
        return PluginMetadata("mine", "1.0", PluginType.BACKEND, "Keeps values.", "me")

    def initialize(self, config: dict[str, Any]) -> None:
        """Begin with a run."""
        self.kept = self.runs.setdefault(config["run_id"], {})

    def log_metric(self, name: str, value: Any, iteration: Any) -> None:  # noqa: ANN401 (as the base has it)
        """Keep a value."""
        self.kept.setdefault(name, []).append((iteration, value))


class Barest:
    """Only what the documents ask for, of no base class."""

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """Say what it is."""
        return PluginMetadata("barest", "1.0", PluginType.BACKEND)

    def initialize(self, config: dict[str, Any]) -> None:
        """Take anything."""

    def log_metric(self, name: str, value: Any, iteration: Any) -> None:  # noqa: ANN401 (as above)
        """Take anything."""


class Small(Backend):
    """Keeps points of all runs, last value of a step; each test below breaks one thing."""

    name: ClassVar[str] = "small"
    kinds: ClassVar[frozenset[str]] = frozenset({POINTS})
    runs: ClassVar[dict[str, dict[str, dict[int, float]]]] = {}

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Begin or resume."""
        self.key = remote.get("id", run.uid)
        self.kept = self.runs.setdefault(self.key, {})
        return {"id": self.key}

    def write(self, events: Sequence[Event]) -> None:
        """Keep."""
        for event in events:
            assert isinstance(event, Points)
            pairs = zip(event.steps.tolist(), event.values.tolist(), strict=True)
            self.kept.setdefault(self.called(event.name), {}).update((step, self.held(value)) for step, value in pairs)

    def close(self, status: str, ended: int | None) -> None:
        """Nothing is open."""

    def called(self, name: str) -> str:
        """Return the peer's name."""
        return name

    def held(self, value: float) -> float:
        """Return the peer's value."""
        return value


def of_small(remote: Mapping[str, str]) -> Found:
    return {name: list(points.items()) for name, points in Small.runs[remote["id"]].items()}


class Forgetful(Small):
    """Makes a second run when it resumes."""

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Begin, always."""
        del remote
        return super().open(run, {"id": f"{len(self.runs)}"})


class Merging(Small):
    """Makes one name of two."""

    def called(self, name: str) -> str:
        """Cut it."""
        return name[:20]


class Rounding(Small):
    """Holds float32."""

    def held(self, value: float) -> float:
        """Round."""
        import numpy as np

        with np.errstate(all="ignore"):
            return float(np.float32(value))


class Flat(Small):
    """Has no NaN, and says so."""

    limits: ClassVar[Limits] = Limits(losses={"NaN": "stored as 0"})

    def held(self, value: float) -> float:
        """Lose it."""
        return 0.0 if value != value else value  # noqa: PLR0124 (NaN)


class Numbered(Small):
    """Returns numbers as ids."""

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Begin."""
        super().open(run, remote)
        return {"id": 7}  # type: ignore[dict-item]


class Boastful(Small):
    """Claims a kind that it does not take."""

    kinds: ClassVar[frozenset[str]] = frozenset({POINTS, "text"})


class Chatty(Small):
    """Tells its key when nobody answers."""

    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Fail where `url` is dead."""
        if self.options.get("url") == "dead":
            message = f"Nobody is there (key {self.options['api_key']})."
            raise Unreachable(message)
        return super().open(run, remote)


def test_the_back_end_in_memory_passes() -> None:
    tried = check_backend(MemoryBackend, read=of_memory, many=5000)

    assert "names stay apart" in tried
    assert "values stay what they are" in tried


def test_a_small_one_passes() -> None:
    check_backend(Small, read=of_small, many=2500)
    check_backend(lambda options: Small({**options, "more": 1}), read=of_small, many=100)


def test_a_plugin_passes_as_a_class_and_as_an_object() -> None:
    check_backend(Plugin, read=lambda remote: Plugin.runs[remote["run"]], many=500)
    check_backend(Plugin(), many=10)
    check_backend(Barest, many=10)


def test_what_its_limits_name_may_be_lost() -> None:
    check_backend(Flat, read=of_small, many=10)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (Forgetful, "a crash would make a second run"),
        (Merging, "The peer has no series|become the one name"),
        (Rounding, "was sent. If it cannot hold that"),
        (Numbered, "a mapping of texts"),
        (Boastful, "`write` raised"),
        (type("Nameless", (Small,), {"name": ""}), "is no text"),
        (type("Odd", (Small,), {"kinds": frozenset({"scalars"})}), "must be a frozenset of some of"),
        (type("Empty", (Small,), {"limits": Limits(batch=0)}), "a batch from 1 on"),
    ],
    ids=lambda one: one.__name__ if isinstance(one, type) else "",
)
def test_a_broken_one_is_told_what_is_wrong(broken: type[Backend], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        check_backend(broken, read=of_small, many=100)


def test_doubles_are_seen() -> None:
    class Doubling(MemoryBackend):
        limits: ClassVar[Limits] = Limits(repeatable=True)

    with pytest.raises(AssertionError, match="4 points of 'twice'; 2 were sent"):
        check_backend(Doubling, read=of_memory, many=10)


def test_a_message_must_not_tell_a_key() -> None:
    with pytest.raises(AssertionError, match="repeats the `api_key`"):
        check_backend(Chatty, dead={"url": "dead"}, many=10)
    with pytest.raises(AssertionError, match="must raise Unreachable"):
        check_backend(Small, dead={"url": "dead"}, many=10)
