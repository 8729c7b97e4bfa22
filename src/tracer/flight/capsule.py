"""A capsule: one training step in a file, from which it can be run again somewhere else.

    manifest.json        what it is: kind, step, versions, machine, flags, model, hashes, notes; always the first entry
    tensors.safetensors  parameters and buffers
    batch.safetensors    the tensors of the arguments     batch.json   the arguments around them, and the calls
    upstream.safetensors what backward brought to each output, by call, output and backward pass
    buffers.safetensors  buffers before each call         rng.bin      generator states before each call
    ring.json            the numbers of the last steps    source/      the source files of the model's classes
    model.pkl            the model without its tensors    objects.pkl  arguments that are no plain data; both need trust
    snapshot/            an older state and the steps since, if snapshots were taken
    stacks.txt, spans.jsonl, …                            what the trigger added

The recorder calls `collect` and `write`; a person calls `load_capsule`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from torch import nn

from tracer.capture import randomness
from tracer.flight.contents import Contents
from tracer.flight.models import Entry, find_model
from tracer.flight.origin import Origin, find_origin
from tracer.flight.probes import Probe
from tracer.flight.replay import ReplayResult, as_recorded, replay
from tracer.flight.steps import Step
from tracer.flight.stored_snapshots import SnapshotData
from tracer.flight.travel import Travel
from tracer.flight.what_if import WhatIfResult, try_changes
from tracer.flight.writing import Draft, Facts, collect, write


class Capsule:
    """A step that was recorded, with everything needed to run it again.

    Args:
        contents: The file.
        entry: What builds the model.

    Example:
        >>> import torch
        >>> from tracer.capture import randomness
        >>> from tracer.flight.steps import Call
        >>> from tracer.flight.trees import tree
        >>> model = torch.nn.Linear(2, 1)
        >>> call = Call(tree(((torch.ones(4, 2),), {})), (0,), randomness.capture(), (), True, {})
        >>> path = write(collect(model, Step(7, calls=[call]), Facts()), "capsules")
        >>> with load_capsule(path, entry=lambda: torch.nn.Linear(2, 1)) as capsule:
        ...     capsule.manifest["step"], capsule.verify()
        (7, [])
    """

    def __init__(self, contents: Contents, entry: Entry | None = None) -> None:
        self._contents, self._entry = contents, entry
        self._model: nn.Module | None = None
        self._step: Step | None = None
        self._travel: Travel | None = None
        self._origin: Origin | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        manifest = self.manifest
        return f"<Capsule {self._contents.name}: {manifest.get('kind')} at step {manifest.get('step')}>"

    def close(self) -> None:
        """Close the file; what was read stays."""
        self._contents.archive.close()

    @property
    def path(self) -> str:
        """Where the file lies."""
        return self._contents.path

    @property
    def manifest(self) -> dict[str, Any]:
        """What the first entry says."""
        return self._contents.manifest

    @property
    def batch(self) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        """The arguments of each call of the step, as `(args, kwargs)`."""
        return [call.inputs.rebuilt() for call in self.step().calls]

    @property
    def ring(self) -> list[dict[str, Any]]:
        """The numbers of the last steps, the oldest first."""
        return self._contents.ring()

    @property
    def origin_recorded(self) -> Origin | None:
        """Where the anomaly was born, as the training process found it."""
        found = self.manifest.get("origin")
        return Origin.from_json(found) if isinstance(found, dict) else None

    @property
    def sources(self) -> dict[str, str]:
        """The source files of the model's classes, by their place in the capsule."""
        archive = self._contents.archive
        return {name: archive.read(name).decode("utf-8", "replace") for name in archive.names if _is_source(name)}

    def source_around(self, file: str | None, line: int | None, around: int = 3) -> list[tuple[int, str, bool]]:
        """Return lines of a source file of the model as it was when the capsule was made.

        Args:
            file: The file's path, as an origin names it.
            line: The line in the middle.
            around: How many lines before and after it.

        Returns:
            Number, text, and whether it is the line itself; nothing where the capsule has no such file.
        """
        if not file or not line:
            return []
        known = self.manifest.get("sources") or {}
        entry = next((name for name, one in known.items() if _same_file(name, str(one.get("file")), file)), None)
        if entry is None or entry not in self._contents.archive:
            return []
        lines = self._contents.archive.read(entry).decode("utf-8", "replace").splitlines()
        first, last = max(line - around, 1), min(line + around, len(lines))
        return [(number, lines[number - 1], number == line) for number in range(first, last + 1)]

    def model(self) -> nn.Module:
        """Return the model with the parameters that the step began with.

        Returns:
            The model; the same object each time.

        Raises:
            CapsuleError: No way leads to it; the message shows the three that there are.
        """
        if self._model is None:
            before = randomness.capture()
            try:
                self._model = find_model(self._contents, self._entry)
            finally:
                randomness.restore(before)  # what initialised the model drew from the caller's generators
        return self._model

    def step(self) -> Step:
        """Return the step as the recorder kept it.

        Returns:
            Calls, clips and numbers; the same object each time.

        Raises:
            CapsuleError: A part is damaged, or an argument lies in a pickle that is not trusted.
        """
        if self._step is None:
            self._step = self._contents.step()
        return self._step

    def replay(
        self, *, steps: int | None = None, threads: int | None = None, deterministic: bool | None = None
    ) -> ReplayResult:
        """Run the step again, twice, and compare with what was recorded.

        Args:
            steps: Begin so many steps earlier, from the capsule's snapshot.
            threads: Use so many threads instead of the recorded number.
            deterministic: Ask for deterministic algorithms or not, instead of the recorded choice.

        Returns:
            What came out: `exact`, `drift`, `reasons`, `verdict`, …

        Raises:
            CapsuleError: The model cannot be found, or the capsule is damaged.
            IndexError: The snapshot does not reach so far back.
        """
        if steps is not None and steps > 0:
            return self._traveller().replay(steps, threads=threads, deterministic=deterministic)
        return replay(self.model(), self._contents, self.step(), threads=threads, deterministic=deterministic)

    def origin(self) -> Origin | None:
        """Look for the operation in which the anomaly is born.

        Returns:
            The origin, or None when the replayed step has none.
        """
        if self._origin is None:
            with as_recorded(self.manifest):
                found = find_origin(self.model(), self.step())
            recorded = self.origin_recorded
            same = (
                found
                and recorded
                and (found.op, found.module, found.phase) == (recorded.op, recorded.module, recorded.phase)
            )
            # Of two that say the same, the recorded one names files where the training had them.
            self._origin = recorded if same else found
        return self._origin

    def what_if(self, **changes: Any) -> WhatIfResult:  # noqa: ANN401 -- numbers, names, lists of samples
        """Run the step with one change at a time, and say which make the anomaly vanish.

        Args:
            changes: `dtype`, `autocast`, `drop_samples`, `clip`, `seed`, `deterministic`, `threads`, `lr`; without any,
                those that make sense for this capsule are tried.

        Returns:
            The outcomes, the best first.

        Raises:
            ValueError: There is no such change, or not with that value.
        """
        origin = self.origin_recorded or (None if changes else self.origin())
        samples = () if origin is None else origin.samples
        return try_changes(self.model(), self._contents, self.step(), changes, self._traveller, samples)

    def goto(self, step: int) -> Capsule:
        """Return the capsule as it would have been written at an earlier step.

        Args:
            step: Its number.

        Returns:
            A view with that step's parameters, arguments and states.

        Raises:
            IndexError: The snapshot does not reach there.
        """
        if step == self.manifest["step"]:
            return self
        model, there, manifest = self._traveller().at(step)
        view = Capsule(_View(self._contents, manifest), self._entry)
        view._model, view._step = model, there
        return view

    def watch(self, module: str, steps: int = 0) -> list[Probe]:
        """Return statistics of a module's activations and gradients over the last steps.

        Args:
            module: Its name, as `named_modules` gives it.
            steps: How many steps earlier to begin; 0 for the capsule's step alone.

        Returns:
            One probe per step, the oldest first.

        Raises:
            ValueError: The model has no such module.
            IndexError: The snapshot does not reach so far back.
        """
        return self._traveller().watch(module, steps)

    def verify(self) -> list[str]:
        """Return what is wrong with the file, a sentence for each entry.

        Returns:
            Nothing when every entry is there and has the SHA-256 that the manifest says.
        """
        return self._contents.archive.verify()

    def _traveller(self) -> Travel:
        """Return what runs several steps."""
        if self._travel is None:
            self._travel = Travel(self.model(), self._contents, self.step())
        return self._travel


