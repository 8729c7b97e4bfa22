"""Running a capsule's step again, twice, and saying what that proves.

A replay is exact when every gradient and output that was recorded comes out with the same SHA-256, and never otherwise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tracer import clock
from tracer.flight.anomaly import EXPLOSION, appears
from tracer.flight.contents import Contents
from tracer.flight.digests import ModuleTrace, Trace, clean_name, digest
from tracer.flight.drift import Drift, Evidence, explain, first_difference
from tracer.flight.rerun import Rerun, rerun
from tracer.flight.steps import Step
from tracer.flight.undisturbed import compiled_from, undisturbed, unwrapped

#: What the user's model may raise when it is run again.
MODEL_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError, RuntimeError,
    TypeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What a replay showed.

    Args:
        exact: Whether everything that was recorded came out bit for bit.
        matched: How many gradients did.
        total: How many gradients were recorded.
        drift: The first module that gave something else, in the order of execution.
        reasons: Why, as far as it can be told.
        reproduced: Whether the anomaly appeared again; None where the capsule is not of an anomaly.
        verdict: What two replays prove, in a sentence.
        timings: Seconds: `first`, `second`.
    """

    exact: bool
    matched: int
    total: int
    drift: Drift | None
    reasons: tuple[str, ...]
    reproduced: bool | None
    verdict: str
    timings: Mapping[str, float]
    outputs_matched: int = 0
    outputs_total: int = 0
    forward_only: bool = False  # whether nothing was recorded of the backward pass
    repeatable: bool | None = None  # whether the second replay equalled the first
    differing: tuple[str, ...] = ()  # parameters whose gradients are not those recorded
    error: str | None = None  # what the model raised
    notes: tuple[str, ...] = ()
    name: str = ""
    steps: tuple[Mapping[str, Any], ...] = ()  # of a replay over several steps

    @property
    def headline(self) -> str:
        """Say in a line what came out: `bit-exact, 51/51 gradients`, or where the drift begins."""
        if self.exact and self.error is not None:
            return f"the model raises the same again: {self.error}"
        outputs = f", {self.outputs_matched}/{self.outputs_total} outputs" if self.outputs_total else ""
        counts = f"{self.matched}/{self.total} gradients{outputs}"
        if self.forward_only and self.drift is None:
            same = f"forward part bit-exact{outputs}" if self.outputs_total else "forward part run again"
            return f"{same}; {self.total} gradients could not be compared"
        if self.exact:
            return f"bit-exact, {counts}"
        where = f" at {self.drift.place}" if self.drift is not None else ""
        first = f" ({self.reasons[0]})" if self.reasons else ""
        return f"drift{where}, {counts} match{first}"

    @property
    def text(self) -> str:
        """Say it in a paragraph."""
        lines = [f"{self.headline[0].upper()}{self.headline[1:]}.", self.verdict]
        if self.drift is not None and self.reasons:
            lines += ["Because:" if len(self.reasons) == 1 else "Possible reasons:"]
            lines += [f"  - {reason}" for reason in self.reasons]
        return "\n".join(line for line in [*lines, *self.notes] if line)

    def __str__(self) -> str:
        return self.text

    def to_json(self) -> dict[str, Any]:
        """Return the result as a document."""
        return {
            "capsule": self.name,
            "exact": self.exact,
            "matched": self.matched,
            "total": self.total,
            "outputs_matched": self.outputs_matched,
            "outputs_total": self.outputs_total,
            "drift": None if self.drift is None else self.drift.to_json(),
            "differing": list(self.differing),
            "reasons": list(self.reasons),
            "reproduced": self.reproduced,
            "repeatable": self.repeatable,
            "forward_only": self.forward_only,
            "verdict": self.verdict,
            "error": self.error,
            "notes": list(self.notes),
            "steps": [dict(step) for step in self.steps],
            "timings": dict(self.timings),
        }


@dataclass(slots=True)
class Once:
    """One run of the step: what it gave, as hashes too."""

    rerun: Rerun | None
    trace: Trace
    seconds: float
    error: str | None = None
    order: list[str] = field(default_factory=list)  # modules in the order of execution


