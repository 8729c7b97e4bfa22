"""From the store into each tracker and out of it again: every value bit for bit, except what its limits name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

#: Moves runs there and back in a process of its own: clients start threads, and some leave them.
PROGRAM = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from moving import histogram, info, odd_events, picture, series
from tracer.migration import export_runs, import_runs
from tracer.storage import Store

target, here = sys.argv[1], Path.cwd()
ends = ("name", "project", "notes", "tags", "status", "params", "summary")
with Store.open(here / "one", create=True) as one, Store.open(here / "two", create=True) as two:
    uids = []
    for number in range(3):
        events = [*odd_events(number, here, 1000), series("negative", 50, first=-25), histogram(), picture()]
        uids.append(one.take_in(info(number, status=("completed", "failed", "completed")[number]), events).uid)
    sent = export_runs(one, uids, target, verify=True)
    again = export_runs(one, uids, target)
    back = import_runs(two, target, verify=True)
    twice = import_runs(two, target)
    found = {run.name: run.uid for run in back.runs}
    equal = [one.digests(uid) == two.digests(found[one.info(uid).name]) for uid in uids]
    facts = [
        [end for end in ends if getattr(one.info(uid), end) != getattr(two.info(found[one.info(uid).name]), end)]
        for uid in uids
    ]
    def said(store, uid):
        return [(step, body) for step, _, body in store.texts(uid, "phase")]
    texts = [said(one, uid) == said(two, found[one.info(uid).name]) for uid in uids]
    files = [
        sorted(part.digest for file in one.outgoing(uid, {"file"}) for part in file.parts)
        for uid in uids
    ]
    theirs = [
        sorted(part.digest for file in two.outgoing(found[one.info(uid).name], {"file"}) for part in file.parts)
        for uid in uids
    ]
    print(json.dumps({
        "outcomes": [run.outcome for run in (*sent.runs, *again.runs, *back.runs, *twice.runs)],
        "sent": [sent.sent, again.sent, back.points],
        "errors": [str(one) for report in (sent, back) for run in report.runs for one in run.errors],
        "explained": sorted({str(one.reason) for run in sent.runs for one in run.differences if not one.is_error}),
        "notes": [note for run in sent.runs for note in run.notes],
        "equal": equal, "facts": facts, "texts": texts,
        "files": [set(ours) <= set(seen) for ours, seen in zip(files, theirs)],
        "losses": [loss.what for loss in sent.losses],
    }))
"""

#: Target → what its limits explain, and whether it takes files.
PAIRS = {
    "tensorboard:tb": (["log lines, artifacts, spans: not sent"], False),
    "csv:tables/": ([], True),
    "jsonl:tables/": ([], True),
    "parquet:tables/": ([], True),
    "mlflow:sqlite:///ml.db": ([], True),
    "wandb:wb": ([], True),
    "aim:repo": ([], True),
    "trackio:tk": ([], True),
    "clearml:cl": ([], True),
}
_CLIENT = {"parquet": "duckdb", "csv": "csv", "jsonl": "json"}


@pytest.mark.parametrize("target", PAIRS)
def test_there_and_back_nothing_is_lost(target: str, tmp_path: Path) -> None:
    name = target.partition(":")[0]
    pytest.importorskip(_CLIENT.get(name, name), reason=f"needs {name}")
    explained, takes_files = PAIRS[target]

    said = moved(target, tmp_path)

    assert said["errors"] == []
    assert said["notes"] == []
    assert said["equal"] == [True] * 3
    assert said["texts"] == [True] * 3
    assert said["facts"] == [[]] * 3
    assert said["files"] == [takes_files] * 3
    assert said["explained"] == explained
    assert said["outcomes"] == ["created"] * 3 + ["unchanged"] * 3 + ["created"] * 3 + ["unchanged"] * 3
    assert said["sent"] == [15150, 0, 15150]


def moved(target: str, folder: Path) -> dict[str, list[object]]:
    """Move runs there and back, and return what the program says of it."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, target, str(Path(__file__).parent)],
        cwd=folder, capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "AIM_ANALYTICS_DISABLED": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, list[object]] = json.loads(done.stdout.splitlines()[-1])
    return found
