"""From one tracker to another, through the store: each run is taken in, sent on, and compared on both sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from tracer.backends.base import Source
from tracer.errors import ConfigError
from tracer.migration.addresses import Address, address
from tracer.migration.exporting import Exporting, report_of, sent_or_failed
from tracer.migration.importing import Importing, each, importing_of
from tracer.migration.reports import FAILED, PLANNED, MigrationReport, Moved

if TYPE_CHECKING:
    from tracer.storage.store import Store

#: Called with how many runs are done and how many there are, or 0 where nobody counted them.
Progress = Callable[[int, int], None]


def migrate(
    store: Store,
    source: str | Address | Source,
    target: str | Address,
    *,
    project: str | None = None,
    pattern: str | None = None,
    verify: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> MigrationReport:
    """Move runs from one tracker to another; they stay in the store, and nothing is deleted at the source.

    Args:
        store: Through which store.
        source: What is read; see `import_runs`. `tracer.migration.addresses.address` takes options of either.
        target: Where to; see `export_runs`.
        project: Put the runs into this project.
        pattern: Only runs whose name, id, or project and name match.
        verify: Compare source with store, and store with target.
        dry_run: Only say what would be done.
        progress: Called with how many runs are done.

    Returns:
        Both halves, run by run.

    Raises:
        ConfigError: One of the two is not known, or they are the same place.

    Example:
        >>> migrate(store, "wandb:./wandb", "mlflow:sqlite:///ml.db").is_good  # doctest: +SKIP
        True
    """
    importing = importing_of(source, project=project, pattern=pattern)
    where = target if isinstance(target, Address) else address(target, writing=True)
    check_ends(importing, where)
    exporting = Exporting(store, where)
    if dry_run:
        return planned(importing, exporting, store)
    return carried_over(importing, exporting, store, verify=verify, progress=progress)


def check_ends(importing: Importing, target: Address) -> None:
    """See that a migration leads somewhere else.

    Raises:
        ConfigError: Source and target are one place.
    """
    if (importing.where.name, importing.where.uri) == (target.name, target.uri):
        message = f"Source and target are the same place, {target.shown}. Name another target."
        raise ConfigError(message)


def planned(importing: Importing, exporting: Exporting, store: Store | None) -> MigrationReport:
    """Return what a migration would do."""
    runs = importing.plan(store)
    there = [replace(run, there="", uid="") for run in runs]
    return MigrationReport(importing.report(runs, dry_run=True), report_of(exporting, there, dry_run=True))


def carried_over(
    importing: Importing,
    exporting: Exporting,
    store: Store,
    *,
    verify: bool = True,
    progress: Progress | None = None,
) -> MigrationReport:
    """Take each run in and send it on before the next; what was done before an interruption is not done again."""
    taken: list[Moved] = []
    sent: list[Moved] = []
    stopped_in = stopped_out = None
    for moved, why in each(importing, store, verify=verify):
        taken.append(moved)
        stopped_in = stopped_in or why
        if moved.outcome not in (FAILED, PLANNED):
            exporting.plan([moved.uid])
            gone, stopped_out = sent_or_failed(exporting, moved.uid)
            sent.append(gone)
        if progress is not None:
            progress(len(taken), importing.total)
        if stopped_out is not None:
            break
    if verify and stopped_out is None:
        sent = exporting.verified(sent)
    return MigrationReport(importing.report(taken, stopped=stopped_in), report_of(exporting, sent, stopped=stopped_out))


__all__ = ["Progress", "carried_over", "check_ends", "migrate", "planned"]
