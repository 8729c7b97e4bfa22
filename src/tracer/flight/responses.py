"""What follows an anomaly: diagnose, write a capsule, report, act; each within its limits.

The training waits for the diagnosis (about one step, at most once in a hundred) and for the clones; the file is written
on a thread of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import Module
from torch.optim import Optimizer

from tracer import clock, sink
from tracer.errors import TrainingAnomaly
from tracer.events import Finding
from tracer.flight.settings import ACTIONS, FlightConfig
from tracer.flight.steps import Step
from tracer.sink import Guard

if TYPE_CHECKING:
    from tracer.flight.digests import Trace
    from tracer.flight.origin import Origin
    from tracer.flight.stored_snapshots import SnapshotData

NAN_OR_INF, EXPLOSION, SPIKE = "nan_or_inf", "gradient_explosion", "loss_spike"
EXCEPTION, OUT_OF_MEMORY, STALL = "exception", "out_of_memory", "stall"
SIGNAL, MANUAL, AMP_SKIPS = "signal", "manual", "amp_skips"
#: Kinds that a person asked for: they are no trouble, and no limit but the disk's holds for them.
ASKED = frozenset({SIGNAL, MANUAL})
KINDS = (NAN_OR_INF, EXPLOSION, SPIKE, EXCEPTION, OUT_OF_MEMORY, STALL, SIGNAL, MANUAL, AMP_SKIPS)
_GROWN = frozenset({EXPLOSION, SPIKE})
_SEARCHED = _GROWN | {NAN_OR_INF, AMP_SKIPS}
_TRACED = _SEARCHED
_DIAGNOSIS_STEPS = 100
#: A search may take so many times the length of a step, and on short steps this.
_SEARCH_STEPS, _SHORTEST_SEARCH_S = 10.0, 10.0

#: Kind → how grave, and what can be done about it.
_ADVICE: Mapping[str, tuple[str, str]] = {
    NAN_OR_INF: (
        "critical",
        (
            "Keep the operation's input in its domain (clamp it, or add a small constant), or leave such steps out "
            'with on_anomaly="skip".'
        ),
    ),
    EXPLOSION: (
        "high",
        (
            "Clip the gradients with torch.nn.utils.clip_grad_norm_, lower the learning rate or warm it up, and look "
            "at the rows of this batch."
        ),
    ),
    SPIKE: ("medium", "Look at the rows of this batch; if they are sound, lower the learning rate."),
    EXCEPTION: ("critical", "Replay the capsule with `tracer replay FILE --pdb` to stand where it was raised."),
    OUT_OF_MEMORY: (
        "critical",
        (
            "Take a smaller batch with gradient accumulation, checkpoint activations, or look for tensors that outlive "
            "their step."
        ),
    ),
    STALL: ("high", "Read stacks.txt in the capsule: it shows where each thread stood."),
    AMP_SKIPS: (
        "high",
        (
            "The gradients overflow at every scale that was tried: look at the origin, or train with bfloat16, which "
            "needs no scaler."
        ),
    ),
    SIGNAL: ("low", ""),
    MANUAL: ("low", ""),
}


@dataclass(slots=True)
class Anomaly:
    """Something that is wrong with a step."""

    kind: str
    step: Step
    text: str  # what was seen, a sentence
    value: float | None = None
    from_gradients: bool = True  # equal on all ranks of a job, so that all may act upon it
    exact: bool = True  # the parameters are still those that the step began with
    late: bool = False  # it is about the step before, so the update under way is none that could be skipped
    details: dict[str, Any] = field(default_factory=dict)
    attachments: dict[str, bytes] = field(default_factory=dict)
    notes: Sequence[str] = ()
    error: str | None = None


@dataclass(slots=True)
class Scene:
    """What surrounds an anomaly: given by the recorder at the moment."""

    model: Module
    optimizer: Optimizer | None
    ring: Sequence[Step]
    step_s: float
    check: str
    snapshot: SnapshotData | None = None


@dataclass(slots=True)
class Answer:
    """What was found out, and where it was written."""

    finding: Finding
    capsule: str | None = None  # the path, as soon as it is written


class Responses:
    """Answers anomalies of one recorder, and keeps the limits of a run.

    Args:
        config: The settings.
        folder: Where capsules are written; None writes none.
        guard: Keeps a failure of ours out of the training.
    """

    def __init__(self, config: FlightConfig, folder: str | None, guard: Guard) -> None:
        self.config, self.folder, self._guard = config, folder, guard
        self.counts: dict[str, int] = {}
        self.capsules: list[str] = []
        self.given_up = 0  # capsules that a limit forbade
        self.bytes = 0
        self.seconds = 0.0
        self._fingerprints: set[tuple[str, ...]] = set()
        self._diagnosed_at: int | None = None
        self._writing: list[threading.Thread] = []
        self._lock = threading.Lock()
        self.rank, self.world_size = _place()

    def report(self, anomaly: Anomaly, scene: Scene) -> Answer:
        """Diagnose, write and report an anomaly.

        Args:
            anomaly: What was seen.
            scene: Where.

        Returns:
            The finding, which was emitted; the capsule's path is filled in when the file is whole.
        """
        started = clock.monotonic()
        self.counts[anomaly.kind] = self.counts.get(anomaly.kind, 0) + 1
        origin = None
        with self._guard("searching the origin of an anomaly"):
            origin = self._origin(anomaly, scene)
        answer = Answer(self._finding(anomaly, origin))
        with self._guard("making a capsule"):
            self._capsule(anomaly, scene, origin, answer)
        sink.emit(answer.finding)
        if anomaly.kind not in ASKED:
            self._guard.say(f"anomaly {anomaly.kind}", _paragraph(answer.finding))  # once a minute for each kind
        self.seconds += clock.monotonic() - started
        return answer

    def action(self, anomaly: Anomaly, answer: Answer | None) -> str:
        """Return what the user wants done: `continue`, `raise`, `skip` or `guard`."""
        chosen = self.config.on_anomaly
        if callable(chosen):
            said: Any = None
            with Guard(self._guard.counters, quiet=self._guard.quiet)("calling on_anomaly"):  # the user's own function
                said = chosen(answer.finding if answer else self._finding(anomaly, None))
            chosen = said if said in ACTIONS else "continue"
        if chosen == "skip" and self.world_size > 1 and not anomaly.from_gradients:
            return "continue"  # another rank does not see it, and parameters that differ are worse than a bad step
        return str(chosen)

    def raise_anomaly(self, answer: Answer) -> None:
        """Stop the training, as the user asked; the capsule is whole before that."""
        self.wait()
        message = _paragraph(answer.finding)
        raise TrainingAnomaly(message, finding=answer.finding, capsule=answer.capsule)

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the capsules are written."""
        for thread in tuple(self._writing):
            if thread is not threading.current_thread():
                thread.join(timeout_s)

    def _origin(self, anomaly: Anomaly, scene: Scene) -> Origin | None:
        """Search the operation that bore the fault, at most once in a hundred steps."""
        step = anomaly.step
        if anomaly.kind not in _SEARCHED or not self.config.diagnose or not step.replayable:
            return None
        if self._diagnosed_at is not None and step.index - self._diagnosed_at < _DIAGNOSIS_STEPS:
            return None
        if any(hasattr(parameter, "to_local") for parameter in scene.model.parameters()):
            return None  # spread over ranks: a rerun here alone would wait for the others
        self._diagnosed_at = step.index
        from tracer.flight.origin import find_origin, largest_growth  # load what only a search needs

        limit_s = max(_SHORTEST_SEARCH_S, _SEARCH_STEPS * scene.step_s)
        if anomaly.kind in _GROWN:
            return largest_growth(scene.model, step, guard=self._guard)
        return find_origin(scene.model, step, guard=self._guard, limit_s=limit_s)

    def _trace(self, anomaly: Anomaly, scene: Scene) -> Trace | None:
        """Return the hashes of a second run of the step, by which a replay finds the module where it differs."""
        if anomaly.kind not in _TRACED or not self.config.diagnose or not (anomaly.exact and anomaly.step.replayable):
            return None
        if any(hasattr(parameter, "to_local") for parameter in scene.model.parameters()):
            return None  # as in `_origin`
        from tracer.flight.replay import trace

        found: Trace | None = None
        with self._guard("running a step again for its hashes"):
            found = trace(scene.model, anomaly.step)
        return found  # noqa: RET504 -- the guard may have ended the block before

    def _finding(self, anomaly: Anomaly, origin: Origin | None) -> Finding:
        """Return the event that says it."""
        severity, remedy = _ADVICE[anomaly.kind]
        said = {"explanation": anomaly.text, "remedy": remedy, "norm": anomaly.step.norm, "loss": anomaly.step.loss}
        details: dict[str, Any] = {**said, "capsule": None, **anomaly.details}
        if origin is not None:
            details["origin"] = origin.to_json()
            details["explanation"] = f"{anomaly.text} {origin.text}"
        if self.world_size > 1:
            details["rank"] = self.rank
            if origin is not None:
                details["culprit"] = origin.reproduced
        return Finding(anomaly.kind, severity, anomaly.step.number, details)

    def _capsule(self, anomaly: Anomaly, scene: Scene, origin: Origin | None, answer: Answer) -> None:
        """Clone what a capsule needs, and have it written."""
        if not self._allowed(anomaly, origin):
            return
        from tracer.flight.writing import Facts, collect  # loads what only a capsule needs

        facts = Facts(
            kind=anomaly.kind,
            value=anomaly.value,
            ring=list(scene.ring),
            origin=origin,
            run=self._run(),
            rank=self.rank,
            world_size=self.world_size,
            check=scene.check,
            exact=anomaly.exact,
            notes=list(anomaly.notes),
            attachments=anomaly.attachments,
            optimizer=scene.optimizer,
            snapshot=scene.snapshot,
            include_model=self.config.include_model,
            error=anomaly.error,
            trace=self._trace(anomaly, scene),
        )
        draft = collect(scene.model, _frozen(anomaly.step), facts)
        if self.bytes + draft.size_bytes > self.config.disk_mb * 2**20:
            self.given_up += 1
            limit = f"disk_mb={self.config.disk_mb:g}"
            self._guard.say("capsule disk limit", f"a capsule was not written: {limit} is used up.")
            return
        self.bytes += draft.size_bytes
        self.capsules.append(draft.name)
        answer.finding.details["capsule"] = draft.name  # type: ignore[index]  # we made it a dictionary
        thread = threading.Thread(target=self._write, args=(draft, answer), name="tracer-capsule", daemon=False)
        self._writing.append(thread)
        thread.start()

    def _write(self, draft: Any, answer: Answer) -> None:  # noqa: ANN401 -- a Draft, imported where it is made
        """Write a file; runs on a thread of its own, which the interpreter waits for at its end."""
        from tracer.flight.writing import write

        with self._guard(f"writing {draft.name}"), self._lock:  # one disk: two capsules at once are no faster
            answer.capsule = write(draft, str(self.folder))
        if threading.current_thread() in self._writing:
            self._writing.remove(threading.current_thread())

    def _allowed(self, anomaly: Anomaly, origin: Origin | None) -> bool:
        """Tell whether a capsule may be written: so many per run, one of each kind and place."""
        if self.folder is None:
            return False
        if anomaly.kind in ASKED:
            return True
        place = ("", "") if origin is None else (str(origin.op), str(origin.module))
        fingerprint = (anomaly.kind, *place)
        # An anomaly that was not diagnosed is most likely the one of the same kind that was.
        known = fingerprint in self._fingerprints or (
            origin is None and any(one[0] == anomaly.kind for one in self._fingerprints)
        )
        if known or len(self._fingerprints) >= self.config.max_capsules:
            self.given_up += 1
            return False
        self._fingerprints.add(fingerprint)
        return True

    def _run(self) -> str | None:
        """Return the run's id, which names the folder above the capsules."""
        return None if self.folder is None else os.path.basename(os.path.dirname(os.path.abspath(self.folder)))


def _frozen(step: Step) -> Step:
    """Return a step whose lists nobody else changes while it is written."""
    return replace(step, calls=list(step.calls), clips=list(step.clips), notes=list(step.notes))


def _paragraph(finding: Finding) -> str:
    """Return a finding as people read it."""
    details = finding.details
    parts = [f"{finding.kind.replace('_', ' ')} at step {finding.step}: {details['explanation']}"]
    if details.get("capsule"):
        parts.append(f"Capsule: {details['capsule']}.")
    if details.get("remedy"):
        parts.append(str(details["remedy"]))
    return " ".join(parts)


def _place() -> tuple[int, int]:
    """Return this process' rank and the size of its job."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    try:
        return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        return 0, 1


__all__ = [
    "AMP_SKIPS",
    "ASKED",
    "EXCEPTION",
    "EXPLOSION",
    "KINDS",
    "MANUAL",
    "NAN_OR_INF",
    "OUT_OF_MEMORY",
    "SIGNAL",
    "SPIKE",
    "STALL",
    "Anomaly",
    "Answer",
    "Responses",
    "Scene",
]
