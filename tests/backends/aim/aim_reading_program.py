"""Read an Aim repository with Aim's own reader and print what stands there as JSON; started by the tests.

Usage: python aim_reading_program.py REPOSITORY
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from aim import Repo
from aim.ext.resource.log import LogLine  # noqa: F401 -- registers lines of output
from aim.storage.context import Context


def series(repo: Any, query: str) -> list[tuple[str, str, dict[str, Any], Any]]:  # noqa: ANN401
    """Return hash, name, context and sequence of what a query finds."""
    return [
        (found.run.hash, one.name, one.context.to_dict(), one)
        for found in getattr(repo, query)("True", report_mode=0).iter_runs()
        for one in found
    ]


def main(folder: str) -> None:
    """Read."""
    logging.disable(logging.WARNING)
    repo = Repo.from_path(folder)
    runs: dict[str, dict[str, Any]] = {}
    for run in repo.iter_runs():
        found = repo.get_run(run.hash)
        logs = found.get_terminal_logs()
        records = found._get_sequence("log_records", "__log_records", Context({}))
        artifacts = {}
        for name, one in found.artifacts.items():
            with open(one.uri.removeprefix("file://"), "rb") as opened:
                artifacts[name] = opened.read().decode("latin-1")
        runs[run.hash] = {
            "name": run.name, "experiment": run.experiment, "tags": run.tags, "description": run.description,
            "created": run.creation_time, "ended": run.end_time, "params": found["hparams"], "tracer": found["tracer"],
            "artifacts": artifacts, "points": [], "objects": [],
            "lines": [value[0].data for _, value in logs.data.items()] if logs else [],
            "records": [value[0].json() for _, value in records.data.items()] if records else [],
        }  # fmt: skip
    for run_hash, name, context, one in series(repo, "query_metrics"):
        steps, (values, _, times) = one.data.numpy()
        told = [steps.tolist(), [value.hex() for value in values.tolist()], times.tolist()]
        runs[run_hash]["points"].append([name, context, *told])
    for query, read in (
        ("query_texts", lambda one: one.data),
        ("query_distributions", lambda one: one.weights.tolist()),
        ("query_images", lambda one: [list(one.to_pil_image().getpixel((0, 0))), one.caption]),
    ):
        for run_hash, name, context, one in series(repo, query):
            told = [[step, read(value[0]), value[2]] for step, value in one.data.items()]
            runs[run_hash]["objects"].append([name, context, told])
    sys.stdout.write(json.dumps(runs))


if __name__ == "__main__":
    main(sys.argv[1])
