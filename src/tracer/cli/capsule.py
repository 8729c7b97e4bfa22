"""`tracer capsule`: list the capsules of a run, show one, ask a running program for one, remove some."""

# ruff: noqa: FBT001 -- click hands over one argument for each option, by name

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from tracer import clock
from tracer.cli import completion
from tracer.cli.capsules import SUFFIX, capsule_of, capsules_of, manifest_of
from tracer.cli.options import confirm, one_run, reading
from tracer.cli.output import Show
from tracer.errors import CapsuleError, CommandError
from tracer.render.formats import clean, full, number, size
from tracer.render.tables import Block, Cell, Heading, Lines, Pairs, Styled, Table

if TYPE_CHECKING:
    from tracer.storage.store import Store

#: What a running recorder looks for in the run's folder.
REQUEST = "capsule.request"
_POLL_S = 0.1
_CANNOT_LOAD = 3


@click.group("capsule", context_settings={"help_option_names": ["-h", "--help"]})
def capsule_group() -> None:
    """List the capsules of a run, show one, ask for one, remove some; `tracer replay` runs one again."""


@capsule_group.command("list")
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@reading()
def list_capsules(run: str, store: Store, show: Show) -> None:
    """List the capsules of a run: which step, what happened, and where it was born."""
    found = one_run(store, run, show)
    records = [_record(path) for path in capsules_of(store, found)]
    rows = tuple(
        (
            clean(one["file"]),
            full(one["step"]),
            clean(one["kind"]),
            size(one["bytes"]),
            clean(one["error"] or _where(one["origin"])),
        )
        for one in records
    )
    table = Table(("capsule", "step", "kind", "size", "origin"), rows, frozenset({1, 3}), frozenset({4}))
    folder = os.path.dirname(records[0]["path"]) if records else ""
    show(
        {"run": found.uid, "capsules": records},
        blocks=lambda: [table, Lines((f"in {clean(folder)}",))] if records else [Lines(("no capsules",))],
    )


@capsule_group.command("show")
@click.argument("capsule", metavar="CAPSULE|RUN")
@click.option("--step", type=int, metavar="N", help="Of a run's capsules the one of this step.")
@click.option("--manifest", "whole", is_flag=True, help="Print the whole manifest as JSON.")
@reading(store=False)
def show_capsule(capsule: str, step: int | None, whole: bool, storage: str, show: Show) -> int:
    """Show what a capsule holds, and check every byte of it; the exit code is 3 when it is damaged."""
    from tracer.flight.archive import Archive
    from tracer.flight.signature import is_own
    from tracer.render.formats import to_json

    path = capsule_of(capsule, step, storage)
    try:
        archive = Archive(path)
    except CapsuleError as error:
        raise CommandError(str(error), exit_code=_CANNOT_LOAD) from error
    manifest = archive.manifest
    wrong = archive.verify()
    entries = [(name, archive.size_bytes(name)) for name in archive.names]
    ring = [] if wrong or "ring.json" not in archive else archive.json("ring.json")
    archive.close()
    if whole:
        show.lines(to_json(manifest).splitlines())
        return _CANNOT_LOAD if wrong else 0
    own = is_own(manifest)
    show(
        {"path": os.path.abspath(path), "own": own, "wrong": wrong, "manifest": manifest, "entries": dict(entries)},
        blocks=lambda: [
            Heading(clean(os.path.basename(path))),
            Pairs(tuple(_facts(manifest, own=own))),
            *_origin(manifest),
            *_ring(ring),
            Heading("Entries"),
            Table(("entry", "size"), tuple((clean(name), size(length)) for name, length in entries), frozenset({1})),
            *_checked(wrong),
        ],
    )
    return _CANNOT_LOAD if wrong else 0


@capsule_group.command("now")
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@click.option("--wait", "wait_s", type=float, default=30.0, metavar="S", help="How long to wait for it; 30 seconds.")
@reading()
def request_capsule(run: str, wait_s: float, store: Store, show: Show) -> int:
    """Ask a running program for a capsule of its next step; the exit code is 1 when none came in time."""
    found = one_run(store, run, show)
    if not found.is_live:
        message = f"Run {clean(found.name)!r} is not recording any more ({found.status}); nobody would answer."
        raise CommandError(message, exit_code=1)
    before = set(capsules_of(store, found))
    path = os.path.join(store.run_folder(found), REQUEST)
    with open(path, "w", encoding="utf-8"):
        pass  # that it is there is the request
    show.note("waiting for the next step …")
    new = _awaited(store, found, before, wait_s)
    if new:
        show.done(f"Written: {clean(new[0])}\nReplay it: tracer replay {clean(new[0])}")
        show({"capsules": new}, blocks=list) if show.as_json else None
        return 0
    taken = not os.path.exists(path)
    with contextlib.suppress(OSError):
        os.unlink(path)
    why = (
        "The recorder has taken the request, and writes the capsule with the next step."
        if taken
        else "Nobody took the request: the program records no flight (tracer.watch starts it), or it stands still."
    )
    message = f"No capsule within {wait_s:g} seconds. {why}"
    raise CommandError(message, exit_code=1)


