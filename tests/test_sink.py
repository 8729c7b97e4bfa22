"""Events go to whoever listens, and to nobody without a run."""

from __future__ import annotations

import sys

import pytest

import tracer
from tracer import sink
from tracer.events import Finding, Metadata, Scalars
from tracer.sink import Guard


def test_without_a_listener_events_are_forgotten() -> None:
    sink.emit(Scalars({"loss": 1.0}))


def test_listening_returns_who_listened_before() -> None:
    heard: list[object] = []

    before = sink.listen(heard.append)
    sink.emit(1)
    mine = sink.listen(before)

    assert heard == [1]
    mine(2)
    assert heard == [1, 2]


def test_an_instrument_is_heard_by_the_active_run(tmp_path) -> None:  # noqa: ANN001
    from journals import only_run, points, said

    from tracer import journal, runfile

    with tracer.init(project="sink", track_system_metrics=False, track_git=False, track_environment=False, quiet=True):
        sink.emit(Scalars({"load": 0.5}, step=3))
        sink.emit(Metadata({"tags": ["late"], "config": {"lr": 0.1}}))
        sink.emit(Finding("spike", "warning", 3, {"value": 9.0}))
        sink.emit(object())

    sink.emit(Scalars({"after": 1.0}))

    folder = only_run(tmp_path / ".tracer")
    assert points(folder) == [("load", 3, 0.5)]
    facts = runfile.read(str(folder))
    assert (facts["tags"], facts["config"]) == (["late"], {"lr": 0.1})
    (finding,) = said(folder, journal.Kind.FINDING)
    assert finding.content == {
        "kind": "spike", "severity": "warning", "step": 3, "last_step": None, "details": {"value": 9.0},
    }  # fmt: skip


def test_a_strict_guard_raises() -> None:
    guard = Guard(strict=True)

    with pytest.raises(LookupError), guard("looking"):
        raise LookupError


def test_a_guard_lets_an_interrupt_through() -> None:
    with pytest.raises(KeyboardInterrupt), Guard()("looking"):
        raise KeyboardInterrupt


def test_a_quiet_guard_counts_without_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    guard = Guard(quiet=True)

    with guard("looking"):
        raise LookupError

    assert capsys.readouterr().err == ""
    assert guard.counters.nonzero() == {"internal_errors": 1}


@pytest.mark.parametrize("broken", [None, object()])
def test_saying_needs_no_stderr(monkeypatch: pytest.MonkeyPatch, broken: object) -> None:
    monkeypatch.setattr(sys, "stderr", broken)

    sink.say("hello")
