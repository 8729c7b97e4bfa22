"""A run of another tracker, taken in: gathered aside, then put in its place in one step.

Who is killed on the way leaves a hidden folder, which the next import removes; a run that can be seen is whole. The
origin is the identity: the same source makes the same run, and one that changed makes it what the source is now.
What was done to the run here (tags, notes, findings, artifacts) stays.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from tracer import clock, runfile, transfer
from tracer.errors import StoreError
from tracer.storage import adoption, artifact_records, index, liveness, outgoing, staging
from tracer.storage import folder as folders
from tracer.storage.artifact_contents import Cellar, content_path
from tracer.storage.artifact_records import FILE, INPUT, Record
from tracer.storage.compact import compact_run
from tracer.storage.contents import Contents
from tracer.storage.decoded_events import OWN
from tracer.storage.fold import fold_run, settle
from tracer.storage.staging import Staging

if TYPE_CHECKING:
    from tracer.storage.catalog import Catalog
    from tracer.storage.ground import Ground
    from tracer.storage.outgoing import Digests
    from tracer.transfer import RunInfo

_ASIDE = ".replaced-"
#: What a fold writes, and what is made anew with every import.
_OURS = frozenset({*folders.FAMILIES, runfile.NAME, "artifacts", "journal"})
#: Rows that tell what was found in a run here, or by the program that recorded it.
_KEPT_ROWS = frozenset({"finding", "checkpoint", "samples"})
#: What a user may change here: it stays as long as the source says what it said.
_EDITABLE = ("project", "name", "notes", "tags", "group", "job_type", "labels")


@dataclass(frozen=True, slots=True)
class TakenIn:
    """What became of an import: the run, how many points it has, and how many came again for a step of their series."""

    uid: str
    points: int
    created: bool
    changed: bool
    superseded: int
    #: What was left out, in words.
    notes: tuple[str, ...] = ()


def take_in(
    store: Ground, info: RunInfo, events: Iterable[transfer.Event], *, progress: Callable[[int], None] | None = None
) -> TakenIn:
    """Keep a run of another tracker; see `Store.take_in`."""
    origin = info.origin or f"tracer:{info.uid}"
    uid = runfile.shared_id("origin", origin)
    name = runfile.folder_name(uid)
    runfile.prepare_store(store.base)
    staging.sweep(store.base)
    gathered = Staging(store.base, uid, name)
    try:
        for event in events:
            gathered.add(event)
            if progress is not None and isinstance(event, transfer.Points):
                progress(gathered.points)
        gathered.flush()
        digests = outgoing.digests_of(gathered.files)
        told = replace(gathered.info or info, uid=uid, origin=origin)
        with store.writing() as catalog:
            return _put(store, catalog, told, gathered, digests)
    except OSError as error:
        message = f"The run {info.name!r} cannot be kept in {store.base} ({error.strerror or error}). Free space."
        raise StoreError(message) from error
    finally:
        gathered.discard()


def _put(store: Ground, catalog: Catalog, info: RunInfo, gathered: Staging, digests: Digests) -> TakenIn:
    """Put what was gathered in its place, unless it is there already."""
    name = runfile.folder_name(info.uid)
    final = os.path.join(store.base, "runs", name)
    if catalog.row("SELECT 1 FROM run WHERE uid = ? AND trashed IS NOT NULL", (info.uid,)):
        message = (
            f"The run {info.uid} from {info.origin} is in the trash. Restore it, or empty the trash; then import it."
        )
        raise StoreError(message)
    _recover(final)
    kept = sum(count for count, _ in digests.values())
    found = TakenIn(
        info.uid,
        kept,
        not os.path.isdir(final),
        True,
        gathered.points - kept,
        tuple(gathered.notes),
    )
    before: dict[str, Any] = {}
    if not found.created:
        store.refresh()
        fold_run(store, info.uid)
        before = folders.read_facts(final)
        if before.get("status") == "running" and liveness.process_is_alive(before):
            message = f"The run {info.uid} still records, so nothing is taken into it. Import it when it has ended."
            raise StoreError(message)
        if _is_same(store, info, gathered, digests, before):
            return replace(found, changed=False)
        _carry_over(final, gathered)
    _write_records(store, info, gathered, before)
    runfile.create(gathered.folder, _facts(info, gathered, before))
    with catalog.transaction():  # whoever dies behind this has the run read anew
        catalog.execute("UPDATE run SET stale = 1, settled = 0 WHERE uid = ?", (info.uid,))
    _swap(gathered.folder, final)
    for digest in gathered.contents:
        Cellar(final).announce(digest)
    index.index(catalog, store.base, [name])
    adoption.register_run(catalog, store.base, info.uid)
    compact_run(store, catalog, info.uid)
    settle(store, [info.uid])
    return found


def _is_same(store: Ground, info: RunInfo, gathered: Staging, digests: Digests, before: Mapping[str, Any]) -> bool:
    """Tell whether the run has everything that came, and nothing else that would have come."""
    said = before.get("imported")
    if not isinstance(said, dict) or (said.get("content"), said.get("facts")) != (gathered.content, _told(info)):
        return False
    travelling = {key: one for key, one in digests.items() if not key[0].startswith(OWN)}
    return outgoing.digests(store, info.uid) == travelling


def _told(info: RunInfo) -> dict[str, Any]:
    """Return what a source says of a run, as it stands in `run.json`."""
    said = {key: value for key, value in asdict(info).items() if key not in ("uid", "origin")}
    found: dict[str, Any] = json.loads(json.dumps(said, default=str))
    return found


def _facts(info: RunInfo, gathered: Staging, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of `run.json`."""
    told = _told(info)
    environment = info.environment
    facts = runfile.new_facts(info.uid, info.project, info.name, {}) | {
        "status": info.status, "started": info.started, "ended": info.ended,
        "steps": info.steps or gathered.last_step, "config": told["params"], "tags": told["tags"],
        "notes": info.notes, "group": info.group, "job_type": info.job_type, "labels": told["labels"],
        "summary": told["summary"], "environment": told["environment"], "git": told["git"], "origin": info.origin,
        "world_size": gathered.ranks,
        # Its process is none of this machine's.
        "host": environment.get("host"), "user": environment.get("user") or "", "pid": None, "process_started": None,
        "boot": None, "imported": {"at": clock.now_us(), "content": gathered.content, "facts": told},
    }  # fmt: skip
    known = before.get("imported")
    told_before = known.get("facts") if isinstance(known, dict) else None
    if isinstance(told_before, dict):
        for key in _EDITABLE:
            if before.get(key) != told_before.get(key):
                facts[key] = before.get(key)  # somebody changed it here
        facts |= {key: before[key] for key in ("goals", "units", "expires") if key in before}
    return facts


