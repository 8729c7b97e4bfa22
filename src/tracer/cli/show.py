"""`tracer show`: one run at a glance, and live with `--follow`."""

# ruff: noqa: FBT001 -- click hands over one argument for each option, by name

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from tracer import events
from tracer.analysis.differences import flatten
from tracer.analysis.severities import gravest, rank
from tracer.cli import completion
from tracer.cli.capsules import capsules_of
from tracer.cli.kept import kept_blocks, kept_record
from tracer.cli.mirrors import mirror_blocks, mirror_record
from tracer.cli.options import one_run, reading
from tracer.cli.output import Rows, Show
from tracer.cli.records import checkpoint_record, finding_record, metric_record, run_record
from tracer.cli.run_page import chosen_metrics, header, metric_table
from tracer.render.formats import clean, full, number, percent, size, when
from tracer.render.tables import Block, Cell, Heading, Lines, Pairs, Styled, Table, severity

if TYPE_CHECKING:
    from tracer.storage.store import Store
    from tracer.storage.values import FindingRow, RunRow, SeriesRow

_MOST_PARAMETERS = 40
_SHORT_COMMIT = 12
#: What `st_blocks` counts in, whatever the file system.
_BLOCK = 512


@click.command("show")
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@click.option(
    "--metrics",
    "-m",
    "metrics",
    metavar="NAME",
    multiple=True,
    shell_complete=completion.metrics,
    help="Only these metrics, as a name or a pattern such as 'val/*'; may be repeated.",
)
@click.option("--all", "everything", is_flag=True, help="Show system metrics and every parameter too.")
@click.option("--follow", "-f", is_flag=True, help="Go on showing the run while it lives; ends with it.")
@reading(rows=True)
def show_run(
    run: str,
    metrics: tuple[str, ...],
    everything: bool,
    follow: bool,
    store: Store,
    show: Show,
) -> None:
    """Show one run: status and why, parameters, metrics, findings, environment, what Tracer cost.

    --csv prints the summary of its metrics.
    """
    found = one_run(store, run, show)
    if follow:
        from tracer.cli.following import follow_run

        follow_run(store, found, metrics, show)
        return
    rows = chosen_metrics(store, found, metrics, everything=everything)
    findings = sorted(store.findings(found.uid), key=lambda row: (row.step, row.kind))
    checkpoints = store.checkpoints(found.uid) if show.as_json else []
    document = {
        **run_record(found),
        "metrics": [metric_record(row) for row in rows],
        "findings": [finding_record(row) for row in findings],
        "checkpoint_list": [checkpoint_record(row) for row in checkpoints],
        "settings": dict(found.settings),
        "summary": dict(found.summary),
        "labels": dict(found.labels),
        "origins": dict(found.origins),
        "environment": dict(found.environment),
        "git": dict(found.git),
        "cost": dict(found.cost),
        "counters": dict(found.counters),
        "lost": found.lost,
        "exit_code": found.exit_code,
        "expires": found.expires,
        "mirrors": mirror_record(store, found),
        "capsules": [os.path.basename(path) for path in capsules_of(store, found)],
        **(kept_record(store, found) if show.as_json else {}),
    }
    show(
        {"run": document},
        blocks=lambda: [
            *header(found),
            *_values("Parameters", found.config, everything=everything),
            *metric_table(store, found, rows, show),
            *_values("Summary", found.summary, everything=everything),
            *_findings(findings),
            *_capsules([os.path.basename(path) for path in capsules_of(store, found)], found.name),
            *kept_blocks(store, found),
            *mirror_blocks(store, found),
            *_surroundings(found),
            *_cost(found, store),
        ],
        rows=lambda: _rows(rows),
    )


def _values(heading: str, values: Mapping[str, object], *, everything: bool) -> list[Block]:
    """Return named values, the nested ones by their path: what the user set, what stood at the end."""
    leaves = list(flatten(values).items())
    if not leaves:
        return []
    shown = leaves if everything else leaves[:_MOST_PARAMETERS]
    blocks: list[Block] = [
        Heading(heading),
        Pairs(tuple((clean(key), number(value) if isinstance(value, float) else full(value)) for key, value in shown)),
    ]
    if len(shown) < len(leaves):
        blocks.append(Lines((f"… and {len(leaves) - len(shown)} more: --all shows them",)))
    return blocks


