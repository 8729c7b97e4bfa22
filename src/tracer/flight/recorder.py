"""The flight recorder of one model: it keeps the step under way, looks at it before the optimizer does, and answers.

At the optimizer's pre-step hook the parameters are still those that the step began with, so nothing has to be copied to
run a failing step again: its inputs, the generators' states and what reached the outputs are enough. `Calls` keeps
those, `Judge` looks at the numbers, `Responses` acts. The recorder lets go of everything when its model is gone.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import torch
from torch.nn import Module
from torch.optim import Optimizer

from tracer import clock
from tracer.capture import clipping, commits, scaling
from tracer.errors import UsageError
from tracer.flight.amp import Amp
from tracer.flight.asking import Asking, Request, of_exception
from tracer.flight.calls import Calls
from tracer.flight.holdings import Held, Holdings, is_fused
from tracer.flight.judgement import details_of
from tracer.flight.look import Found, Look
from tracer.flight.responses import (
    AMP_SKIPS,
    EXPLOSION,
    KINDS,
    MANUAL,
    SPIKE,
    Anomaly,
    Answer,
    Responses,
    Scene,
)
from tracer.flight.ring import Ring, strip
from tracer.flight.settings import FlightConfig
from tracer.flight.shield import Shield
from tracer.flight.snapshots import Snapshots, host_memory
from tracer.flight.steps import Step
from tracer.flight.undisturbed import replaying, unwrapped
from tracer.sink import Guard

if TYPE_CHECKING:
    from pathlib import Path

    from tracer.flight.origin import Origin

_REMEMBERED, _FEWEST_STEPS = 32, 8
#: After so many steps without a call, and none with one, the user is told.
_UNSEEN_STEPS = 3
_BETWEEN = "The capsule was made between two steps: it holds the last one, with parameters that were changed since."
_OTHER_OPTIMIZER = "Another optimizer had already changed some parameters of the model in this step."
_CLOSURE = "The optimizer called its closure several times; this is its last call."

_recorders: weakref.WeakKeyDictionary[Module, weakref.ref[FlightRecorder]] = weakref.WeakKeyDictionary()


class FlightRecorder:
    """Keeps the last steps of a model's training, and writes a capsule when one goes wrong.

    Args:
        model: The model; a compiled or a distributed one is given as it is called. It is not kept alive.
        optimizer: The optimizer that steps it; optimizers are found without it.
        config: The settings; those of environment and file when absent.
        norms: Returns the gradient norm that somebody has measured at this step already, None if nobody has.
        loss: Returns the loss that was logged last.
        folder: Where capsules are written, a folder `capsules` inside the run's; None writes none.
        guard: Keeps a failure of ours out of the training.
        step_number: Returns the number of the step under way; steps are counted when absent.

    Raises:
        TypeError: `model` is no `torch.nn.Module`.
        ValueError: The optimizer holds no parameter of the model, or `guard` was asked for one that is not fused.
        UsageError: The model is being recorded already; `FlightRecorder.of` returns its recorder.

    Example:
        >>> model = torch.nn.Linear(2, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> with FlightRecorder(model, optimizer) as recorder:
        ...     model(torch.ones(4, 2)).sum().backward()
        ...     optimizer.step()
        ...     recorder.stats()["steps"]
        1
    """

    def __init__(
        self,
        model: Module,
        optimizer: object = None,
        config: FlightConfig | None = None,
        *,
        norms: Callable[[], float | None] | None = None,
        loss: Callable[[], float | None] | None = None,
        folder: str | None = None,
        guard: Guard | None = None,
        step_number: Callable[[], int] | None = None,
    ) -> None:
        if not isinstance(model, Module):
            message = f"Only a torch.nn.Module can be recorded; got {type(model).__name__}. Pass the model itself."  # type: ignore[unreachable]
            raise TypeError(message)
        if FlightRecorder.of(model) is not None:
            message = f"This {type(model).__name__} is being recorded already; FlightRecorder.of(model) returns it."
            raise UsageError(message)
        self.config = config or FlightConfig.load()
        self._guard = guard or Guard()
        self._model = weakref.ref(model)
        self._step_number = step_number
        self._guards = self.config.guard or self.config.on_anomaly == "guard"
        self._check_optimizer(model, optimizer)
        self._calls = Calls(model, self._guard)
        self._calls.upstream = self.config.upstream != "off"
        self._calls.before_first = self._settle
        self._calls.step.number = self._number()
        self._ring = Ring(self.config.ring, self.config.ring_mb * 2**20)
        self._responses = Responses(self.config, folder, self._guard)
        self._snapshots = self._made_snapshots(model)
        self._holdings = Holdings(model)
        self._amp = Amp(self._calls, self._is_ours, self._skips_too_often, self.config.scaler_skips)
        self._numbers = Look(
            *(self._calls, self._holdings, self._amp, self._ring, self.config, self._guard), norms=norms, logged=loss
        )
        self._committed = False  # an optimizer has stepped, and the step is not closed yet
        self._batches: deque[Any] = deque(maxlen=64)  # what `note_rows` was told in the step under way
        self._closures = 0  # how often the closure of the optimizer under way was called
        self._looked_in_closure = False  # another call now would be one of the closure again
        self._times: deque[float] = deque(maxlen=_REMEMBERED)
        self._last_commit: float | None = None
        self._stepping = False
        self.steps = self._unseen = 0
        self._look_shield = Shield(self._guard, "checking a step")
        self._close_shield = Shield(self._guard, "closing a step")
        self._clip_shield = Shield(self._guard, "recording a clipping")
        self._stopped = False
        self._reported: tuple[int, str] | None = None
        self._install(model, folder)

    # Public.

    @classmethod
    def of(cls, model: Module) -> FlightRecorder | None:
        """Return the recorder of a model, None if it has none.

        Args:
            model: The model, as it was given to the recorder.

        Returns:
            The recorder that is at work.

        Example:
            >>> FlightRecorder.of(torch.nn.Linear(2, 1)) is None
            True
        """
        found = _recorders.get(model)
        recorder = None if found is None else found()
        return None if recorder is None or recorder.stopped else recorder

    def commit(self) -> None:
        """Look at the step under way; for an optimizer that is not torch's, called just before its update.

        Raises:
            TrainingAnomaly: Something is wrong with the step, and `on_anomaly="raise"` was chosen.

        Example:
            >>> model = torch.nn.Linear(2, 1)
            >>> recorder = FlightRecorder(model)
            >>> model(torch.ones(4, 2)).sum().backward()
            >>> recorder.commit()
            >>> recorder.stop()
        """
        model = self._model()
        if model is None or self._stopped or replaying():
            return
        self._look(None, self._holdings.everything())
        self._close(None)

    def capsule_now(self, reason: str = MANUAL) -> Path | None:
        """Write a capsule of the step under way, and wait until it is whole.

        Args:
            reason: `manual`, or what the file shall be called after.

        Returns:
            The file; None where capsules have no folder, or the disk refused it.

        Example:
            >>> model = torch.nn.Linear(2, 1)
            >>> FlightRecorder(model).capsule_now() is None  # no folder was given
            True
        """
        from pathlib import Path

        answer = self._serve(Request(reason if reason in KINDS else MANUAL, f"Asked for: {reason}."))
        self._responses.wait()
        return None if answer is None or answer.capsule is None else Path(answer.capsule)

    def diagnose(self) -> Origin | None:
        """Run the step under way again, and return the operation from which its first bad number came.

        Returns:
            The origin; None if nothing is bad, or nothing was recorded since the last step.

        Raises:
            Exception: Whatever the model's own code raises.

        Example:
            >>> model = torch.nn.Linear(2, 1)
            >>> FlightRecorder(model).diagnose() is None
            True
        """
        from tracer.flight.origin import find_origin

        model, step = self._model(), self._calls.complete(self._calls.step)
        return find_origin(model, step) if model is not None and step.replayable else None

    def stats(self) -> dict[str, Any]:
        """Return what the recorder did and what it cost.

        Returns:
            `steps`, `cost_s` and `cost_share` of the hooks, `response_s` of diagnoses and clones, the steps and bytes
            of the `ring`, `anomalies` by kind, `capsules` by name, `given_up` for a limit, `skipped_steps` of a
            GradScaler, whether `upstream` gradients are kept, how the norm is `check`ed, and `snapshots`.

        Example:
            >>> FlightRecorder(torch.nn.Linear(2, 1)).stats()["anomalies"]
            {}
        """
        cost, step_s = self.cost_s, self.step_s
        snapshots = self._snapshots
        return {
            "steps": self.steps,
            "cost_s": cost,
            "cost_share": cost / (self.steps * step_s) if self.steps and step_s else 0.0,
            "response_s": self._responses.seconds,
            "step_s": step_s,
            "ring": {"steps": len(self._ring), "bytes": self._ring.bytes},
            "anomalies": dict(self._responses.counts),
            "capsules": list(self._responses.capsules),
            "given_up": self._responses.given_up,
            "skipped_steps": self._amp.skipped_steps,
            "upstream": self._calls.upstream,
            "check": self.check,
            "snapshots": None
            if snapshots is None
            else {"copies": snapshots.copies, "interval": snapshots.interval, "off": snapshots.switched_off},
        }

    def stop(self) -> None:
        """Take all hooks off, let go of all tensors, wait until capsules are written; again it does nothing."""
        if self._stopped:
            return
        self._stopped = True
        self._asking.stop()
        for end in self._ends:
            end()
        self._calls.detach()
        self._ring.clear()
        self._holdings.clear()
        self._numbers.forget()
        if self._snapshots is not None:
            self._snapshots.clear()
        self._responses.wait()

    def __enter__(self) -> Self:
        """Give the recorder itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop; an exception that leaves the block gets its capsule first."""
        if isinstance(error, Exception):
            self.on_exception(error)
        self.stop()

    # For the rooms above.

    @property
    def cost_s(self) -> float:
        """Seconds that the hooks took so far; diagnoses, clones and snapshots are not among them."""
        shields = (self._look_shield, self._close_shield, self._clip_shield, self._calls.shield)
        return sum([shield.cost_s for shield in shields])

    @property
    def model(self) -> Module | None:
        """The model, as it was given; None when it is gone."""
        return self._model()

    @property
    def stopped(self) -> bool:
        """Whether nothing is recorded any more."""
        return self._stopped

    @property
    def step_s(self) -> float:
        """The median of the last steps' lengths in seconds, 0 before the first."""
        return self._calls.step_s

    @property
    def check(self) -> str:
        """How the norm is read: `sync` or `delayed`."""
        return self._numbers.check

    def on_exception(self, error: BaseException) -> Answer | None:
        """Write a capsule for an exception that ends the training.

        Args:
            error: The exception.

        Returns:
            What was reported; None where the exception is our own or was reported before.
        """
        said = (id(error), repr(error))  # the exception itself holds all frames, and their tensors
        if self._stopped or self._reported == said:
            return None
        self._reported = said
        request = of_exception(error, in_step=self._stepping)
        return None if request is None else self._serve(request)

    def request(self, kind: str = MANUAL) -> None:
        """Ask for a capsule at the next step; any thread and any signal handler may."""
        self._asking.ask(kind)

    # What the optimizer and those around it tell.

    def before_commit(self, optimizer: Optimizer, *, closure: bool) -> None:
        """Look at the step under way, unless its gradients are still to come."""
        if self._stopped or replaying():
            return
        held = self._holdings.of(optimizer)
        if held is None:
            return
        self._stepping, self._closures = True, 0
        if not closure:
            self._look(optimizer, held)

    def after_closure(self, optimizer: Optimizer) -> None:
        """Look at what a closure computed, before the optimizer uses it."""
        if self._stopped or replaying():
            return
        held = self._holdings.of(optimizer)
        if held is not None:
            self._closures += 1
            self._looked_in_closure = True
            self._look(optimizer, held)

    def after_commit(self, optimizer: Optimizer, *, closure: bool) -> None:  # noqa: ARG002 -- the listener's signature
        """Close the step."""
        if self._stopped or replaying():
            return
        held = self._holdings.of(optimizer)
        if held is None:
            return
        self._stepping = False
        if held.flagged:
            held.flagged = False
            del optimizer.found_inf  # type: ignore[attr-defined]  # of fused optimizers, set in `_protect`
        if self._holdings.several():
            self._committed = True  # a second optimizer may be about to use the same backward pass
            return
        with self._close_shield:
            self._close(optimizer)
        if self._snapshots is not None:
            with self._guard("copying the state"):
                self._calls.step.number = self._number()
                self._snapshots.step_begins(self._calls.step, optimizer, self.step_s)

    def clipped(self, clip: clipping.Clipped) -> None:
        """Take note of a clipping of the model's gradients."""
        if self._stopped or replaying():
            return
        with self._clip_shield:
            self._numbers.clipped(clip)

    # The look.

    def _look(self, optimizer: Optimizer | None, held: Held) -> None:
        """Judge the step under way, and act."""
        found: Found = []
        with self._look_shield:
            self._note(self._calls.step, optimizer)
            found = self._numbers.examine(optimizer, held)
        for anomaly, whose in found:
            self._answer(anomaly, whose, held)
        request = self._asking.take()
        if request is not None:
            self._serve(request)

    def _note(self, step: Step, optimizer: Optimizer | None) -> None:
        """Put down what surrounds a step."""
        calls, now = self._calls, clock.monotonic()
        self._asking.moved(now)
        if self._last_commit is not None:
            step.seconds = now - self._last_commit
        if self._step_number is not None:
            step.number = self._step_number()
        if optimizer is not None:
            rates = [group["lr"] for group in optimizer.param_groups if isinstance(group.get("lr"), float)]
            step.learning_rates = tuple(rates)
        if step.calls:
            calls.changed_inputs()
        else:
            self._miss_calls()

    def _miss_calls(self) -> None:
        """See why no call was seen before a step: the model may have been compiled in place since, or wrapped."""
        model = self._model()
        self._calls.attach()
        self._unseen += 1
        if self._unseen == _UNSEEN_STEPS and self._unseen > self.steps and model is not None:
            kind = type(model).__name__
            self._guard.say(
                "no calls seen",
                f"no call of the recorded {kind} was seen before its optimizer's steps, so they cannot be run again. "
                "If you call a compiled or wrapped form of it, record that one.",
            )

    def _is_ours(self, optimizer: Optimizer) -> bool:
        """Tell whether an optimizer steps the model, and whether anything is recorded just now."""
        return not self._stopped and not replaying() and self._holdings.of(optimizer) is not None

    def _skips_too_often(self, step: Step, optimizer: Optimizer | None, text: str) -> None:
        """Report that a GradScaler skips one step after the other."""
        held = self._holdings.of(optimizer) if optimizer is not None else None
        self._answer(Anomaly(AMP_SKIPS, step, text), optimizer, held, act=False)

    # The answer.

    def _answer(
        self, anomaly: Anomaly, optimizer: Optimizer | None, held: Held | None, *, act: bool = True
    ) -> Answer | None:
        """Report an anomaly, unless it only goes on, and do what the user wants done."""
        answer: Answer | None = None
        model = self._model()
        if model is None:
            return None
        if not self._numbers.goes_on(anomaly):
            with self._guard("answering an anomaly"):
                self._prepare(anomaly, model)
                answer = self._responses.report(anomaly, self._scene(model, optimizer, anomaly.step))
        else:
            self._responses.counts[anomaly.kind] = self._responses.counts.get(anomaly.kind, 0) + 1
        if anomaly.step is not self._calls.step:
            strip(anomaly.step)
        action = self._responses.action(anomaly, answer) if act else "continue"
        if action == "raise" and answer is not None:
            self._responses.raise_anomaly(answer)
        under_way = anomaly.step is self._calls.step and not anomaly.late
        if action in {"skip", "guard"} and held is not None and under_way:
            self._skip(held, optimizer, on_device=action == "guard")
        return answer

    def note_rows(self, batch: Any) -> None:  # noqa: ANN401 -- `capture.rows.Rows`; read only when a step goes wrong
        """Take note of which rows of the data set a batch of the step under way holds."""
        self._batches.append(batch)

    def _prepare(self, anomaly: Anomaly, model: Module) -> None:
        """Complete what is known of the step."""
        self._calls.complete(anomaly.step)
        if self._batches and anomaly.step is self._calls.step:
            known = [batch.arrived().ids for batch in self._batches]
            anomaly.step.rows = tuple(row for ids in known if ids is not None for row in ids.tolist())
        if self._closures > 1:
            anomaly.step.notes.append(_CLOSURE)
        if self._committed and anomaly.step is self._calls.step:
            anomaly.exact = False
            anomaly.step.notes.append(_OTHER_OPTIMIZER)
        if anomaly.kind in {EXPLOSION, SPIKE}:
            anomaly.details.update(details_of(list(unwrapped(model).named_parameters()), anomaly.step))

    def _skip(self, held: Held, optimizer: Optimizer | None, *, on_device: bool) -> None:
        """Keep this update from happening."""
        if on_device and held.flagged:
            return
        if on_device and optimizer is not None and is_fused(optimizer):
            optimizer.found_inf = torch.ones((), device=held.parameters[0].device)  # type: ignore[attr-defined]  # see `_protect`
            held.flagged = True
            return
        for parameter in held.parameters:
            parameter.grad = None

    def _serve(self, request: Request) -> Answer | None:
        """Write what is there now: the step under way, or the last one."""
        model = self._model()
        if model is None or self._stopped:
            return None
        step, exact, notes = self._calls.step, not self._committed, list(request.notes)
        if not step.calls and (last := self._ring.last()) is not None:
            step, exact = last, False
            notes.append(_BETWEEN)
        elif not request.keeps_open_call:
            self._calls.complete(step)
        anomaly = Anomaly(
            request.kind,
            step,
            request.text,
            from_gradients=False,
            exact=exact,
            attachments=dict(request.attachments),
            notes=notes,
            error=request.error,
        )
        answers: list[Answer] = []
        with self._guard("writing what was asked for"):
            answers.append(self._responses.report(anomaly, self._scene(model, self._holdings.any_optimizer(), step)))
        return answers[0] if answers else None

    def _scene(self, model: Module, optimizer: Optimizer | None, step: Step) -> Scene:
        """Return what surrounds an anomaly."""
        groups = () if optimizer is None else optimizer.param_groups
        data = self._snapshots.data(step, groups) if self._snapshots is not None else None
        return Scene(model, optimizer, list(self._ring), self.step_s, self.check, data)

    # The end of a step.

    def _settle(self) -> None:
        """Close the step that several optimizers used, or start again for another call of the same closure."""
        if self._committed:
            self._close(None)
        elif self._looked_in_closure:
            self._looked_in_closure = False
            self._calls.discard()
            self._numbers.discard()

    def _close(self, optimizer: Optimizer | None) -> None:
        """End the step under way: it goes into the ring without what belonged to it alone."""
        now = clock.monotonic()
        self._committed, self._looked_in_closure, self._closures = False, False, 0
        if self._last_commit is not None:
            self._times.append(now - self._last_commit)
        self._last_commit = now
        self.steps += 1
        step = self._calls.end_step(now)
        self._batches.clear()
        if self._snapshots is not None and optimizer is not None:
            self._snapshots.step_ended(step, optimizer.param_groups)
        self._numbers.step_ended(step)
        self._ring.push(step)
        if self.steps % _FEWEST_STEPS == 0:
            self._measure_steps()

    def _measure_steps(self) -> None:
        """Learn how long steps are."""
        self._calls.step_s = self._asking.step_s = sorted(self._times)[len(self._times) // 2] if self._times else 0.0

    def _number(self) -> int:
        """Return the number of the step under way."""
        return self._calls.step.number if self._step_number is None else self._step_number()

    # Beginning.

    def _check_optimizer(self, model: Module, optimizer: object) -> None:
        """Refuse an optimizer of another model, and a guard that could not work."""
        if optimizer is None:
            return
        if not isinstance(optimizer, Optimizer):
            kind = type(optimizer).__name__
            self._guard.say(
                "foreign optimizer", f"{kind} is no torch optimizer: call recorder.commit() before its update."
            )
            return
        own = {id(parameter) for parameter in model.parameters()}
        if not any(id(one) in own for group in optimizer.param_groups for one in group["params"]):
            message = (
                f"This {type(optimizer).__name__} holds no parameter of this {type(model).__name__}. Pass the "
                "optimizer that was made with model.parameters(), or none: it is found by itself."
            )
            raise ValueError(message)
        if self._guards and not is_fused(optimizer):
            message = (
                f"guard skips updates inside fused optimizers, and this {type(optimizer).__name__} is not fused. Make "
                'it with fused=True, or choose on_anomaly="skip".'
            )
            raise ValueError(message)

    def _made_snapshots(self, model: Module) -> Snapshots | None:
        """Return what copies the state, if that is wanted."""
        wanted = self.config.snapshots
        if wanted == "off":
            return None
        interval = wanted if isinstance(wanted, int) else None
        return Snapshots(model, interval=interval, most_bytes=host_memory(self.config.host_memory_share))

    def _install(self, model: Module, folder: str | None) -> None:
        """Listen to everything that makes a step, and leave with the model."""
        self._asking = Asking(self.config, folder, self._serve, self._guard)
        self._ends = [commits.listen(self), clipping.listen(self), scaling.listen(self._amp)]
        _recorders[model] = weakref.ref(self)
        finalizer = weakref.finalize(model, self.stop)
        finalizer.atexit = False


__all__ = ["FlightRecorder"]
