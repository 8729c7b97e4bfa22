"""Where a replay parts from the recording, and why: every reason is one that the evidence speaks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from tracer.flight.digests import Trace, clean_name, digest
from tracer.flight.manifest import differences
from tracer.flight.rerun import Rerun
from tracer.flight.steps import Step
from tracer.flight.undisturbed import unwrapped

_EQUAL_RATIO = 1e-3
_CLIP_DIGITS = (1, 2, 3, 4, 5, 6)
_FEW = 3


@dataclass(frozen=True, slots=True)
class Drift:
    """The first thing that is not as it was recorded: a module's output, a gradient, a parameter or an argument."""

    what: str
    module: str
    parameter: str | None = None
    call: int | None = None

    @property
    def place(self) -> str:
        """Name it for a person."""
        if self.what == "argument":
            return f"argument {self.parameter} of call {self.call}"
        if self.parameter is not None:
            return f"{self.module or 'the model'} ({self.what} {self.parameter})"
        return f"{self.module or 'the model'} ({self.what})"

    def to_json(self) -> dict[str, Any]:
        """Return it as a document."""
        return {"what": self.what, "module": self.module, "parameter": self.parameter, "call": self.call}


@dataclass(slots=True)
class Counts:
    """How much of what was recorded came out again."""

    gradients: int = 0
    gradients_of: int = 0
    outputs: int = 0
    outputs_of: int = 0
    differing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)  # gradients that were not there when it was recorded

    @property
    def all_match(self) -> bool:
        """Whether something was recorded, and all of it came out."""
        compared = self.gradients_of + self.outputs_of
        return (
            compared > 0
            and self.gradients == self.gradients_of
            and self.outputs == self.outputs_of
            and not self.unexpected
        )


@dataclass(slots=True)
class Evidence:
    """What was recorded, what came out, and in which surroundings."""

    manifest: Mapping[str, Any]
    step: Step
    trace: Trace
    order: list[str]
    surroundings: Mapping[str, Any]
    changed_parameters: list[str] = field(default_factory=list)
    changed_inputs: list[tuple[int, str]] = field(default_factory=list)
    clip: tuple[float, str] | None = None  # one that the recorder did not see

    @property
    def gradients(self) -> Mapping[str, str]:
        """The recorded hashes of gradients."""
        return dict((self.manifest.get("hashes") or {}).get("grads") or {})

    @property
    def outputs(self) -> list[list[str]]:
        """The recorded hashes of outputs by call; empty where nobody took them."""
        return list((self.manifest.get("hashes") or {}).get("outputs") or [])

    @property
    def modules(self) -> tuple[tuple[str, str], ...]:
        """The recorded hashes of module outputs, in order."""
        return tuple((name, value) for name, value in self.manifest.get("trace") or ())

    def look_at_inputs(self, model: nn.Module) -> None:
        """Find parameters and arguments that are not the recorded ones."""
        hashes = self.manifest.get("hashes") or {}
        root = unwrapped(model)
        tensors = [*root.named_parameters(remove_duplicate=False), *root.named_buffers(remove_duplicate=False)]
        known = hashes.get("parameters") or {}
        self.changed_parameters = [
            clean_name(name)
            for name, tensor in tensors
            if clean_name(name) in known and digest(tensor) != known[clean_name(name)]
        ]
        known = hashes.get("inputs") or {}
        for number, call in enumerate(self.step.calls):
            for place, tensor in enumerate(call.inputs.tensors):
                name = f"c{number}.t{place}"
                if name in known and digest(tensor) != known[name]:
                    self.changed_inputs.append((number, str(place)))

    @property
    def forward_only(self) -> bool:
        """Whether nothing is known of the backward pass, so that no gradient could come out."""
        upstream = any(output.upstream for call in self.step.calls for output in call.differentiable)
        return bool(self.gradients) and not upstream and not self.trace.gradients

    def counts(self) -> Counts:
        """Count what matches; gradients that could not come out do not differ."""
        counts = Counts(gradients_of=len(self.gradients))
        for name, recorded in self.gradients.items():
            if self.trace.gradients.get(name) == recorded:
                counts.gradients += 1
            elif not self.forward_only:
                counts.differing.append(name)
        counts.unexpected = [name for name in self.trace.gradients if name not in self.gradients]
        counts.differing += counts.unexpected
        for number, hashes in enumerate(self.outputs):
            if hashes:
                found = self.trace.outputs[number] if number < len(self.trace.outputs) else ()
                counts.outputs_of += len(hashes)
                counts.outputs += sum(a == b for a, b in zip(hashes, found, strict=False))
        return counts

    def between(self, other: Trace) -> Evidence:
        """Return the same with one run in the place of the recording and another in that of the replay."""
        hashes = {"grads": dict(self.trace.gradients), "outputs": [list(one) for one in self.trace.outputs]}
        manifest = {**self.manifest, "hashes": hashes, "trace": [list(pair) for pair in self.trace.modules]}
        return replace(self, manifest=manifest, trace=other, changed_inputs=[], changed_parameters=[])

    def without_its_clip(self, done: Rerun | None) -> tuple[Trace, str] | None:
        """Find a clipping that the recorder did not see, and prove it: with it, every hash is the recorded one."""
        counts = self.counts()
        norms = (self.manifest.get("hashes") or {}).get("norms") or {}
        if done is None or self.step.clips or not counts.gradients_of or counts.gradients or counts.unexpected:
            return None
        total = _total(done.gradients.values())
        ratio = _common_ratio(norms, done.gradients)
        if math.isfinite(total) and (ratio is None or not 0 < ratio < 1):
            return None
        # NaN and infinity divided by any norm give the same, so one limit is as good as another.
        limits = [float(f"{ratio * (total + 1e-6):.{digits}g}") for digits in _CLIP_DIGITS] if ratio else [1.0]
        for limit in limits:
            clipped = self._clipped(done, limit)
            if clipped.gradients == self.gradients:
                self.clip = (limit, "norm")
                norm = f"to a norm of {limit:g}" if math.isfinite(total) else "by their norm"
                return clipped, f"The gradients were clipped {norm}, which the recorder did not see."
        return None

    def clipped(self, done: Rerun | None) -> Trace | None:
        """Return the hashes of another run after the same clipping."""
        return None if done is None or self.clip is None else self._clipped(done, self.clip[0])

    def _clipped(self, done: Rerun, limit: float) -> Trace:
        """Return the hashes of a run's gradients after clipping them."""
        parameters = {}
        for name, gradient in done.gradients.items():
            parameter = torch.empty_like(gradient)
            parameter.grad = gradient.clone()
            parameters[name] = parameter
        torch.nn.utils.clip_grad_norm_(list(parameters.values()), limit)
        gradients = {clean_name(name): digest(one.grad) for name, one in parameters.items() if one.grad is not None}
        return replace(self.trace, gradients=gradients)