def _write_records(store: Ground, info: RunInfo, gathered: Staging, before: Mapping[str, Any]) -> None:
    """Write the records of the artifacts; each keeps the number it has here, else takes the source's, else the next."""
    project = str(before.get("project") or info.project)
    final = os.path.join(store.base, "runs", runfile.folder_name(info.uid))
    known = {
        (one.name, one.direction, one.digest): one.version
        for one in artifact_records.read_records(final)
        if one.project == project
    }
    for record in gathered.records:
        number = known.pop((record.name, record.direction, record.digest), -1)
        if number < 0 and record.direction == INPUT:
            number = max(record.version, 0)
        if number < 0 and not _is_free(store.base, project, record):
            number = artifact_records.take_version(store.base, project, record.name)
        written = replace(record, project=project, version=record.version if number < 0 else number)
        artifact_records.write_record(gathered.folder, written)


def _is_free(base: str, project: str, record: Record) -> bool:
    """Take the number that a source gives to a version, if nobody has it; tell whether it is ours."""
    return record.version >= 0 and artifact_records.claim_version(base, project, record.name, record.version)


def _carry_over(final: str, gathered: Staging) -> None:
    """Take along what was added to the run here: findings, and artifacts that no import brought."""
    paths = [path for inside, path in adoption.files_in(final).items() if inside.startswith("logs/")]
    contents = Contents(paths)
    rows = [row for path in contents.footers for row in contents.sound(path).logs]
    gathered.add_rows([row for row in rows if row.kind in _KEPT_ROWS])
    gathered.flush()
    for record in artifact_records.read_records(final):
        if record.origin != staging.ORIGIN:
            for digest in _digests_of(final, record):
                _link(content_path(final, digest), content_path(gathered.folder, digest))
            artifact_records.write_record(gathered.folder, record)


def _digests_of(folder: str, record: Record) -> list[str]:
    """Return the contents of a version that lie in its run."""
    if record.digest is None or record.uri is not None:
        return []
    inside = [] if record.form == FILE else artifact_records.entries_of(folder, record)
    return [record.digest, *(entry.digest for entry in inside if entry.digest is not None)]


def _link(source: str, target: str) -> None:
    """Give a content a second name, or copy it where that cannot be."""
    if os.path.exists(target) or not os.path.exists(source):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _swap(gathered: str, final: str) -> None:
    """Put a folder in the place of another, which goes; what is not the import's moves along."""
    runs = os.path.dirname(final)
    aside = os.path.join(runs, _ASIDE + os.path.basename(final))
    if os.path.isdir(final):
        os.rename(final, aside)
        for name in os.listdir(aside):
            if name not in _OURS:
                os.rename(os.path.join(aside, name), os.path.join(gathered, name))
    os.rename(gathered, final)
    folders.sync_folder(runs)
    shutil.rmtree(aside, ignore_errors=True)


def _recover(final: str) -> None:
    """Bring back a run whose import died while it replaced it, or remove what is left of it."""
    aside = os.path.join(os.path.dirname(final), _ASIDE + os.path.basename(final))
    if not os.path.isdir(aside):
        return
    if os.path.isdir(final):
        shutil.rmtree(aside, ignore_errors=True)
    else:
        os.rename(aside, final)


__all__ = ["TakenIn", "take_in"]
