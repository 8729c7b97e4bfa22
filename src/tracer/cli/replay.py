"""`tracer replay`: a step that went wrong, again: is it the same bit for bit, where was the fault born, what helps."""

# ruff: noqa: FBT001 -- click hands over one argument for each option, by name

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from tracer.cli.capsules import capsule_of
from tracer.cli.options import reading
from tracer.cli.output import Show
from tracer.errors import CapsuleError, CommandError, MissingDependency
from tracer.render.formats import clean, duration, number
from tracer.render.tables import Block, Cell, Heading, Lines, Pairs, Styled, Table

if TYPE_CHECKING:
    from tracer.flight.capsule import Capsule
    from tracer.flight.origin import Origin
    from tracer.flight.probes import Probe
    from tracer.flight.replay import ReplayResult
    from tracer.flight.what_if import WhatIfResult

_DRIFT, _USAGE, _CANNOT_LOAD = 1, 2, 3
_ALL = "auto"
_AROUND = 3


@click.command("replay")
@click.argument("capsule", metavar="CAPSULE|RUN")
@click.option("--step", type=int, metavar="N", help="Of a run's capsules the one of this step.")
@click.option("--origin", is_flag=True, help="Look for the operation, line and samples in which the fault is born.")
@click.option("--from", "begin", type=int, metavar="-N", help="Begin N steps earlier, from the capsule's snapshot.")
@click.option("--watch", metavar="MODULE", help="Print statistics of a module's activations and gradients.")
@click.option(
    "--what-if",
    "changes",
    metavar="[CHANGE=VALUE]",
    multiple=True,
    is_flag=False,
    flag_value=_ALL,
    help="Run again with a change, such as dtype=float64, autocast=off, drop-samples=3, clip=1.0, seed=0, "
    "deterministic=on, threads=1, lr=0.1x; may be repeated. Alone, at the end of the line: try what makes sense.",
)
@click.option("--pdb", "debug", is_flag=True, help="Stop in the debugger where the fault is born.")
@click.option("--entry", metavar="FILE.PY:BUILD", help="The function that builds the model.")
@click.option("--html", "page", type=click.Path(dir_okay=False), metavar="FILE", help="Write a report as one page.")
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Use N threads, not the recorded number.")
@click.option("--trust", is_flag=True, help="Read the capsule's pickles. They run code: trust who wrote it.")
@reading(store=False)
def replay_capsule(  # noqa: PLR0913, PLR0917 -- one for each option
    capsule: str,
    step: int | None,
    origin: bool,
    begin: int | None,
    watch: str | None,
    changes: tuple[str, ...],
    debug: bool,
    entry: str | None,
    page: str | None,
    threads: int | None,
    trust: bool,
    storage: str,
    show: Show,
) -> int:
    """Run the step of a capsule again, and say whether it is bit for bit the recorded one.

    CAPSULE is a .trc file; a RUN with one capsule, or with --step, works too. The exit code is 0 when the replay is
    bit-exact, 1 when it drifts, 2 when the command was wrong, and 3 when the capsule cannot be loaded.
    """
    asked = _asked(changes)
    path = capsule_of(capsule, step, storage)
    try:
        from tracer.flight.capsule import load_capsule

        with load_capsule(path, trust=trust, entry=entry) as loaded:
            return _Session(loaded, show).run(
                origin=origin or page is not None,
                begin=abs(begin or 0),
                watch=watch,
                asked=asked,
                debug=debug,
                page=page,
                threads=threads,
            )
    except (CapsuleError, MissingDependency) as error:
        raise CommandError(str(error), exit_code=_CANNOT_LOAD) from error
    except IndexError as error:
        raise CommandError(str(error), exit_code=_USAGE) from error
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        message = "Replaying needs the torch package, which is not installed here. pip install torch"
        raise CommandError(message, exit_code=_CANNOT_LOAD) from error


