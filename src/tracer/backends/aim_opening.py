"""One run of an Aim repository, opened without its index, and what is known of it besides its series."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from tracer import events
from tracer.backends.aim_objects import EMPTY
from tracer.transfer import RunInfo

#: What a run's attributes hold besides parameters.
_NOT_PARAMS = ("tracer", "__system_params")


def info(run: Any) -> RunInfo:  # noqa: ANN401
    """Return what is known of a run."""
    ours, params = tree(run, "tracer"), _params(run)
    ended = run.meta_run_tree.get("end_time", None) or run.props.end_time
    status = ours.get("status")
    if status not in (events.COMPLETED, events.FAILED, events.CRASHED):
        status = events.COMPLETED if ended else events.CRASHED
    started = round(run.creation_time * 1e6)

    def mapping(name: str) -> Mapping[str, object]:
        told = ours.get(name)
        return told if isinstance(told, dict) else {}

    def text(name: str) -> str | None:
        told = ours.get(name)
        return None if told is None else str(told)

    return RunInfo(
        uid="",
        project=str(run.props.experiment or "default"),
        name=str(run.name or run.hash),
        started=started,
        status=str(status),
        ended=round(ended * 1e6) if ended else None,
        steps=int(ours.get("steps") or 0),
        group=text("group"),
        job_type=text("job_type"),
        notes=run.description or None,
        tags=tuple(run.tags),
        labels={name: str(value) for name, value in mapping("labels").items()},
        params=params,
        summary=mapping("summary"),
        environment=mapping("environment"),
        git=mapping("git"),
        origin=f"aim:{run.hash}",
    )


def opened(repo: Any, run_hash: str) -> Any:  # noqa: ANN401
    """Return a run that reads its own files instead of the index."""
    run = import_module("aim").Run(run_hash, repo=repo, read_only=True)
    # Without `skip_read_optimization` the files of a run that is being written would be changed.
    meta = repo.request_tree("meta", run_hash, read_only=True, skip_read_optimization=True).subtree("meta")
    run.meta_tree, run.meta_run_tree = meta, meta.subtree("chunks").subtree(run_hash)
    run.meta_attrs_tree, run.meta_run_attrs_tree = meta.subtree("attrs"), run.meta_run_tree.subtree("attrs")
    run._tracker.meta_tree = meta  # noqa: SLF001
    if os.path.isdir(os.path.join(repo.path, "seqs", "chunks", run_hash)):
        series = repo.request_tree("seqs", run_hash, read_only=True, skip_read_optimization=True).subtree("seqs")
        run._series_run_trees = {  # noqa: SLF001
            1: series.subtree(("chunks", run_hash)),
            2: series.subtree(("v2", "chunks", run_hash)),
        }
    return run


def tree(run: Any, name: str) -> dict[str, Any]:  # noqa: ANN401
    """Return one of a run's attributes, if it is a mapping."""
    told = run.get(name, {})
    return told if isinstance(told, dict) else {}


def _params(run: Any) -> dict[str, object]:  # noqa: ANN401
    """Return the parameters: `hparams` as they are, and everything else by its name."""
    told = run.get(..., {})
    if not isinstance(told, dict):
        return {}
    rest = {str(name): _named(value) for name, value in told.items() if name not in (*_NOT_PARAMS, "hparams")}
    params = told.get("hparams")
    if isinstance(params, dict):
        return {**rest, **{str(name): value for name, value in _named(params).items()}}
    return rest if params is None else {**rest, "hparams": params}


def _named(value: Any) -> Any:  # noqa: ANN401
    """Return a value with the empty names it had."""
    if isinstance(value, dict):
        return {"" if name == EMPTY else name: _named(one) for name, one in value.items()}
    return [_named(one) for one in value] if isinstance(value, list) else value