def first_difference(evidence: Evidence) -> Drift | None:
    """Return the first thing that is not as recorded, in the order of execution; None when all is."""
    counts = evidence.counts() if evidence.trace.gradients or not evidence.manifest.get("error") else Counts()
    for place, (name, recorded) in enumerate(evidence.modules):
        heard = evidence.trace.modules
        if place >= len(heard) and not heard:
            break  # nobody listened: the model is compiled
        if place >= len(heard) or heard[place] != (name, recorded):
            return Drift("output", name)
    if evidence.changed_inputs:
        call, place_of = evidence.changed_inputs[0]
        return Drift("argument", "", place_of, call)
    if evidence.changed_parameters:
        name = _in_order(evidence.changed_parameters, evidence.order)[0]
        return Drift("parameter", name.rpartition(".")[0], name)
    if counts.outputs < counts.outputs_of and not evidence.modules:
        return Drift("output", "")
    if counts.differing:
        name = _in_order(counts.differing, evidence.order)[0]
        return Drift("gradient", name.rpartition(".")[0], name)
    return Drift("output", "") if counts.outputs < counts.outputs_of else None


def explain(evidence: Evidence, done: Rerun | None, error: str | None) -> list[str]:
    """Return why a replay is not exact, the surest reason first."""
    counts = evidence.counts()
    reasons = [f"argument {place} of call {call} is not the recorded one" for call, place in evidence.changed_inputs]
    if evidence.changed_parameters:
        reasons.append(f"{_named(evidence.changed_parameters)} {_are(evidence.changed_parameters)} not as recorded")
    reasons += differences(evidence.manifest, evidence.surroundings)
    if error is not None:
        return [*reasons, f"the model raised {error}"]
    if not counts.gradients_of and not counts.outputs_of:
        return [*reasons, "the capsule holds no hash of a gradient or an output to compare with"]
    if evidence.forward_only:
        return [*reasons, "what reached the outputs in the backward pass was not kept, so gradients cannot be compared"]
    mutated = [place for call in evidence.manifest.get("calls", ()) for place in call.get("mutated_inputs", ())]
    if mutated:
        reasons.append("an input was changed in place after the call, so the capsule has its later values")
    if reasons:
        return reasons  # what is known leaves no room for guesses
    outputs_match = counts.outputs_of > 0 and counts.outputs == counts.outputs_of and _modules_match(evidence)
    if outputs_match and counts.differing:
        reasons += _after_the_outputs(evidence, counts, done)
    elif not outputs_match:
        reasons += _inside(evidence, counts)
    if (evidence.manifest.get("hashes") or {}).get("same_in_training") is False:
        reasons.append("already in the training process a second run of the step did not give the recorded gradients")
    return reasons or ["nothing that was recorded explains it: state outside of buffers and generators is likely"]


