"""What a program asked to be done about a finding: stop, skip, save, be called, tell somebody.

Who notices trouble while the training waits (the flight recorder, before the optimizer steps) asks `now`. Who notices
it beside the training (live detection) hands it to `later`; the end of the next step acts on it with `due`. Webhooks
and commands run on a thread of their own, so a dead server costs the training nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tracer.sink import Guard

import contextlib
import json
import math
import os
import queue
import threading
from collections import OrderedDict, deque

from tracer import clock
from tracer.analysis import severities
from tracer.config import shown_action
from tracer.errors import ConfigError, TrainingAnomaly
from tracer.events import Finding

CONTINUE, RAISE, SKIP, GUARD, CHECKPOINT = "continue", "raise", "skip", "guard", "checkpoint"
WEBHOOK, COMMAND, CALL = "webhook", "command", "call"
#: What a program may write, and what it means; the strictest of several wins.
_NAMES = {CONTINUE: CONTINUE, RAISE: RAISE, "stop": RAISE, SKIP: SKIP, GUARD: GUARD, CHECKPOINT: CHECKPOINT}
_STRICTNESS = (CONTINUE, CHECKPOINT, SKIP, GUARD, RAISE)
_KNOWN = (
    'Known: "continue", "raise" (or "stop"), "skip", "guard", "checkpoint", "webhook:https://…", "command:…", '
    "a function, or a list of them."
)
_DEFAULT_SEVERITY = "high"
_ALERT_S = 10.0
_MAX_WAITING = 32
_MAX_EPISODES = 1024
_ABOUT = ("metric", "layer", "layer_name", "parameter")


class Action:
    """One thing to do; `target` is a function, an address or a command line."""

    __slots__ = ("kind", "target")

    def __init__(self, kind: str, target: object = None) -> None:
        self.kind, self.target = kind, target

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Action) and (self.kind, self.target) == (other.kind, other.target)

    def __hash__(self) -> int:
        return hash((self.kind, self.target))

    def __repr__(self) -> str:
        """Show what it is without what may be secret: an address may hold a key."""
        return f"Action({self.kind!r})"


class Reactions:
    """Acts on findings as a program asked with `on_anomaly`.

    A function is called for every finding and decides for itself. Everything else happens from `severity` on, once per
    episode: a trouble that lasts for a thousand steps sends one message.

    Args:
        choice: What `on_anomaly` was set to.
        guard: Takes what goes wrong here.
        severity: The least severity that stops, saves or alerts; `high` when None.
        checkpoint: Records a checkpoint.
        about: What every message says of the run: its id, name, project.

    Raises:
        ConfigError: The choice or the severity cannot be meant.

    Example:
        >>> reactions = Reactions(["checkpoint", "raise"], Guard())
        >>> reactions.now(Finding("nan_or_inf", "critical", 7, {}))
        'raise'
    """

    def __init__(
        self,
        choice: object,
        guard: Guard,
        *,
        severity: str | None = None,
        checkpoint: Callable[[], None] | None = None,
        about: Mapping[str, object] | None = None,
    ) -> None:
        self.choose(choice, severity)
        self._guard, self._checkpoint, self.about = guard, checkpoint, dict(about or {})
        self._done: OrderedDict[tuple[object, ...], set[Action]] = OrderedDict()
        self._waiting: deque[Finding] = deque()
        self._alerts = Alerts(guard)
        self._saving = False

    def choose(self, choice: object, severity: str | None = None) -> None:
        """Act in this way from now on; arguments and errors as of the class."""
        chosen = actions(choice)
        if severity is not None and severity not in severities.SEVERITIES:
            message = f"anomaly_severity={severity!r} is not known. Choose one of: {', '.join(severities.SEVERITIES)}."
            raise ConfigError(message)
        self.actions, self._least = chosen, severities.rank(severity or _DEFAULT_SEVERITY)

    @property
    def waiting(self) -> bool:
        """Whether the end of the next step has something to do."""
        return bool(self._waiting)

    @property
    def guards(self) -> bool:
        """Whether the device shall leave out bad updates by itself, which has to be prepared before the first."""
        return any(action.kind == GUARD for action in self.actions)

    def now(self, finding: Finding) -> str:
        """Act on a finding before the optimizer steps; on the training thread.

        Args:
            finding: What was found.

        Returns:
            What the caller has to do: `continue`, `raise`, `skip` or `guard`.
        """
        return self._react(finding, at_commit=True)

    def later(self, finding: Finding) -> None:
        """Act on a finding that was made beside the training; from any thread.

        Messages leave at once. Stopping, saving and calling functions wait for `due`, on the training thread.
        """
        for action in self._open(finding, (WEBHOOK, COMMAND)):
            self._alert(action, finding)
        if any(action.kind in (CALL, CHECKPOINT, RAISE) for action in self.actions):
            self._waiting.append(finding)

    def due(self) -> None:
        """Act on what waits; called at the end of a step.

        Raises:
            TrainingAnomaly: The program asked to be stopped.
        """
        stopped = None
        while self._waiting:
            finding = self._waiting.popleft()
            if self._react(finding, at_commit=False) == RAISE and stopped is None:
                stopped = finding
        if stopped is not None:
            raise anomaly(stopped)

    def close(self, timeout_s: float) -> None:
        """Wait for messages that are on their way, for so long at most: a program that was stopped still tells."""
        self._alerts.close(timeout_s)

    def _react(self, finding: Finding, *, at_commit: bool) -> str:
        """Do everything that is to be done on the training thread; return the strictest name."""
        chosen = [CONTINUE]
        for action in self._open(finding, (CHECKPOINT, CALL, SKIP, GUARD, RAISE, *((WEBHOOK, COMMAND) * at_commit))):
            if action.kind == CALL:
                chosen.append(self._call(action.target, finding))
            elif action.kind in (WEBHOOK, COMMAND):
                self._alert(action, finding)
            else:
                chosen.append(action.kind)
        if CHECKPOINT in chosen:
            self._save()
        strictest = max(chosen, key=_STRICTNESS.index)
        return CONTINUE if strictest == CHECKPOINT else strictest

    def _open(self, finding: Finding, kinds: tuple[str, ...]) -> list[Action]:
        """Return the actions of some kinds that this finding asks for and that its episode has not had yet."""
        key = (finding.kind, finding.step, *(finding.details.get(name) for name in _ABOUT))
        done = self._done.setdefault(key, set())
        while len(self._done) > _MAX_EPISODES:
            self._done.popitem(last=False)
        grave = severities.rank(finding.severity) >= self._least
        chosen = [
            action
            for action in self.actions
            if action.kind in kinds and (grave or action.kind == CALL) and action not in done
        ]
        # What protects the weights protects them at every step of an episode.
        done.update(action for action in chosen if action.kind not in (SKIP, GUARD))
        return chosen

    def _call(self, function: object, finding: Finding) -> str:
        """Call a function of the program; what it raises or returns wrongly is said, and training goes on."""
        if not callable(function):
            return CONTINUE
        name = getattr(function, "__name__", type(function).__name__)
        answer: object = None
        with self._guard(f"the function {name!r} of on_anomaly, called for {finding.kind} at step {finding.step},"):
            try:
                answer = function(finding)
            except TrainingAnomaly:  # its own way of saying "raise"
                return RAISE
        if answer is None or (isinstance(answer, str) and answer in _NAMES):
            return _NAMES.get(str(answer), CONTINUE)
        self._guard.say(
            f"on_anomaly: {name}: answer",
            f"the function {name!r} given as on_anomaly returned {answer!r}, which is no action. Return one of "
            f"{', '.join(map(repr, _NAMES))}, or None. Training goes on.",
        )
        return CONTINUE

    def _save(self) -> None:
        """Record a checkpoint; not while one is being recorded."""
        if self._checkpoint is None or self._saving:
            return
        self._saving = True
        try:
            with self._guard("recording a checkpoint for an anomaly"):
                self._checkpoint()
        finally:
            self._saving = False

    def _alert(self, action: Action, finding: Finding) -> None:
        """Send a message about a finding on its way."""
        self._alerts.send(action, payload(finding, self.about))


class Alerts:
    """Sends messages on one thread of its own, the oldest first; what cannot be sent is said once."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._queue: queue.Queue[tuple[Action, dict[str, object]] | None] = queue.Queue(_MAX_WAITING)
        self._idle = threading.Event()
        self._idle.set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self.sent = self.failed = 0

    def send(self, action: Action, said: dict[str, object]) -> None:
        """Have a message sent."""
        with self._lock:
            try:
                self._queue.put_nowait((action, said))
            except queue.Full:
                self.failed += 1
                self._guard.say("alerts", f"{_MAX_WAITING} alerts wait already; further ones are dropped.")
                return
            self._idle.clear()
            if self._thread is None or not self._thread.is_alive():
                # A daemon: a program must be able to exit whatever a server does.
                self._thread = threading.Thread(target=self._run, name="tracer-alerts", daemon=True)
                self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Wait until everything is sent, for so long at most."""
        clock.wait(self._idle, timeout_s)
        with self._lock, contextlib.suppress(queue.Full):
            if self._thread is not None:
                self._queue.put_nowait(None)

    def _run(self) -> None:
        """Send what comes until told to end."""
        while (job := self._queue.get()) is not None:
            action, said = job
            try:
                (_post if action.kind == WEBHOOK else _run_command)(str(action.target), said)
                self.sent += 1
            except (OSError, ValueError) as error:
                self.failed += 1
                self._guard.say(
                    f"alert: {action.kind}",
                    f"the {action.kind} of on_anomaly failed ({_place(action)}: {error}). Your program is unaffected.",
                )
            with self._lock:
                if self._queue.empty():
                    self._idle.set()


def actions(choice: object) -> tuple[Action, ...]:
    """Return what `on_anomaly` asks for.

    Args:
        choice: A name, a function, or a list of them; text may hold one per line.

    Raises:
        ConfigError: Something of it is not known.

    Example:
        >>> actions("stop"), actions(["checkpoint", "command:notify-send training"])
        ((Action('raise'),), (Action('checkpoint'), Action('command')))
    """
    if choice is None:
        return ()
    if callable(choice):
        return (Action(CALL, choice),)
    if isinstance(choice, (list, tuple)):
        return tuple(dict.fromkeys(action for part in choice for action in actions(part)))
    if not isinstance(choice, str):
        message = f"on_anomaly={choice!r} is {type(choice).__name__}, which is no action. {_KNOWN}"
        raise ConfigError(message)
    found = [_action(line.strip()) for line in choice.splitlines() if line.strip()]
    return tuple(action for action in found if action.kind != CONTINUE)


def payload(finding: Finding, about: Mapping[str, object]) -> dict[str, object]:
    """Return what a message says: plain JSON, with `text` in one line for people."""
    where = about.get("name") or about.get("run")
    named = [str(finding.details[key]) for key in _ABOUT if finding.details.get(key) is not None]
    text = f"{finding.kind} ({finding.severity}) at step {finding.step}"
    text += f" in {', '.join(named)}" if named else ""
    text += f" of run {where}" if where else ""
    said = {"kind": finding.kind, "severity": finding.severity, "step": finding.step, "last_step": finding.last_step}
    found = _plain({**about, **said, "details": finding.details, "text": text})
    return found if isinstance(found, dict) else {}


def anomaly(finding: Finding) -> TrainingAnomaly:
    """Return the exception that stops a training because of a finding."""
    capsule = finding.details.get("capsule")
    text = payload(finding, {})["text"]
    remedy = finding.details.get("remedy")
    message = f"Training was stopped: {text}." + (f" {remedy}" if remedy else "")
    if capsule:
        message += f" Look at it with `tracer replay {capsule}`."
    message += ' It was stopped because on_anomaly="raise" is set.'
    return TrainingAnomaly(message, finding=finding, capsule=str(capsule) if capsule else None)


def _action(text: str) -> Action:
    """Return the action that a text names."""
    if text.lower() in _NAMES:
        return Action(_NAMES[text.lower()])
    kind, _, target = text.partition(":")
    target = target.strip()
    if kind == WEBHOOK:
        from urllib.parse import urlsplit

        try:
            parts = urlsplit(target)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            message = (
                f"on_anomaly={shown_action(text)!r} has no address that can be called. Write webhook:https://host/path."
            )
            raise ConfigError(message)
        return Action(WEBHOOK, target)
    if kind == COMMAND:
        if not target:
            message = "on_anomaly='command:' names no command. Write, for example, command:notify-send training."
            raise ConfigError(message)
        return Action(COMMAND, target)
    import difflib

    near = difflib.get_close_matches(text.lower(), [*_NAMES, WEBHOOK, COMMAND], n=1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    message = f"on_anomaly={text!r} is not an action. {hint}{_KNOWN}"
    raise ConfigError(message)


def _post(address: str, said: dict[str, object]) -> None:
    """Send a message to a web address; raises when it was not taken."""
    import http.client
    from urllib.request import HTTPRedirectHandler, Request, build_opener

    class Nowhere(HTTPRedirectHandler):
        """Follows nobody: an alert goes where the program said."""

        def redirect_request(self, *_: object) -> None:
            """Refuse."""

    request = Request(  # noqa: S310 -- http or https, checked when the program began
        address, json.dumps(said).encode(), {"Content-Type": "application/json", "User-Agent": "tracer"}
    )
    try:
        with build_opener(Nowhere).open(request, timeout=_ALERT_S) as answer:
            answer.read(1024)
    except http.client.HTTPException as error:
        raise OSError(str(error) or type(error).__name__) from error


def _run_command(line: str, said: dict[str, object]) -> None:
    """Run a command with a message on its standard input; raises when it failed or took too long."""
    facts = {key: said.get(key) for key in ("kind", "severity", "step", "last_step", "run", "name", "project", "text")}
    named = {f"TRACER_ANOMALY_{key.upper()}": str(value) for key, value in facts.items() if value is not None}
    import signal
    import subprocess

    process = subprocess.Popen(  # noqa: S602 -- the program's own line
        line, shell=True, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={**os.environ, **named}, start_new_session=True,
    )  # fmt: skip
    try:
        _, errors = process.communicate(json.dumps(said).encode(), timeout=_ALERT_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(OSError):
            os.killpg(process.pid, signal.SIGKILL)  # a group of its own: what the shell began ends too
        process.communicate()
        raise OSError(f"it took longer than {_ALERT_S:g} s") from None  # noqa: EM102, TRY003 -- a line for `say`
    if process.returncode:
        last = errors.decode(errors="replace").strip().splitlines()[-1:]
        raise OSError(f"exit code {process.returncode}{': ' if last else ''}{''.join(last)}")  # noqa: EM102, TRY003


def _place(action: Action) -> str:
    """Name where an alert goes, without what may be secret."""
    if action.kind == WEBHOOK:
        from urllib.parse import urlsplit

        return str(urlsplit(str(action.target)).hostname)
    return str(action.target).split()[0]


def _plain(value: object) -> object:
    """Return a value as strict JSON holds it: no NaN, no arrays, no objects."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return str(value)


__all__ = ["Action", "Alerts", "Reactions", "actions", "anomaly", "payload"]
