"""What is done about a finding: as asked, once per episode, and never at the program's cost."""

from __future__ import annotations

import doctest
import json
import math
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tracer import reactions
from tracer.config import shown_action
from tracer.errors import ConfigError, TrainingAnomaly
from tracer.events import Finding
from tracer.reactions import Action, Reactions, actions, anomaly, payload
from tracer.sink import Guard

GRAVE = Finding("nan_or_inf", "critical", 7, {"metric": "loss", "value": math.nan}, 7)
MILD = Finding("loss_spike", "medium", 9, {"metric": "loss"})


@pytest.fixture
def guard() -> Guard:
    return Guard()


class Server:
    """A web server that keeps what it is sent, and answers as told."""

    def __init__(self) -> None:
        received: list[dict[str, object]] = []
        answers: list[int] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                received.append(json.loads(self.rfile.read(length), parse_constant=pytest.fail))
                self.send_response(answers[0] if answers else 200)
                if answers and answers[0] == 302:
                    self.send_header("Location", "http://127.0.0.1:1/elsewhere")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.received, self.answers = received, answers
        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        """End."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    yield one
    one.close()


def test_nothing_asked_is_nothing_done(guard: Guard) -> None:
    reactions = Reactions("continue", guard)
    reactions.later(GRAVE)

    assert reactions.now(GRAVE) == "continue"
    assert not reactions.waiting
    reactions.due()


@pytest.mark.parametrize("choice", ["raise", "stop", "STOP", ["continue", "raise"], "checkpoint\nraise"])
def test_the_end_of_the_step_stops_a_training_that_asked_for_it(choice: object, guard: Guard) -> None:
    reactions = Reactions(choice, guard)
    reactions.later(GRAVE)

    with pytest.raises(TrainingAnomaly, match=r"nan_or_inf \(critical\) at step 7 in loss") as caught:
        reactions.due()
    assert caught.value.finding is GRAVE
    reactions.later(GRAVE)
    reactions.due()  # a program that went on is not stopped by the same trouble again


def test_the_optimizer_is_told_what_to_do(guard: Guard) -> None:
    assert Reactions("raise", guard).now(GRAVE) == "raise"
    assert Reactions(["skip", "checkpoint"], guard).now(GRAVE) == "skip"
    assert Reactions(["skip", "raise"], guard).now(GRAVE) == "raise"


def test_a_guard_is_known_before_anything_happens(guard: Guard) -> None:
    assert (Reactions(["checkpoint", "guard"], guard).guards, Reactions("skip", guard).guards) == (True, False)


def test_bad_steps_are_skipped_each_time_they_come(guard: Guard) -> None:
    reactions = Reactions("skip", guard)

    assert [reactions.now(GRAVE) for _ in range(3)] == ["skip"] * 3


def test_what_is_not_grave_enough_stops_nothing(guard: Guard) -> None:
    assert Reactions("raise", guard).now(MILD) == "continue"
    assert Reactions("raise", guard, severity="medium").now(MILD) == "raise"


def test_a_trouble_that_becomes_graver_is_acted_upon_then(guard: Guard) -> None:
    reactions = Reactions("raise", guard)
    reactions.later(MILD)
    reactions.due()
    reactions.later(Finding(MILD.kind, "high", MILD.step, MILD.details))

    with pytest.raises(TrainingAnomaly):
        reactions.due()


def test_a_function_sees_every_finding_on_the_training_thread(guard: Guard) -> None:
    seen: list[tuple[object, int]] = []
    reactions = Reactions(lambda finding: seen.append((finding, threading.get_ident())), guard)
    thread = threading.Thread(target=reactions.later, args=(MILD,))
    thread.start()
    thread.join()
    before = list(seen)
    reactions.due()

    assert before == []
    assert seen == [(MILD, threading.get_ident())]


@pytest.mark.parametrize(
    ("answer", "done"), [("raise", "raise"), ("stop", "raise"), ("skip", "skip"), (None, "continue")]
)
def test_the_answer_of_a_function_is_done(answer: str | None, done: str, guard: Guard) -> None:
    assert Reactions(lambda _: answer, guard).now(MILD) == done


def test_a_function_may_raise_training_anomaly_itself(guard: Guard) -> None:
    def stop(finding: Finding) -> None:
        raise anomaly(finding)

    assert Reactions(stop, guard).now(MILD) == "raise"


def test_a_function_that_fails_is_reported_and_training_goes_on(
    guard: Guard, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: Finding) -> None:
        message = "no such key"
        raise KeyError(message)

    assert Reactions(broken, guard).now(GRAVE) == "continue"
    assert "the function 'broken' of on_anomaly, called for nan_or_inf at step 7, failed" in capsys.readouterr().err
    assert guard.counters.nonzero() == {"internal_errors": 1}


def test_a_strange_answer_is_reported_and_training_goes_on(guard: Guard, capsys: pytest.CaptureFixture[str]) -> None:
    assert Reactions(lambda _: ["raise"], guard).now(GRAVE) == "continue"
    assert "which is no action" in capsys.readouterr().err


def test_a_checkpoint_is_recorded_once_per_episode(guard: Guard) -> None:
    saved: list[int] = []
    reactions = Reactions("checkpoint", guard, checkpoint=lambda: saved.append(1))
    for _ in range(3):
        reactions.later(GRAVE)
        reactions.due()

    assert saved == [1]


def test_a_checkpoint_that_steps_makes_no_second_one(guard: Guard) -> None:
    saved: list[int] = []

    def save() -> None:
        saved.append(1)
        reactions.later(Finding("other", "high", 8, {}))
        reactions.due()

    reactions = Reactions("checkpoint", guard, checkpoint=save)
    reactions.now(GRAVE)

    assert saved == [1]


def test_a_webhook_gets_strict_json_once_per_episode(guard: Guard, server: Server) -> None:
    reactions = Reactions(f"webhook:{server.url}", guard, about={"run": "abc", "name": "brave", "project": "gpt"})
    for _ in range(3):
        reactions.later(GRAVE)
    reactions.later(MILD)
    reactions.close(10)

    assert server.received == [
        {
            "run": "abc", "name": "brave", "project": "gpt", "kind": "nan_or_inf", "severity": "critical", "step": 7,
            "last_step": 7, "details": {"metric": "loss", "value": "NaN"},
            "text": "nan_or_inf (critical) at step 7 in loss of run brave",
        }
    ]  # fmt: skip


@pytest.mark.parametrize("status", [500, 302])
def test_a_webhook_that_refuses_is_said_once_without_its_address(
    status: int, guard: Guard, server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answers.append(status)
    reactions = Reactions(f"webhook:{server.url}/secret", guard)
    for step in range(3):
        reactions.later(Finding("nan_or_inf", "critical", step, {}))
    reactions.close(10)
    said = capsys.readouterr().err

    assert len(server.received) == reactions._alerts.failed == 3
    assert said.count("the webhook of on_anomaly failed") == 1
    assert "secret" not in said


def test_a_server_that_is_away_costs_nothing_but_a_line(guard: Guard, capsys: pytest.CaptureFixture[str]) -> None:
    reactions = Reactions("webhook:http://127.0.0.1:9/", guard)
    reactions.later(GRAVE)
    reactions.due()
    reactions.close(10)

    assert "Your program is unaffected." in capsys.readouterr().err


def test_a_command_gets_the_finding_on_its_input_and_in_its_environment(guard: Guard, tmp_path: Path) -> None:
    program = "import os,sys; open('told','w').write(os.environ['TRACER_ANOMALY_KIND'] + ' ' + sys.stdin.read())"
    reactions = Reactions(f'command:{sys.executable} -c "{program}"', guard, about={"run": "abc"})
    assert reactions.now(GRAVE) == "continue"
    reactions.close(30)
    kind, _, said = (tmp_path / "told").read_text().partition(" ")

    assert kind == "nan_or_inf"
    assert (json.loads(said)["step"], json.loads(said)["run"]) == (7, "abc")


def test_a_command_that_fails_is_said_with_its_last_line(guard: Guard, capsys: pytest.CaptureFixture[str]) -> None:
    reactions = Reactions("command:echo no such channel >&2; exit 3", guard)
    reactions.later(GRAVE)
    reactions.close(30)

    assert "exit code 3: no such channel" in capsys.readouterr().err


def test_a_command_that_hangs_is_ended_with_what_it_began(
    guard: Guard, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracer.reactions._ALERT_S", 0.2)
    reactions = Reactions("command:sleep 60 & sleep 60", guard)
    reactions.later(GRAVE)
    reactions.close(30)

    assert "it took longer than 0.2 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ("rise", "Did you mean 'raise'"),
        (5, "on_anomaly=5 is int"),
        ("webhook:ftp://host/x", "Write webhook:https://host/path"),
        ("webhook:file:///etc/passwd", "Write webhook:https://host/path"),
        ("webhook:https://", "Write webhook:https://host/path"),
        ("command:", "names no command"),
        (["raise", "nonsense"], "Known: "),
    ],
)
def test_what_cannot_be_meant_is_refused_when_the_program_begins(choice: object, said: str, guard: Guard) -> None:
    with pytest.raises(ConfigError) as caught:
        Reactions(choice, guard)
    assert said in str(caught.value)


def test_a_severity_that_is_not_known_is_refused(guard: Guard) -> None:
    with pytest.raises(ConfigError, match="Choose one of: low, medium, high, critical"):
        Reactions("raise", guard, severity="grave")


def test_actions_of_the_environment_are_one_per_line() -> None:
    assert actions("checkpoint\n webhook:https://example.org/a,b \n") == (
        Action("checkpoint"),
        Action("webhook", "https://example.org/a,b"),
    )


def test_what_is_stored_of_the_setting_holds_no_secret() -> None:
    assert shown_action("webhook:https://user:pw@example.org/T000/secret?key=1") == "webhook:https://example.org/…"
    assert shown_action("command:curl -H 'key: secret' example.org") == "command:…"
    assert shown_action(["raise", test_actions_of_the_environment_are_one_per_line])[0] == "raise"  # type: ignore[index]


def test_a_message_is_plain_json() -> None:
    finding = Finding("x", "high", 1, {"a": math.inf, "b": (1, {"c": object}), "layer": "fc"})

    assert json.loads(json.dumps(payload(finding, {}), allow_nan=False))["details"]["a"] == "Infinity"


def test_the_exception_says_where_the_capsule_is() -> None:
    error = anomaly(Finding("nan_or_inf", "critical", 7, {"capsule": "step-7.capsule", "remedy": "Clamp it."}))

    assert error.capsule == "step-7.capsule"
    assert str(error) == (
        "Training was stopped: nan_or_inf (critical) at step 7. Clamp it. Look at it with "
        '`tracer replay step-7.capsule`. It was stopped because on_anomaly="raise" is set.'
    )


def test_the_examples_in_the_docstrings_run() -> None:
    results = doctest.testmod(reactions, extraglobs={"Guard": Guard})

    assert results.attempted > 0
    assert results.failed == 0
