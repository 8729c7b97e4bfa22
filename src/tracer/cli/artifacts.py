"""`tracer artifacts`: what runs kept and used, and how to get it back."""

# ruff: noqa: FBT001 -- click hands over one argument for each option, by name

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from tracer.cli import completion
from tracer.cli.options import confirm, one_run, reading
from tracer.cli.output import Rows, Show
from tracer.errors import CommandError, StoreError
from tracer.render.formats import clean, full, iso, number, size, when
from tracer.render.tables import Block, Cell, Heading, Lines, Pairs, Styled, Table

if TYPE_CHECKING:
    from tracer.storage.artifact_diff import Difference, FileChange
    from tracer.storage.artifacts import Artifact
    from tracer.storage.store import Store

_SHORT, _MOST_FILES = 12, 40
_COLUMNS = ("artifact", "version", "type", "bytes", "aliases", "project", "run", "created", "digest", "uri")


@click.group("artifacts")
def artifacts_group() -> None:
    """List, show, fetch, compare and verify the artifacts of runs.

    An ARTIFACT is `name`, `name:v3`, `name:latest` or another alias, with `project/` or `run/` before it where several
    have the name; or a SHA-256.
    """


@artifacts_group.command("list")
@click.argument("run", metavar="[RUN]", required=False, shell_complete=completion.runs)
@click.option("--project", "-p", metavar="NAME", help="Only this project.")
@click.option("--name", "-n", metavar="NAME", help="Only versions of this name.")
@click.option("--type", "-t", "kind", metavar="TYPE", help="Only this type, such as checkpoint, model or dataset.")
@click.option("--used", is_flag=True, help="Show what runs used, instead of what they made.")
@reading(rows=True)
def list_artifacts(
    run: str | None, project: str | None, name: str | None, kind: str | None, used: bool, store: Store, show: Show
) -> None:
    """List the artifacts of a run, of a project, or of the whole store."""
    uid = one_run(store, run, show).uid if run is not None else None
    found = store.artifacts(uid, project=project, name=name, type=kind, used=used)
    show(
        {"artifacts": [_record(one) for one in found]},
        blocks=lambda: [_table(found)] if found else [Lines(("No artifacts. `run.log_artifact(path)` keeps one.",))],
        rows=lambda: Rows(_COLUMNS, [tuple(_record(one)[column] for column in _COLUMNS) for one in found]),
    )


@artifacts_group.command("show")
@click.argument("artifact")
@click.option("--all", "everything", is_flag=True, help="Name every file.")
@reading()
def show_artifact(artifact: str, everything: bool, store: Store, show: Show) -> None:
    """Show one version: its files, where it comes from, who used it."""
    found = _found(store, artifact)
    users = store.users_of(found)
    files = found.entries
    document = {
        **_record(found),
        "metadata": dict(found.metadata),
        "description": found.record.description,
        "files": [{"path": entry.path, "bytes": entry.bytes, "digest": entry.digest} for entry in files],
        "used_by": [{"run": one.run, "name": one.run_name} for one in users],
    }
    shown = files if everything else files[:_MOST_FILES]

    def blocks() -> list[Block]:
        rows = tuple((clean(one.path), size(one.bytes), (one.digest or "-")[:_SHORT]) for one in shown)
        more: list[Block] = (
            [Lines((f"{len(files) - len(shown)} more files; --all names them.",))] if len(shown) < len(files) else []
        )
        said = tuple((clean(key), clean(full(value))) for key, value in found.metadata.items())
        about: list[Block] = [Heading("Metadata"), Pairs(said)] if said else []
        return [
            Heading(clean(found.reference)),
            Pairs(tuple(_facts(found, [one.run_name for one in users]))),
            *about,
            Heading("Files"),
            Table(("path", "size", "sha-256"), rows, frozenset({1}), frozenset({0})),
            *more,
        ]

    show({"artifact": document}, blocks=blocks)