@capsule_group.command("rm")
@click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path())
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@reading(store=False)
def remove_capsules(files: tuple[str, ...], yes: bool, storage: str, show: Show) -> None:  # noqa: ARG001 -- shared options
    """Remove capsules from the disk; nothing brings them back."""
    for path in files:
        if not path.endswith(SUFFIX) or not os.path.isfile(path):
            message = f"{clean(path)!r} is no capsule. `tracer capsule list RUN` shows where a run's capsules lie."
            raise CommandError(message)
    total = sum(os.path.getsize(path) for path in files)
    what = f"{len(files)} capsules" if len(files) > 1 else repr(clean(os.path.basename(files[0])))
    confirm(f"Remove {what} ({size(total)}) for good?", yes=yes)
    for path in files:
        os.unlink(path)
    show.done(f"Removed {what}, {size(total)} freed.")
    if show.as_json:
        show({"removed": [os.path.abspath(path) for path in files], "bytes": total}, blocks=list)


def _record(path: str) -> dict[str, Any]:
    """Return what a list says of a capsule; one that cannot be read is listed all the same."""
    base = {"file": os.path.basename(path), "path": os.path.abspath(path), "bytes": os.path.getsize(path)}
    try:
        manifest = manifest_of(path)
    except CommandError as error:
        empty = dict.fromkeys(("step", "kind", "rank", "created", "exact", "value", "origin"))
        return {**base, **empty, "kind": "?", "error": str(error)}
    known = {name: manifest.get(name) for name in ("step", "kind", "rank", "created", "exact", "value", "origin")}
    return {**base, **known, "error": None}


def _where(origin: Mapping[str, Any] | None) -> str:
    """Return a capsule's origin in a few words."""
    if not origin:
        return "-"
    line = f" {os.path.basename(str(origin['file']))}:{origin.get('line')}" if origin.get("file") else ""
    return f"{origin.get('op')} in {origin.get('module') or 'the model'}{line}"


def _facts(manifest: Mapping[str, Any], *, own: bool) -> list[tuple[str, Cell]]:
    """Return a capsule's facts."""
    versions, machine, model = (manifest.get(name) or {} for name in ("versions", "machine", "model"))
    value = "" if manifest.get("value") is None else f" ({number(manifest['value'])})"
    commit = str((manifest.get("git") or {}).get("commit_hash") or "")[:12]
    found: list[tuple[str, Cell]] = [
        ("what", clean(f"{str(manifest.get('kind')).replace('_', ' ')}{value}")),
        ("step", full(manifest.get("step"))),
        ("run", clean(manifest.get("run") or "-")),
        ("made", clean(manifest.get("created"))),
        ("model", clean(f"{model.get('class')}, {model.get('parameters', 0):,} parameters")),
        ("torch", clean(f"{versions.get('torch')}, Python {versions.get('python')}, {machine.get('threads')} threads")),
        ("command", clean(" ".join(map(str, manifest.get("argv") or ())))),
        ("commit", clean(commit or "-")),
        ("replay", "bit-exact as far as is known" if manifest.get("exact") else Styled("not exact", "yellow")),
        ("trust", "your own: its pickles are read" if own else Styled("not yours: pickles need --trust", "yellow")),
    ]
    if manifest.get("world_size", 1) > 1:
        found.insert(2, ("rank", f"{manifest.get('rank')} of {manifest.get('world_size')}"))
    if manifest.get("error"):
        found.insert(1, ("error", clean(manifest["error"])))
    return found + [("note", clean(note)) for note in manifest.get("notes") or ()]


def _origin(manifest: Mapping[str, Any]) -> list[Block]:
    """Return where the fault was born."""
    origin = manifest.get("origin")
    return [Heading("Origin"), Lines((clean(origin.get("text") or _where(origin)),))] if origin else []


def _ring(ring: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Return the steps before."""
    if not ring:
        return []
    keys = ("number", "loss", "norm", "seconds")
    rows = tuple(tuple(number(step.get(key)) for key in keys) for step in ring)
    return [Heading("Steps before"), Table(("step", "loss", "gradient norm", "seconds"), rows, frozenset(range(4)))]


def _checked(wrong: Sequence[str]) -> list[Block]:
    """Return whether every byte is as it was written."""
    if not wrong:
        return [Lines((Styled("Every entry has the SHA-256 of the manifest.", "green"),))]
    return [Heading("Damage"), Lines(tuple(Styled(clean(one), "bold red") for one in wrong))]


def _awaited(store: Store, run: Any, before: set[str], wait_s: float) -> list[str]:  # noqa: ANN401 -- a RunRow
    """Return capsules that came; none when the time is over."""
    ends, never = clock.monotonic() + wait_s, threading.Event()
    while True:
        new = [path for path in capsules_of(store, run) if path not in before]
        if new or clock.monotonic() >= ends:
            return new
        clock.wait(never, _POLL_S)


__all__ = ["capsule_group"]
