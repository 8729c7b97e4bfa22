"""Several steps again, from an older state to the capsule's step: the same parameters come out, and can be probed."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tracer.errors import CapsuleError
from tracer.flight.anomaly import norm_of
from tracer.flight.contents import Contents
from tracer.flight.digests import clean_name, digest
from tracer.flight.probes import Listening, Probe
from tracer.flight.replay import ReplayResult, as_recorded, replay
from tracer.flight.rerun import Rerun, rerun
from tracer.flight.steps import Step
from tracer.flight.stored_snapshots import SnapshotData
from tracer.flight.undisturbed import compiled_from, unwrapped

_MOST_NAMED = 8
Rates = Callable[[float], float]


class Travel:
    """Runs the steps between a capsule's snapshot and its own.

    Args:
        model: The capsule's model; copies of it are run.
        contents: The capsule.
        step: The capsule's step.
    """

    def __init__(self, model: nn.Module, contents: Contents, step: Step) -> None:
        self._model, self._contents, self._step = model, contents, step
        self._snapshot: SnapshotData | None = None

    @property
    def snapshot(self) -> SnapshotData:
        """The older state.

        Raises:
            IndexError: The capsule has none.
        """
        if self._snapshot is None:
            found = self._contents.snapshot()
            if found is None:
                message = (
                    f"{self._contents.name} has no snapshot: step {self._step.number} alone can be run again. "
                    "Train with FlightConfig(snapshots='auto') to keep an older state."
                )
                raise IndexError(message)
            self._snapshot = found
        return self._snapshot

    def replay(self, steps: int, *, threads: int | None = None, deterministic: bool | None = None) -> ReplayResult:
        """Run the last `steps` steps and the capsule's own, and compare parameters, outputs and gradients."""
        self._check(self._step.number - steps)
        done: list[dict[str, Any]] = []
        with as_recorded(self._contents.manifest, threads=threads, deterministic=deterministic):
            for step, _, result in (travelling := _Travelling(self)):
                if step.number >= self._step.number - steps:
                    done.append(_said(step, result))
            model = travelling.arrived()
        last = replay(model, self._contents, self._step, threads=threads, deterministic=deterministic)
        wrong = self.unlike(model)
        note = (
            f"The parameters after {len(done)} steps are not those of the capsule: {', '.join(wrong[:_MOST_NAMED])}."
            if wrong
            else f"After {len(done)} steps all parameters are bit for bit those of the capsule."
        )
        return replace(last, exact=last.exact and not wrong, steps=tuple(done), notes=(*last.notes, note))

    def at(self, number: int) -> tuple[nn.Module, Step, dict[str, Any]]:
        """Return model, step and manifest of an earlier step."""
        self._check(number)
        with as_recorded(self._contents.manifest):
            for step, model, _ in _Travelling(self, last=number):
                if step.number == number:
                    return model, step, self._manifest_at(step)
        message = f"Step {number} was not kept between the snapshot and the capsule."
        raise IndexError(message)

    def watch(self, module: str, steps: int) -> list[Probe]:
        """Return a probe of a module for each of the last steps and the capsule's own."""
        names = {clean_name(name) for name, _ in unwrapped(self._model).named_modules()}
        if module not in names:
            import difflib

            near = difflib.get_close_matches(module, names, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            message = f"The model has no module {module!r}.{hint}"
            raise ValueError(message)
        probes: list[Probe] = []
        with as_recorded(self._contents.manifest):
            model = self._model
            if steps > 0:
                self._check(self._step.number - steps)
                for step, _, result in (travelling := _Travelling(self, probed=module)):
                    if step.number >= self._step.number - steps:
                        probes.append(travelling.probe(step, result))
                model = travelling.arrived()
            with Listening(unwrapped(model), module) as listening:
                result = rerun(unwrapped(model), self._step)
            probes.append(listening.probe(self._step, result))
        return probes

    def with_rates(self, change: Rates) -> Rerun:
        """Return what the capsule's step gives when the steps before it had other learning rates."""
        for _ in (travelling := _Travelling(self, rates=change)):
            pass
        return rerun(travelling.arrived(), self._step)

    def unlike(self, model: nn.Module) -> list[str]:
        """Return the parameters that are not bit for bit those of the capsule."""
        known = (self._contents.manifest.get("hashes") or {}).get("parameters") or {}
        parameters = [(clean_name(name), one) for name, one in unwrapped(model).named_parameters()]
        return [name for name, one in parameters if name in known and digest(one) != known[name]]

    def start(self) -> tuple[nn.Module, Optimizer]:
        """Return a copy of the model in the older state, and the optimizer as it was then."""
        root = copy.deepcopy(unwrapped(self._model))
        self._fill(root, {**self.snapshot.parameters, **self.snapshot.buffers})
        compiled = compiled_from(self._model) is not None
        model = cast("nn.Module", torch.compile(root)) if compiled else root
        return model, self._optimizer(root)

    def fill_buffers(self, root: nn.Module) -> None:
        """Give a model the buffers of the capsule: they are recorded, not computed again."""
        self._fill(root, {clean_name(name): one for name, one in unwrapped(self._model).named_buffers()})

    def _fill(self, root: nn.Module, values: Mapping[str, Tensor]) -> None:
        """Copy values into parameters and buffers of these names."""
        owned = {clean_name(name): one for name, one in [*root.named_parameters(), *root.named_buffers()]}
        with torch.no_grad():
            for name, value in values.items():
                if name in owned and owned[name].shape == value.shape:
                    owned[name].copy_(value)

    def _optimizer(self, root: nn.Module) -> Optimizer:
        """Return the optimizer with its state; only torch's own are built from their name."""
        snapshot = self.snapshot
        module, _, name = snapshot.optimizer.partition(":")
        kind = getattr(importlib.import_module(module), name, None) if module.startswith("torch.optim.") else None
        if not (isinstance(kind, type) and issubclass(kind, Optimizer)):
            message = f"The optimizer {snapshot.optimizer!r} is none of torch.optim, so steps cannot be taken with it."
            raise CapsuleError(message)
        owned = {clean_name(parameter): one for parameter, one in root.named_parameters()}
        first = snapshot.groups[0] if snapshot.groups else [{} for _ in snapshot.members]
        groups = [
            {**values, "params": [owned[name] for name in names if name in owned]}
            for names, values in zip(snapshot.members, first, strict=True)
        ]
        optimizer: Optimizer = kind(groups)  # type: ignore[call-arg]  # torch's own take groups alone
        for name, values in snapshot.state.items():
            if name in owned:
                optimizer.state[owned[name]] = {
                    key: value.clone() if isinstance(value, Tensor) else value for key, value in values.items()
                }
        return optimizer

    def _check(self, number: int) -> None:
        """Refuse a step that the snapshot does not reach."""
        first, last = self.snapshot.number, self._step.number
        if not first <= number <= last:
            message = f"Step {number} is out of reach: the capsule holds steps {first} to {last}."
            raise IndexError(message)

    def _manifest_at(self, step: Step) -> dict[str, Any]:
        """Return the manifest of a view: what was recorded of the capsule's own step is not said of another."""
        outputs = [list(call.output_hashes) for call in step.calls]
        return {
            **self._contents.manifest,
            "step": step.number,
            "kind": "earlier",
            "value": None,
            "origin": None,
            "trace": None,
            "error": None,
            "calls": [{"backward": [], "mutated_inputs": [], "buffers_changed": list(c.buffers)} for c in step.calls],
            "hashes": {"kind": "sha256", "grads": {}, "norms": {}, "parameters": {}, "inputs": {}, "outputs": outputs},
            "notes": [f"Reached from the snapshot of step {self.snapshot.number}."],
        }


class _Travelling:
    """The way from the snapshot to the capsule: iterating yields each step with the model before it and its result."""

    def __init__(
        self, travel: Travel, *, last: int | None = None, rates: Rates | None = None, probed: str | None = None
    ) -> None:
        self._travel, self._last, self._rates, self._probed = travel, last, rates, probed
        self._model, self._optimizer = travel.start()
        self._listening: Listening | None = None

    def __iter__(self) -> Iterator[tuple[Step, nn.Module, Rerun]]:
        snapshot = self._travel.snapshot
        for place, step in enumerate(snapshot.steps):
            if not step.replayable:
                message = f"Step {step.number} was not kept whole, so no later one can be reached."
                raise IndexError(message)
            result = self._run(step)
            yield step, self._model, result
            if self._last is not None and step.number >= self._last:
                return
            self._step(step, result, snapshot.groups[place] if place < len(snapshot.groups) else ())

    def arrived(self) -> nn.Module:
        """Return the model as it stands before the capsule's step."""
        self._travel.fill_buffers(unwrapped(self._model))
        return self._model

    def probe(self, step: Step, result: Rerun) -> Probe:
        """Return what the probed module did in the step that was run last."""
        if self._listening is None:
            message = "No module is probed on this way."
            raise ValueError(message)
        return self._listening.probe(step, result)

    def _run(self, step: Step) -> Rerun:
        """Run one step."""
        if self._probed is None:
            return rerun(self._model, step)
        with Listening(unwrapped(self._model), self._probed) as self._listening:
            return rerun(unwrapped(self._model), step)

    def _step(self, step: Step, result: Rerun, groups: Any) -> None:  # noqa: ANN401 -- values by group
        """Let the optimizer do what it did."""
        for group, values in zip(self._optimizer.param_groups, groups, strict=False):
            group.update(values)
            if self._rates is not None:
                group["lr"] = self._rates(float(group["lr"]))
        for name, parameter in unwrapped(self._model).named_parameters():
            parameter.grad = result.gradients.get(name)
        if step.still_scaled and step.scale:
            self._optimizer.grad_scale = torch.tensor(step.scale)  # type: ignore[attr-defined]  # as GradScaler sets it
            self._optimizer.found_inf = torch.tensor(0.0)  # type: ignore[attr-defined]  # likewise
        self._optimizer.step()
        self._optimizer.zero_grad()


def _said(step: Step, result: Rerun) -> dict[str, Any]:
    """Return a line about one step on the way."""
    return {"step": step.number, "loss": step.loss, "norm": norm_of(result.gradients.values()), "recorded": step.norm}


__all__ = ["Travel"]