@artifacts_group.command("get")
@click.argument("artifact")
@click.option("--to", "to", metavar="PATH", type=click.Path(), help="The folder to copy into.")
@click.option("--yes", "-y", is_flag=True, help="Replace files that are there, without asking.")
@reading()
def get_artifact(artifact: str, to: str | None, yes: bool, store: Store, show: Show) -> None:
    """Copy the files of a version; each is compared with its SHA-256 while it is copied."""
    from tracer.storage.artifact_copies import collisions

    found = _found(store, artifact)
    target = to or found.default_target
    there = collisions(target, found.entries)
    if there:
        some = f"{clean(there[0])!r}" + (f" and {len(there) - 1} more" if len(there) > 1 else "")
        confirm(f"Replace {some} in {clean(target)!r}?", yes=yes)
    with show.progress("copying") as progress:
        path = found.download(target, overwrite=bool(there), progress=progress)
    show.done(f"{clean(found.reference)}: {size(found.bytes or 0)} in {clean(path)}")
    if show.as_json:
        show({"path": os.path.abspath(path), "artifact": _record(found)}, blocks=list)


@artifacts_group.command("diff")
@click.argument("before")
@click.argument("after")
@reading()
def diff_artifacts(before: str, after: str, store: Store, show: Show) -> int:
    """Show what differs between two versions: files, and the tensors in them; the exit code is 1 if anything does."""
    from tracer.storage.artifact_diff import difference

    found = difference(_found(store, before), _found(store, after))
    document = {
        "before": _record(found.before),
        "after": _record(found.after),
        "same_files": found.same,
        "files": [_change(one) for one in found.files],
        "metadata": {key: {"before": pair[0], "after": pair[1]} for key, pair in found.metadata.items()},
    }
    show({"difference": document}, blocks=lambda: _difference(found))
    return 0 if found.is_empty else 1


@artifacts_group.command("verify")
@click.argument("names", metavar="[ARTIFACT…]", nargs=-1)
@click.option("--run", metavar="RUN", shell_complete=completion.runs, help="Everything that this run made.")
@reading()
def verify_artifacts(names: tuple[str, ...], run: str | None, store: Store, show: Show) -> int:
    """Read all files and compare them with their SHA-256; the exit code is 1 if one is missing or damaged."""
    uid = one_run(store, run, show).uid if run is not None else None
    found = [_found(store, name) for name in names] if names else store.artifacts(uid)
    wrong: list[tuple[str, str]] = []
    with show.progress("verifying") as progress:
        for done, one in enumerate(found, start=1):
            try:
                wrong += [(one.reference, problem) for problem in one.problems()]
            except StoreError as error:
                wrong.append((one.reference, str(error)))
            if progress is not None:
                progress(done, len(found))
    total = sum(one.bytes or 0 for one in found)
    good = Styled(f"{len(found)} artifacts, {size(total)}: every file has its SHA-256.", "green")
    bad = tuple(Styled(f"{clean(name)}: {clean(problem)}", "bold red") for name, problem in wrong)
    show(
        {"artifacts": len(found), "bytes": total, "problems": [{"artifact": a, "problem": p} for a, p in wrong]},
        blocks=lambda: [Lines(bad or (good,))],
    )
    return 1 if wrong else 0


def _found(store: Store, reference: str) -> Artifact:
    """Return the version that was named, or say which there are."""
    from tracer.storage.artifacts import ArtifactNotFound

    try:
        return store.artifact(reference)
    except ArtifactNotFound as error:
        raise CommandError(str(error)) from error


def _record(one: Artifact) -> dict[str, Any]:
    """Return a version for JSON."""
    return {
        "artifact": one.name, "version": one.version, "reference": one.reference, "project": one.project,
        "type": one.type, "aliases": list(one.aliases), "bytes": one.bytes, "digest": one.digest,
        "run": one.run, "run_name": one.run_name, "made_by": one.record.maker or one.run,
        "direction": one.record.direction, "form": one.record.form, "uri": one.record.uri,
        "step": one.record.step, "origin": one.record.origin,
        "created": iso(one.record.created),
    }  # fmt: skip