class _Session:
    """One replay: what is found out, and how it is shown."""

    def __init__(self, capsule: Capsule, show: Show) -> None:
        self._capsule, self._show = capsule, show
        self._blocks: list[Block] = []
        self._document: dict[str, Any] = {"capsule": os.path.abspath(capsule.path)}

    def run(
        self,
        *,
        origin: bool,
        begin: int,
        watch: str | None,
        asked: dict[str, list[str]] | None,
        debug: bool,
        page: str | None,
        threads: int | None,
    ) -> int:
        """Do what was asked for, show it, and return the exit code."""
        manifest = self._capsule.manifest
        self._head(manifest)
        self._say("building the model")
        self._capsule.model()
        if debug:
            from tracer.flight.stepping import debug_step

            debug_step(self._capsule.model(), self._capsule.step(), self._capsule.origin_recorded, manifest)
            return 0
        self._say(f"running step {manifest['step']} twice" + (f", from {begin} steps earlier" if begin else ""))
        result = self._capsule.replay(steps=begin or None, threads=threads)
        self._result(result)
        found = self._capsule.origin_recorded
        if origin:
            self._say("looking for the origin")
            found = self._capsule.origin() or found
            self._origin(found)
        if watch is not None:
            self._say(f"watching {watch}")
            self._probes(watch, self._capsule.watch(watch, begin))
        trial = None
        if asked is not None:
            self._say("trying changes")
            trial = self._capsule.what_if(**asked)
            self._what_if(trial)
        if page is not None:
            from tracer.flight.report import write_report

            write_report(page, self._capsule, result, found, trial)
            self._document["html"] = os.path.abspath(page)
            self._blocks.append(Lines((f"Report: {page}",)))
        self._show(self._document, blocks=lambda: self._blocks)
        return 0 if result.exact else _DRIFT

    def _say(self, doing: str) -> None:
        """Tell a person what goes on."""
        self._show.note(f"{doing} …")

    def _head(self, manifest: dict[str, Any]) -> None:
        """Say which capsule it is."""
        kind = clean(str(manifest["kind"]).replace("_", " "))
        value = "" if manifest.get("value") is None else f" ({number(manifest['value'])})"
        versions = manifest.get("versions", {})
        self._document |= {name: manifest.get(name) for name in ("kind", "step", "run", "value", "created", "rank")}
        self._blocks += [
            Heading(clean(os.path.basename(self._capsule.path))),
            Pairs(
                (
                    ("what", f"{kind}{value} at step {manifest['step']}"),
                    ("model", clean(manifest["model"]["class"])),
                    ("made", clean(f"{manifest['created']}, torch {versions.get('torch')}")),
                )
            ),
        ]

    def _result(self, result: ReplayResult) -> None:
        """Show what the replay gave."""
        self._document["replay"] = result.to_json()
        lines: list[Cell] = [Styled(clean(result.headline), "bold green" if result.exact else "bold red")]
        lines.append(clean(result.verdict))
        if result.drift is not None and result.reasons:
            lines.append("Because:" if len(result.reasons) == 1 else "Possible reasons:")
            lines += [clean(f"  - {reason}") for reason in result.reasons]
        lines += [clean(note) for note in (*self._capsule.manifest.get("notes", ()), *result.notes)]
        took = duration(sum(result.timings.values()))
        lines.append(Styled(f"two runs took {took}", "dim"))
        self._blocks += [Heading("Replay"), Lines(tuple(lines))]
        if result.steps:
            rows = tuple(
                tuple(number(step[key]) for key in ("step", "loss", "norm", "recorded")) for step in result.steps
            )
            header = ("step", "loss", "gradient norm", "recorded norm")
            self._blocks += [Heading("Steps on the way"), Table(header, rows, frozenset(range(4)))]

    def _origin(self, origin: Origin | None) -> None:
        """Show where the fault is born."""
        self._document["origin"] = None if origin is None else origin.to_json()
        if origin is None:
            self._blocks += [Heading("Origin"), Lines(("No operation of this step turns good numbers into bad ones.",))]
            return
        self._blocks += [Heading("Origin"), Lines((clean(origin.text),))]
        pairs: list[tuple[str, Cell]] = [
            ("operation", Styled(clean(f"{origin.op} ({origin.phase}, {origin.kind})"), "bold")),
            ("module", clean(origin.module or "the model itself")),
        ]
        if origin.file:
            pairs.append(("line", clean(f"{origin.file}:{origin.line}")))
        if origin.samples:
            pairs.append(("samples", ", ".join(map(str, origin.samples))))
        self._blocks.append(Pairs(tuple(pairs)))
        source = self._capsule.source_around(origin.file, origin.line, _AROUND)
        if source:
            self._blocks.append(Lines(tuple(_source_line(*line) for line in source)))
        if origin.inputs:
            rows = tuple(
                tuple(number(one.get(key, "")) for key in ("name", "shape", "dtype", "min", "max", "nonfinite"))
                for one in origin.inputs
            )
            header = ("input", "shape", "dtype", "smallest", "largest", "not finite")
            self._blocks.append(Table(header, rows, frozenset({3, 4, 5})))
        if origin.chain:
            self._blocks += [Lines(("then:", *(clean(f"  {link}") for link in origin.chain)))]

    def _probes(self, module: str, probes: Sequence[Probe]) -> None:
        """Show what a module did."""
        self._document["probes"] = {"module": module, "steps": [probe.to_json() for probe in probes]}
        rows: list[tuple[Cell, ...]] = []
        for probe in probes:
            values: list[Cell] = [str(probe.step)]
            for part in (probe.outputs, probe.upstream):
                values += (
                    ["-"] * 4
                    if part is None
                    else [number(part.minimum), number(part.maximum), number(part.deviation), number(part.nonfinite)]
                )
            rows.append((*values, number(probe.gradient_norm)))
        header = ("step", "out min", "out max", "out std", "bad", "∂ min", "∂ max", "∂ std", "∂ bad", "weight gradient")
        table = Table(header, tuple(rows), frozenset(range(len(header))))
        self._blocks += [Heading(f"Watching {clean(module or 'the model')}"), table]

    def _what_if(self, trial: WhatIfResult) -> None:
        """Show what changes do."""
        self._document["what_if"] = trial.to_json()
        answers = {True: Styled("gone", "bold green"), False: Styled("still there", "red"), None: Styled("?", "dim")}
        rows = tuple(
            (
                clean(one.change),
                answers[one.vanishes],
                "-" if one.moved is None else f"{100 * one.moved:.3g}%",
                clean(one.error or "; ".join(one.notes)),
            )
            for one in trial.outcomes
        )
        table = Table(("change", "the anomaly is", "gradients move", "note"), rows, frozenset({2}), frozenset({3}))
        self._blocks += [Heading("What if"), table]
        if trial.notes:
            self._blocks.append(Lines(tuple(map(clean, trial.notes))))


def _asked(changes: Sequence[str]) -> dict[str, list[str]] | None:
    """Return the values to try by change; None when nobody asked, empty when what makes sense shall be tried."""
    if not changes:
        return None
    asked: dict[str, list[str]] = {}
    for change in changes:
        if change == _ALL:
            continue
        name, equals, value = change.partition("=")
        if not equals or not value:
            message = f"--what-if {change!r} is not of the form CHANGE=VALUE, such as dtype=float64."
            raise click.UsageError(message)
        asked.setdefault(name.strip().replace("-", "_"), []).append(value.strip())
    return asked


def _source_line(place: int, text: str, here: bool) -> Cell:
    """Return a line of source as it is shown."""
    shown = f"{'→' if here else ' '} {place:>5}  {clean(text)}"
    return Styled(shown, "bold") if here else shown


__all__ = ["replay_capsule"]