def replay(
    model: nn.Module, contents: Contents, step: Step, *, threads: int | None = None, deterministic: bool | None = None
) -> ReplayResult:
    """Run a capsule's step twice and compare with what was recorded.

    Args:
        model: The capsule's model.
        contents: The capsule.
        step: The capsule's step.
        threads: How many threads torch uses instead of the recorded number.
        deterministic: Whether deterministic algorithms are asked for, instead of the recorded choice.

    Returns:
        What came out.
    """
    manifest = contents.manifest
    with as_recorded(manifest, threads=threads, deterministic=deterministic) as said, undisturbed(model):
        first = run_once(model, step)
        second = run_once(model, step)
    evidence = Evidence(manifest, step, first.trace, first.order, said)
    evidence.look_at_inputs(model)
    inferred = evidence.without_its_clip(first.rerun)
    if inferred is not None:
        first.trace, note = inferred
        evidence.trace = first.trace
        second_trace = evidence.clipped(second.rerun) or second.trace
    else:
        note, second_trace = "", second.trace
    return _result(first, second, second_trace, evidence, contents.name, note)


def run_once(model: nn.Module, step: Step) -> Once:
    """Run a step and hash what it gives; modules inside a compiled model are not listened to."""
    root = unwrapped(model)
    listening = contextlib.nullcontext() if _is_compiled(model) else ModuleTrace(root)
    began = clock.monotonic()
    try:
        with listening as listener:
            done = rerun(model, step)
    except MODEL_ERRORS as error:
        heard = listening.modules if isinstance(listening, ModuleTrace) else []
        said = f"{type(error).__name__}: {error}"
        return Once(None, Trace(modules=tuple(heard)), clock.monotonic() - began, said, [name for name, _ in heard])
    seconds = clock.monotonic() - began
    heard = listener.modules if isinstance(listener, ModuleTrace) else []
    return Once(done, trace_of(done, heard), seconds, None, [name for name, _ in heard])


def trace_of(done: Rerun, heard: list[tuple[str, str]]) -> Trace:
    """Return the hashes of what a run gave."""
    return Trace(
        tuple(heard),
        tuple(tuple(digest(tensor) for tensor in outputs.tensors) for outputs in done.outputs),
        {clean_name(name): digest(gradient) for name, gradient in done.gradients.items()},
    )


def trace(model: nn.Module, step: Step) -> Trace:
    """Return the hashes of a step as it runs in this process, for the manifest of a capsule.

    Called by the recorder while the process that trained still stands as it was: a replay elsewhere then finds the very
    module where it begins to differ.
    """
    return run_once(model, step).trace


@contextlib.contextmanager
def as_recorded(
    manifest: Mapping[str, Any], *, threads: int | None = None, deterministic: bool | None = None
) -> Iterator[dict[str, Any]]:
    """Set threads and flags as they were recorded or as the caller wants; all come back at the end of the block."""
    machine, flags = manifest.get("machine") or {}, manifest.get("flags") or {}
    before = _switches()
    wanted = {
        "threads": threads or machine.get("threads") or before["threads"],
        "deterministic": flags.get("deterministic", False) if deterministic is None else deterministic,
        "matmul_precision": flags.get("matmul_precision", before["matmul_precision"]),
        "cudnn_benchmark": flags.get("cudnn_benchmark", before["cudnn_benchmark"]),
        "mkldnn": flags.get("mkldnn", before["mkldnn"]),
        "default_dtype": flags.get("default_dtype", before["default_dtype"]),
    }
    try:
        _set_switches(wanted)
        from tracer.flight.manifest import surroundings

        yield surroundings()
    finally:
        _set_switches(before)


def _switches() -> dict[str, Any]:
    """Return what decides which bits come out."""
    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "mkldnn": torch.backends.mkldnn.enabled,
        "default_dtype": str(torch.get_default_dtype()).removeprefix("torch."),
    }


def _set_switches(wanted: Mapping[str, Any]) -> None:
    """Set them, those only that are not so already."""
    now = _switches()
    if wanted["threads"] != now["threads"]:
        torch.set_num_threads(int(wanted["threads"]))
    if wanted["deterministic"] != now["deterministic"]:
        torch.use_deterministic_algorithms(bool(wanted["deterministic"]), warn_only=True)
    if wanted["matmul_precision"] != now["matmul_precision"]:
        torch.set_float32_matmul_precision(wanted["matmul_precision"])
    if wanted["cudnn_benchmark"] != now["cudnn_benchmark"]:
        torch.backends.cudnn.benchmark = bool(wanted["cudnn_benchmark"])
    if wanted["mkldnn"] != now["mkldnn"]:
        torch.backends.mkldnn.set_flags(_enabled=bool(wanted["mkldnn"]))  # type: ignore[no-untyped-call]
    dtype = getattr(torch, str(wanted["default_dtype"]), None)
    if wanted["default_dtype"] != now["default_dtype"] and isinstance(dtype, torch.dtype):
        torch.set_default_dtype(dtype)