def _table(found: Sequence[Artifact]) -> Block:
    """Return versions as a table."""
    rows = tuple(
        (
            Styled(clean(one.name), "cyan"),
            f"v{one.version}",
            clean(", ".join(one.aliases)) or "-",
            clean(one.type),
            "-" if one.bytes is None else size(one.bytes),
            clean(one.project),
            clean(one.run_name),
            when(one.record.created),
        )
        for one in found
    )
    head = ("artifact", "version", "aliases", "type", "size", "project", "run", "created")
    return Table(head, rows, frozenset({4}), frozenset({0}))


def _facts(one: Artifact, users: Sequence[str]) -> list[tuple[str, Cell]]:
    """Return what is known of a version."""
    step = f", step {one.record.step:,}" if one.record.step is not None else ""
    found: list[tuple[str, Cell]] = [
        ("project", clean(one.project)),
        ("type", clean(one.type)),
        ("aliases", clean(", ".join(one.aliases)) or "-"),
        ("size", "-" if one.bytes is None else size(one.bytes)),
        ("sha-256", one.digest or "not hashed"),
        ("made by", clean(f"{one.run_name}{step}")),
        ("used by", clean(", ".join(dict.fromkeys(users))) or "-"),
        ("created", when(one.record.created)),
    ]
    if one.record.uri is not None:
        found.insert(4, ("lies at", clean(one.record.uri)))
    if one.record.description:
        found.append(("about", clean(one.record.description)))
    return found


def _difference(found: Difference) -> list[Block]:
    """Return what differs, for people."""
    blocks: list[Block] = [Heading(f"{clean(found.before.reference)} → {clean(found.after.reference)}")]
    if found.is_empty:
        return [*blocks, Lines(("They are the same.",))]
    lines: list[Cell] = []
    for one in found.files:
        colour = {"added": "green", "removed": "red"}.get(one.what, "yellow")
        sizes = " → ".join(size(part) for part in (one.before, one.after) if part is not None)
        lines.append(Styled(f"{one.what:8} {clean(one.path)} ({sizes})", colour))
    blocks.append(Lines((*lines, f"{found.same} files are the same.")))
    for one in found.files:
        if one.tensors is not None:
            blocks += _tensors(one)
    if found.metadata:
        rows = tuple((clean(key), clean(full(a)), clean(full(b))) for key, (a, b) in found.metadata.items())
        blocks += [Heading("Metadata"), Table(("key", "before", "after"), rows, frozenset(), frozenset({1, 2}))]
    return blocks


def _tensors(change: FileChange) -> list[Block]:
    """Return which tensors of a file differ."""
    rows = tuple(
        (
            clean(one.name),
            one.what,
            clean(one.before or "-"),
            clean(one.after or "-"),
            number(one.largest) if one.largest is not None else "-",
            f"{one.differing:,} of {one.count:,}" if one.differing is not None else "-",
        )
        for one in change.tensors or ()
    )
    head = ("tensor", "differs", "before", "after", "largest difference", "values")
    table = Table(head, rows, frozenset({4, 5}), frozenset({0}))
    return [Heading(f"Tensors of {clean(change.path)}"), table, Lines((f"{change.same} tensors are the same.",))]


def _change(one: FileChange) -> dict[str, Any]:
    """Return the change of a file for JSON."""
    tensors = None
    if one.tensors is not None:
        tensors = [
            {"name": t.name, "what": t.what, "before": t.before, "after": t.after, "max_abs_difference": t.largest,
             "differing": t.differing, "count": t.count}
            for t in one.tensors
        ]  # fmt: skip
    sizes = {"bytes_before": one.before, "bytes_after": one.after}
    return {"path": one.path, "what": one.what, **sizes, "tensors": tensors, "same_tensors": one.same}


__all__ = ["artifacts_group"]
