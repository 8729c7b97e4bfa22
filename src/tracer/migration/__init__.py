"""Whole runs in and out: import, export and both in one, with a report that proves what arrived."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracer.migration.exporting import export_runs
    from tracer.migration.importing import import_runs
    from tracer.migration.migrating import migrate
    from tracer.migration.reports import Difference, MigrationReport, Moved, Report

_LATER = {
    "Difference": "tracer.migration.reports",
    "MigrationReport": "tracer.migration.reports",
    "Moved": "tracer.migration.reports",
    "Report": "tracer.migration.reports",
    "export_runs": "tracer.migration.exporting",
    "import_runs": "tracer.migration.importing",
    "migrate": "tracer.migration.migrating",
}

__all__ = ["Difference", "MigrationReport", "Moved", "Report", "export_runs", "import_runs", "migrate"]


def __getattr__(name: str) -> object:
    """Load the module of a public name when it is used."""
    if name not in _LATER:
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
    from importlib import import_module

    return getattr(import_module(_LATER[name]), name)