def _after_the_outputs(evidence: Evidence, counts: Counts, done: Rerun | None) -> list[str]:
    """Return why gradients differ although all outputs are the same."""
    if done is not None and not done.gradients:
        return ["what reached the outputs in the backward pass was not recorded"]
    if counts.gradients:
        outside = f"outside of {_named(counts.differing)} every gradient matches"
        why = "a term of the loss that takes parameters directly, such as a penalty on weights, is not in the outputs"
        return [f"{outside}: {why}"]
    norms = (evidence.manifest.get("hashes") or {}).get("norms") or {}
    ratio = None if done is None else _common_ratio(norms, done.gradients)
    if ratio is not None:
        return [f"every gradient is {ratio:.6g} times the replayed one: gradients were scaled after backward"]
    return [
        "gradients were changed after backward (noise, scaling, a clip that was not seen)",
        "gradients were carried over from the step before, for want of zero_grad",
    ]


def _inside(evidence: Evidence, counts: Counts) -> list[str]:
    """Return why what the model computes differs although surroundings, parameters and arguments are the same."""
    found = []
    if evidence.manifest.get("model", {}).get("compiled"):
        found.append("the model was compiled, and compiling it here may choose other kernels")
    if not counts.outputs_of and not evidence.modules:
        found.append("no outputs were recorded, so it cannot be told whether gradients were changed after backward")
    found.append(
        "the random generators stand elsewhere, or state outside of buffers and generators (counters, caches, files) "
        "takes part"
    )
    return found


def _modules_match(evidence: Evidence) -> bool:
    """Tell whether all modules gave what they gave; true where nobody listened."""
    return not evidence.modules or not evidence.trace.modules or evidence.modules == evidence.trace.modules


def _common_ratio(norms: Mapping[str, Any], gradients: Mapping[str, Tensor]) -> float | None:
    """Return how many times the replayed gradients the recorded ones are, if it is the same for all."""
    ratios = []
    for name, gradient in gradients.items():
        recorded, replayed = norms.get(clean_name(name)), _total([gradient])
        if not isinstance(recorded, (int, float)) or not math.isfinite(replayed):
            return None
        if replayed > 0:
            ratios.append(recorded / replayed)
        elif recorded > 0:
            return None
    if not ratios or min(ratios) <= 0 or max(ratios) / min(ratios) - 1 > _EQUAL_RATIO:
        return None
    return ratios[0]


def _total(gradients: Any) -> float:  # noqa: ANN401 -- an iterable of tensors
    """Return the 2-norm of gradients."""
    from tracer.flight.anomaly import norm_of

    return norm_of(gradients)


def _in_order(parameters: list[str], order: list[str]) -> list[str]:
    """Return parameters in the order in which their modules ran; those of modules that never ran come last."""
    places = {name: place for place, name in reversed(list(enumerate(order)))}
    return sorted(parameters, key=lambda name: places.get(name.rpartition(".")[0], len(order)))


def _named(names: list[str]) -> str:
    """Return a few names."""
    rest = len(names) - _FEW
    return ", ".join(names[:_FEW]) + (f" and {rest} more" if rest > 0 else "")


def _are(names: list[str]) -> str:
    """Return the verb."""
    return "is" if len(names) == 1 else "are"


__all__ = ["Counts", "Drift", "Evidence", "explain", "first_difference"]
