"""What the shell offers after a tab: names of runs, projects and metrics, from the catalog."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click

from tracer.cli.options import storage_path
from tracer.errors import TracerError

_MOST = 200


def runs(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 -- click's signature
    """Offer names of runs, the newest first."""
    from tracer.storage.store import Store

    def names(store: Store) -> Iterator[str]:
        yield from (run.name for run in store.runs(where=[("name", "~", incomplete)], limit=_MOST))
        yield "@last"

    return _offered(ctx, incomplete, names)


def projects(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Offer names of projects."""
    from tracer.storage.store import Store

    def names(store: Store) -> Iterator[str]:
        yield from (run.project for run in store.runs())

    return _offered(ctx, incomplete, names)


def metrics(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Offer the metrics of the runs that stand on the line already, else of the newest run."""
    from tracer.storage.store import Store

    given = ctx.params.get("run") or ctx.params.get("names") or "@last"
    wanted = [given] if isinstance(given, str) else list(given)

    def names(store: Store) -> Iterator[str]:
        for name in wanted:
            yield from (row.metric for row in store.metrics(store.run(name).uid))

    return _offered(ctx, incomplete, names)


def _offered(ctx: click.Context, incomplete: str, names: Callable[..., Iterator[str]]) -> list[str]:
    """Return what begins like the word under the cursor; a shell is never shown an error of ours."""
    from tracer.storage.store import Store

    group = ctx.find_root()
    storage = ctx.params.get("storage") or group.params.get("storage")
    try:
        with Store.open(storage_path(storage)) as store:
            found = dict.fromkeys(name for name in names(store) if name.startswith(incomplete) and name.isprintable())
    except (TracerError, OSError, ValueError):
        return []
    return list(found)[:_MOST]


__all__ = ["metrics", "projects", "runs"]
