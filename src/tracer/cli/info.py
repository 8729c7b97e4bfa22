"""`tracer info`: version, store, sizes, and what is installed; nothing heavy is imported to find out."""

from __future__ import annotations

import os
import platform
from collections import Counter
from typing import TYPE_CHECKING

import click

from tracer.cli.options import reading
from tracer.cli.output import Show
from tracer.render.formats import clean, size
from tracer.render.tables import Block, Cell, Heading, Pairs, Styled

if TYPE_CHECKING:
    from tracer.storage.values import RunRow

#: Distribution → what it is for.
_PACKAGES = {
    "click": "command line", "rich": "tables in the terminal", "numpy": "reading series", "duckdb": "Parquet and SQL",
    "psutil": "system metrics", "PyYAML": "tracer.yaml", "torch": "gradient statistics", "transformers": "callback",
    "lightning": "callback", "pytorch-lightning": "callback", "nvidia-ml-py": "GPU metrics",
}  # fmt: skip


@click.command("info")
@reading(store=False)
def show_info(storage: str, show: Show) -> None:
    """Show version, store, sizes, and what is installed."""
    from tracer.version import __version__

    versions = installed()
    store = _store(storage)
    python = f"{platform.python_implementation()} {platform.python_version()}"
    show(
        {
            "tracer": __version__,
            "python": python,
            "platform": platform.platform(),
            "store": store,
            "packages": versions,
        },
        blocks=lambda: [
            Heading("Tracer"),
            Pairs((("version", __version__), ("python", python), ("platform", clean(platform.platform())))),
            *_store_blocks(store),
            Heading("Packages"),
            Pairs(tuple((name, _version(name, version)) for name, version in versions.items())),
        ],
    )


def installed() -> dict[str, str | None]:
    """Return the version of each package that Tracer can use; None for one that is not there."""
    from importlib import metadata

    found: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _store(path: str) -> dict[str, object]:
    """Return what there is to say of the store."""
    facts: dict[str, object] = {"path": os.path.abspath(path), "exists": os.path.isdir(path)}
    if not facts["exists"]:
        return facts
    from tracer.storage.store import Store

    with Store.open(path) as store:
        runs = store.runs()
        facts["runs"] = _counted(runs)
        facts["projects"] = len({run.project for run in runs})
        facts["points"] = sum(run.points for run in runs)
        facts["bytes"] = dict(store.sizes())
    return facts


def _counted(runs: list[RunRow]) -> dict[str, int]:
    """Return how many runs there are, in all and of each state."""
    return {"all": len(runs), **Counter(run.status for run in runs)}


def _store_blocks(store: dict[str, object]) -> list[Block]:
    """Return the store for people."""
    facts: list[tuple[str, Cell]] = [("path", clean(store["path"]))]
    disk: list[tuple[str, Cell]] = []
    if not store["exists"]:
        facts.append(("state", Styled("not there yet; the first tracer.init makes it", "yellow")))
    else:
        runs, sizes = store["runs"], store["bytes"]
        if isinstance(runs, dict) and isinstance(sizes, dict):
            states = ", ".join(f"{count} {name}" for name, count in runs.items() if name != "all")
            facts.append(("runs", f"{runs['all']:,}" + (f" ({states})" if states else "")))
            facts.append(("projects", str(store["projects"])))
            facts.append(("points", f"{store['points']:,}"))
            disk = [(clean(name), size(amount)) for name, amount in sizes.items() if amount]
    blocks: list[Block] = [Heading("Store"), Pairs(tuple(facts))]
    return [*blocks, Heading("Disk"), Pairs(tuple(disk))] if disk else blocks


def _version(name: str, version: str | None) -> Cell:
    """Return a version, or what is missing without the package."""
    return f"{version}" if version else Styled(f"not installed ({_PACKAGES[name]})", "dim")


__all__ = ["installed", "show_info"]
