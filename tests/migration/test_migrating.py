"""A project goes from one tracker to another, through any number of kills, and nothing is sent twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from moving import ListSource, PeerBackend, info, odd_events, taken_in

from tracer.errors import ConfigError
from tracer.migration import export_runs, import_runs, migrate
from tracer.migration.reports import record
from tracer.storage import Store

#: Moves three runs, and kills itself at a certain call of `write` (or of `take_in`).
PROGRAM = """
import json, os, signal, sys
from pathlib import Path
from tracer.backends.files import JsonLinesBackend
from tracer.migration import migrate
from tracer.migration.reports import record
from tracer.storage import Store

where, at = sys.argv[1], int(sys.argv[2])
calls = 0

def deadly(method):
    def called(self, *given, **named):
        global calls
        calls += 1
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return method(self, *given, **named)
    return called

if where == "write":
    JsonLinesBackend.write = deadly(JsonLinesBackend.write)
elif where == "open":
    JsonLinesBackend.open = deadly(JsonLinesBackend.open)
else:
    Store.take_in = deadly(Store.take_in)
with Store.open("through", create=True) as store:
    print(json.dumps(record(migrate(store, "jsonl:tables/", "jsonl:lines/"))))
"""


def go(folder: Path, where: str = "", at: int = 0) -> tuple[int, dict[str, Any]]:
    """Move the runs in a process of its own, and return its exit code and its report."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, where, str(at)],
        cwd=folder, capture_output=True, text=True, check=False, timeout=120, env=dict(os.environ),
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


def test_what_is_killed_again_and_again_arrives_whole(store: Store, other: Store, tmp_path: Path) -> None:
    uids = [taken_in(store, number, tmp_path) for number in range(3)]
    assert export_runs(store, uids, "jsonl:tables/", verify=True).is_good

    codes = [go(tmp_path, where, at)[0] for where, at in (("take", 2), ("write", 2), ("open", 2), ("write", 1))]
    code, report = go(tmp_path)
    again = go(tmp_path)[1]

    assert (codes, code) == ([-signal.SIGKILL] * 4, 0)
    assert report["good"]
    assert [run["points"] for run in report["export"]["runs"]] == [500] * 3
    assert [run["outcome"] for run in again["export"]["runs"]] == ["unchanged"] * 3
    back = import_runs(other, "jsonl:lines/", verify=True)
    assert back.is_good
    assert sorted(sorted(other.digests(run.uid).items()) for run in back.runs) == sorted(
        sorted(store.digests(uid).items()) for uid in uids
    )


@pytest.fixture
def source() -> ListSource:
    """A source with two runs."""
    return ListSource({f"list:{at}": (info(at), list(odd_events(at))) for at in range(2)})


def test_runs_are_taken_in_and_sent_on(store: Store, source: ListSource, peer: type[PeerBackend]) -> None:
    seen: list[int] = []

    report = migrate(store, source, "peer:there", progress=lambda done, _: seen.append(done))

    assert report.is_good
    assert [(run.outcome, run.verified, run.sent) for run in report.exported.runs] == [("created", True, 500)] * 2
    assert [run.verified for run in report.imported.runs] == [True] * 2
    assert (seen, len(peer.runs)) == ([1, 2], 2)


def test_a_second_migration_sends_nothing(store: Store, source: ListSource, peer: type[PeerBackend]) -> None:
    migrate(store, source, "peer:there")
    before = list(peer.written)

    report = migrate(store, source, "peer:there")

    assert [run.outcome for run in (*report.imported.runs, *report.exported.runs)] == ["unchanged"] * 4
    assert peer.written == before


def test_a_rehearsal_writes_nothing(store: Store, source: ListSource, peer: type[PeerBackend]) -> None:
    report = migrate(store, source, "peer:there", dry_run=True)

    assert [run.outcome for run in (*report.imported.runs, *report.exported.runs)] == ["planned"] * 4
    assert (store.runs(), peer.runs) == ([], {})


def test_a_run_of_ours_does_not_come_back_as_another(store: Store, peer: type[PeerBackend]) -> None:
    store.take_in(info(), odd_events())
    held = ListSource({"tracer:x": (info(origin=f"tracer:{store.runs()[0].uid}"), [])})

    report = import_runs(store, held)

    assert [(run.outcome, run.uid) for run in report.runs] == [("unchanged", store.runs()[0].uid)]
    assert "recorded here" in report.runs[0].notes[0]
    assert len(store.runs()) == 1
    assert peer.runs == {}


def test_a_fault_nobody_foresaw_costs_one_run(store: Store, source: ListSource, peer: type[PeerBackend]) -> None:
    source.of["list:0"] = (info(0), [KeyError("their key")])

    report = migrate(store, source, "peer:there")

    assert [run.outcome for run in report.imported.runs] == ["failed", "created"]
    assert report.imported.runs[0].notes == ("KeyError: 'their key'",)
    assert [run.outcome for run in report.exported.runs] == ["created"]
    assert record(report)["good"] is False
    assert len(peer.runs) == 1


@pytest.mark.usefixtures("peer")
def test_one_place_cannot_be_both_ends(store: Store) -> None:
    with pytest.raises(ConfigError, match="the same place"):
        migrate(store, "peer:there", "peer:there")