class _View(Contents):
    """The same file with another manifest."""

    def __init__(self, contents: Contents, manifest: dict[str, Any]) -> None:
        self.archive, self.trust, self.path = contents.archive, contents.trust, contents.path
        self.manifest = manifest


def load_capsule(
    path: str | os.PathLike[str], *, trust: bool = False, entry: str | Callable[[], nn.Module] | None = None
) -> Capsule:
    """Open a capsule.

    Args:
        path: The `.trc` file.
        trust: Whether its pickles may be read. A pickle runs code, so say so only for capsules of people you trust;
            those that were written under your own home are trusted without it.
        entry: What builds the model: a function without arguments, or its name as `"train.py:build"`.

    Returns:
        The capsule; usable as a context manager, which closes the file.

    Raises:
        CapsuleError: The file is no capsule, is damaged, or a newer Tracer wrote it.

    Example:
        >>> load_capsule("missing.trc")
        Traceback (most recent call last):
        tracer.errors.CapsuleError: There is no capsule 'missing.trc'. `tracer capsule list RUN` shows those of a run.
    """
    return Capsule(Contents(path, trust=trust), entry)


def _same_file(entry: str, recorded: str, asked: str) -> bool:
    """Tell whether a path means a source file; it may be shortened, or of the capsule's own copy."""
    own_copy = asked.endswith("/" + entry.removeprefix("source/"))
    return recorded == asked or recorded.endswith(f"/{asked.lstrip('./')}") or own_copy


def _is_source(name: str) -> bool:
    """Tell whether an entry is a source file."""
    return name.startswith("source/")


__all__ = ["Capsule", "Draft", "Facts", "SnapshotData", "collect", "load_capsule", "write"]