def _result(
    first: Once, second: Once, second_trace: Trace, evidence: Evidence, name: str, inferred: str
) -> ReplayResult:
    """Return what two runs showed."""
    counts = evidence.counts()
    manifest = evidence.manifest
    repeatable = first.trace == second_trace and first.error == second.error
    drift = first_difference(evidence)
    exact = counts.all_match and first.error is None and drift is None
    if manifest.get("error") and first.error is not None:
        # Nothing came out that could be compared; that the same was raised is the whole recording.
        exact = drift is None and first.error.split() == str(manifest["error"]).split() and repeatable
    reproduced = appears(manifest, first.rerun, first.error)
    if exact and reproduced is False and manifest.get("kind") == EXPLOSION:
        reproduced = True  # what came out is clipped; equal bits had an equal norm before
    unsteady = None if repeatable else first_difference(evidence.between(second_trace))
    notes = [*(first.rerun.notes if first.rerun is not None else ()), *([inferred] if inferred else [])]
    if first.error is not None:
        notes.append(f"The model raised {first.error}.")
    reasons = () if exact else tuple(explain(evidence, first.rerun, first.error))
    return ReplayResult(
        exact=exact,
        matched=counts.gradients,
        total=counts.gradients_of,
        drift=None if exact else drift,
        reasons=reasons,
        reproduced=reproduced,
        verdict=_forward_verdict(reproduced=reproduced)
        if evidence.forward_only and drift is None and repeatable
        else _verdict(exact=exact, repeatable=repeatable, reproduced=reproduced, unsteady=unsteady),
        forward_only=evidence.forward_only,
        timings={"first": first.seconds, "second": second.seconds},
        outputs_matched=counts.outputs,
        outputs_total=counts.outputs_of,
        repeatable=repeatable,
        differing=tuple(counts.differing),
        error=first.error,
        notes=tuple(notes),
        name=name,
    )


def _verdict(*, exact: bool, repeatable: bool, reproduced: bool | None, unsteady: Drift | None) -> str:  # noqa: PLR0911 -- a table
    """Return what two replays prove."""
    if not repeatable:
        where = f", first at {unsteady.place}" if unsteady is not None else ""
        return (
            f"Two replays differ from each other{where}: an operation there is not deterministic. "
            "Replay with deterministic algorithms (--what-if deterministic=on)."
        )
    if exact:
        if reproduced is None:
            return "Two replays equal the recording: the step is what software and data make of it."
        if reproduced:
            return (
                "Two replays equal the recording and the anomaly appears: it is software or data, and the origin holds."
            )
        return "Two replays equal the recording; the anomaly itself lies outside of what was recorded."
    if reproduced:
        return "The replays equal each other, and the anomaly appears again, but not bit for bit as recorded."
    if reproduced is None:
        return "The replays equal each other but not the recording."
    return (
        "The replays equal each other, but the anomaly does not appear. With equal inputs and surroundings that points "
        "to hardware or a race: replay once more on another device."
    )


def _forward_verdict(*, reproduced: bool | None) -> str:
    """Return what a replay of the forward part alone proves."""
    kept = 'What reaches outputs above 64 MiB is kept only with FlightConfig(upstream="on").'
    if reproduced:
        return f"Only the forward part could be run again, and the anomaly appears in it: the origin holds. {kept}"
    return f"Only the forward part could be run again. {kept}"


def _is_compiled(model: nn.Module) -> bool:
    """Tell whether hooks inside a model would make it compile again."""
    return compiled_from(model) is not None or any(
        getattr(module, "_compiled_call_impl", None) is not None for module in model.modules()
    )


__all__ = ["MODEL_ERRORS", "Once", "ReplayResult", "as_recorded", "replay", "run_once", "trace", "trace_of"]