def _findings(findings: Sequence[FindingRow]) -> list[Block]:
    """Return what was found, the gravest kinds first."""
    if not findings:
        return []
    by_kind: dict[str, list[FindingRow]] = {}
    for row in findings:
        by_kind.setdefault(row.kind, []).append(row)
    worst = {kind: gravest(row.severity for row in found) for kind, found in by_kind.items()}
    kinds = sorted(by_kind, key=lambda kind: (-rank(worst[kind]), by_kind[kind][0].step, kind))
    rows = tuple(
        (clean(kind), str(len(by_kind[kind])), severity(worst[kind]), str(by_kind[kind][0].step)) for kind in kinds
    )
    return [Heading("Findings"), Table(("type", "count", "severity", "first step"), rows, frozenset({1, 3}))]


def _capsules(names: Sequence[str], run: str) -> list[Block]:
    """Return which steps were kept, and how to run one again."""
    if not names:
        return []
    hint = f"Run one again: tracer replay {clean(run)}" + (" --step N" if len(names) > 1 else "")
    return [Heading("Capsules"), Lines((*(clean(name) for name in names), hint))]


def _surroundings(run: RunRow) -> list[Block]:
    """Return where and from which code it ran."""
    facts: list[tuple[str, Cell]] = []
    for name, keys in (
        ("python", ("python", "version")),
        ("platform", ("platform", "name")),
        ("torch", ("torch", "version")),
        ("cpu", ("cpu", "model")),
        ("script", ("script",)),
        ("command", ("command", "argv")),
    ):
        value = _dig(run.environment, keys)
        if value not in (None, "", []):
            facts.append((name, clean(" ".join(map(str, value))) if isinstance(value, list) else full(value)))
    if run.host:
        facts.insert(0, ("host", clean(run.host)))
    git = run.git
    if git.get("commit_hash"):
        changed = ", with uncommitted changes" if git.get("is_dirty") else ""
        branch = f" on {git['branch']}" if git.get("branch") else ""
        facts.append(("git", clean(f"{str(git['commit_hash'])[:_SHORT_COMMIT]}{branch}{changed}")))
    return [Heading("Environment"), Pairs(tuple(facts))] if facts else []


def _cost(run: RunRow, store: Store) -> list[Block]:
    """Return what the recording took, and what it lost."""
    points = sum(row.n for row in store.metrics(run.uid))
    facts: list[tuple[str, Cell]] = [("disk", size(_bytes(store.run_folder(run)))), ("points", f"{points:,}")]
    seconds, of = run.cost.get("seconds"), run.cost.get("of_seconds")
    if isinstance(seconds, (int, float)):
        share = (
            f", {percent(seconds / of).lstrip('+')} of the training" if isinstance(of, (int, float)) and of > 0 else ""
        )
        facts.append(("cost", f"{seconds:.3g}s{share}"))
        parts = run.cost.get("parts")
        if isinstance(parts, dict) and len(parts) > 1:
            dearest = sorted(parts.items(), key=lambda part: -part[1])
            facts.append(("", clean(", ".join(f"{name} {spent:.2g}s" for name, spent in dearest if spent))))
    for name, count in run.counters.items():
        if name in events.HARMLESS:
            continue
        facts.append(("trouble", Styled(f"{count:,} {events.COUNTERS.get(name, clean(name))}", "yellow")))
    if run.lost:
        facts.append(("lost", Styled(f"{run.lost:,} points", "bold red")))
    if run.expires:
        facts.append(("expires", when(run.expires)))
    return [Heading("Recording"), Pairs(tuple(facts))]


def _bytes(folder: str) -> int:
    """Return what a folder takes on the disk, its preallocated and empty parts left out."""
    paths = (os.path.join(parent, name) for parent, _, names in os.walk(folder) for name in names)
    total = 0
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # folded and removed a moment ago
            total += os.lstat(path).st_blocks * _BLOCK
    return total


def _dig(values: Mapping[str, object], keys: Sequence[str]) -> object:
    """Return a nested value."""
    found: object = values
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _rows(rows: Sequence[SeriesRow]) -> Rows:
    """Return the metrics for CSV."""
    records = [metric_record(row) for row in rows]
    names = list(records[0]) if records else ["metric"]
    return Rows(names, [[record[name] for name in names] for record in records])


__all__ = ["show_run"]
