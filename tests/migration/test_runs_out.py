"""Runs go to a peer once; one that grew goes on; what the peer cannot hold is said, kept, and explained."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from moving import PeerBackend, PeerSource, all_series, histogram, info, odd_events, picture, taken_in

from tracer.backends.base import Limits, Refused, Rejected, Throttled, Unreachable
from tracer.migration import export_runs, import_runs
from tracer.migration.addresses import address
from tracer.migration.calls import Calls
from tracer.migration.exporting import Exporting, carried_out
from tracer.storage import Store
from tracer.transfer import FILE, HISTOGRAM, KINDS, MEDIA, SPAN, TEXT, File, Points

Peer = type[PeerBackend]


def sent(peer: Peer) -> int:
    """Return how many points the peer was given in all."""
    return sum(peer.written)


def test_a_run_arrives_with_everything(store: Store, peer: Peer, tmp_path: Path) -> None:
    uid = taken_in(store, 0, tmp_path)

    report = export_runs(store, [uid], "peer:here", verify=True)

    run = report.runs[0]
    assert (run.outcome, run.points, run.sent, run.series, run.artifacts) == ("created", 500, 500, 5, 1)
    assert (run.verified, run.compared, run.differences) == (True, 5, ())
    assert report.is_good
    assert max(peer.written) <= 64
    assert peer.runs[uid]["info"].origin == "list:0"


def test_what_was_logged_together_goes_together(store: Store, peer: Peer) -> None:
    uid = taken_in(store)

    export_runs(store, [uid], "peer:here")

    first = [event for event in peer.runs[uid]["events"] if isinstance(event, Points)][:5]
    assert sorted((one.name, one.rank) for one in first) == sorted((one.name, one.rank) for one in all_series())


def test_twice_is_once(store: Store, peer: Peer, tmp_path: Path) -> None:
    uid = taken_in(store, 0, tmp_path)
    export_runs(store, [uid], "peer:here")

    again = export_runs(store, [uid], "peer:here", verify=True)

    assert [(run.outcome, run.sent) for run in again.runs] == [("unchanged", 0)]
    assert (len(peer.opened), sent(peer)) == (1, 500)
    assert again.is_good


def test_another_place_is_another_export(store: Store, peer: Peer) -> None:
    uid = taken_in(store)
    export_runs(store, [uid], "peer:here")

    report = export_runs(store, [uid], "peer:there")

    assert [run.outcome for run in report.runs] == ["created"]
    assert sent(peer) == 1000


def test_of_a_run_that_grew_only_the_rest_goes(store: Store, peer: Peer) -> None:
    uid = taken_in(store)
    export_runs(store, [uid], "peer:here")
    grown = [replace(one, values=np.append(one.values, 9.0), steps=np.append(one.steps, one.steps[-1] + 1),
                     times=np.append(one.times, one.times[-1] + 1)) for one in all_series()]  # fmt: skip
    store.take_in(info(), [*grown, *(event for event in odd_events() if not isinstance(event, Points))])

    report = export_runs(store, [uid], "peer:here", verify=True)

    assert [(run.outcome, run.points, run.sent) for run in report.runs] == [("updated", 505, 5)]
    assert peer.opened == [{}, {"run": uid}]
    assert report.is_good


def test_a_changed_tag_alone_is_told(store: Store, peer: Peer) -> None:
    uid = taken_in(store)
    export_runs(store, [uid], "peer:here")
    store.take_in(info(tags=("other",)), odd_events())

    report = export_runs(store, [uid], "peer:here", verify=True)

    assert [(run.outcome, run.sent) for run in report.runs] == [("updated", 0)]
    assert peer.runs[uid]["info"].tags == ("other",)


@pytest.mark.usefixtures("peer")
def test_a_series_that_changed_goes_whole_again(store: Store) -> None:
    uid = taken_in(store)
    export_runs(store, [uid], "peer:here")
    changed = [replace(one, values=one.values + 1) if one.name == "far" else one for one in all_series()]
    store.take_in(info(), [*changed, *(event for event in odd_events() if not isinstance(event, Points))])

    report = export_runs(store, [uid], "peer:here", verify=True)

    assert [(run.outcome, run.sent) for run in report.runs] == [("updated", 100)]
    assert report.is_good


def test_a_peer_that_doubles_gets_a_new_run_where_values_changed(
    store: Store, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "limits", Limits(batch=64, repeatable=False))
    uid = taken_in(store)
    export_runs(store, [uid], "peer:here")
    store.take_in(info(), [replace(one, values=one.values + 1) for one in all_series()])

    report = export_runs(store, [uid], "peer:here")

    assert [(run.outcome, run.sent) for run in report.runs] == [("created", 500)]
    assert peer.opened == [{}, {}]
    assert "the target cannot replace values" in report.runs[0].notes[0]


def test_what_was_interrupted_goes_on(store: Store, peer: Peer) -> None:
    uid = taken_in(store)
    peer.failures[:] = [None, None, None, KeyboardInterrupt()]  # type: ignore[list-item]

    with pytest.raises(KeyboardInterrupt):
        export_runs(store, [uid], "peer:here")
    before = sent(peer)
    report = export_runs(store, [uid], "peer:here", verify=True)

    assert 0 < before < 500
    assert [(run.outcome, run.sent) for run in report.runs] == [("updated", 500 - before)]
    assert peer.opened == [{}, {"run": uid}]
    assert report.is_good


def exporting(store: Store, where: str = "peer:here") -> Exporting:
    """Return an export that does not wait."""
    return Exporting(store, address(where, writing=True), calls=Calls(first_s=0.0))


def test_what_is_throttled_or_away_for_a_moment_is_tried_again(store: Store, peer: Peer) -> None:
    uid = taken_in(store)
    peer.failures[:] = [Throttled("Slowly.", 0.0), None, Unreachable("Away."), Unreachable("Away.")]
    export = exporting(store)
    export.plan([uid])

    report = carried_out(export, [uid], verify=True)

    assert (report.is_good, sent(peer)) == (True, 500)


def test_a_peer_that_stays_away_ends_the_export_and_the_next_goes_on(store: Store, peer: Peer) -> None:
    uids = [taken_in(store, 0), taken_in(store, 1)]
    peer.failures[:] = [None, *[Unreachable("Nobody answers at https://host/.")] * 5]
    export = exporting(store)
    export.plan(uids)

    stopped = carried_out(export, uids)
    resumed = export_runs(store, uids, "peer:here", verify=True)

    assert (stopped.stopped, [run.outcome for run in stopped.runs]) == ("Nobody answers at https://host/.", ["failed"])
    assert [run.outcome for run in resumed.runs] == ["updated", "created"]
    assert sent(peer) == 1000
    assert resumed.is_good


def test_a_peer_that_refuses_ends_the_export(store: Store, peer: Peer) -> None:
    uid = taken_in(store)
    peer.failures[:] = [Refused("The key is not valid.")]

    report = export_runs(store, [uid], "peer:here")

    assert (report.stopped, report.is_good) == ("The key is not valid.", False)


def test_a_batch_that_is_rejected_is_counted_and_found_missing(store: Store, peer: Peer) -> None:
    uid = taken_in(store)
    peer.failures[:] = [None, Rejected("Too odd.")]

    report = export_runs(store, [uid], "peer:here", verify=True)

    assert report.runs[0].notes == ("60 events were rejected: Too odd.",)
    assert {one.what for one in report.runs[0].errors} == {"series"}
    assert not report.is_good


def test_a_loss_that_the_limits_name_is_explained_and_any_other_is_an_error(
    store: Store, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = taken_in(store)
    keep = peer.write

    def spoiled(self: PeerBackend, events: list[object]) -> None:
        keep(self, [self.dented(event) for event in events])

    def dented(_: PeerBackend, event: object) -> object:
        if not isinstance(event, Points):
            return event
        values = np.where(np.isinf(event.values), np.copysign(1e308, event.values), event.values)
        return replace(event, values=np.where(values == 0.5, 0.25, values) if event.name == "far" else values)

    monkeypatch.setattr(peer, "dented", dented, raising=False)
    monkeypatch.setattr(peer, "write", spoiled)

    report = export_runs(store, [uid], "peer:here", verify=True)

    explained = [one for one in report.runs[0].differences if not one.is_error]
    assert {(one.name, one.rank) for one in explained} == {(one.name, one.rank) for one in all_series()}
    assert {one.reason for one in explained} == {"±Inf: stored as 1e308"}
    assert [(one.name, one.here, one.there) for one in report.runs[0].errors] == [
        ("far", "1 values, 0.5", "0.25 at step 1099511627776")
    ]
    assert [(loss.what, loss.count) for loss in report.losses] == [("±Inf", 10)]
    assert not report.is_good


def test_what_has_no_place_there_comes_back_from_an_artifact(
    store: Store, other: Store, peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peer, "kinds", frozenset(KINDS) - {TEXT, HISTOGRAM, MEDIA, SPAN})
    events = [*odd_events(0, tmp_path), histogram(), picture()]
    uid = store.take_in(info(), events).uid

    report = export_runs(store, [uid], "peer:here", verify=True)
    lines = [
        json.loads(line)
        for event in peer.runs[uid]["events"]
        if isinstance(event, File) and event.name == "tracer"
        for line in Path(event.parts[0].local).read_text().splitlines()
    ]
    back = import_runs(other, PeerSource(""))

    assert {line["event"] for line in lines} == {
        "Text",
        "Media",
    }  # a histogram that was taken in is kept as one to look at
    assert [(loss.what, loss.count) for loss in report.losses][1:] == [("text", 2), ("media", 2)]
    assert all("tracer/leftover.jsonl" in loss.reason for loss in report.losses[1:])
    assert report.is_good
    found = back.runs[0].uid
    assert other.digests(found) == store.digests(uid)
    assert other.texts(found, "phase") == store.texts(uid, "phase")
    assert sorted(row.name for row in other.media(found)) == sorted(row.name for row in store.media(uid))
    assert [row.name for row in other.artifacts(found)] == ["model"]


def test_a_rehearsal_sends_nothing(store: Store, peer: Peer) -> None:
    uid = taken_in(store)

    report = export_runs(store, [uid], "peer:here", dry_run=True)

    assert [(run.outcome, run.points) for run in report.runs] == [("planned", 500)]
    assert [(loss.what, loss.count) for loss in report.losses] == [("±Inf", 10)]
    assert peer.runs == {}


def test_no_secret_is_written_down(store: Store, peer: Peer, tmp_path: Path) -> None:
    uid = taken_in(store)

    report = export_runs(store, [uid], "peer:https://me:geheim@host/?api_key=k123", options={"token": "t456"})

    assert report.place == "peer:https://host/?api_key=…"
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written for secret in (b"geheim", b"k123", b"t456") if secret in path.read_bytes()]
    assert export_runs(store, [uid], "peer:https://other@host/?api_key=new").runs[0].outcome == "unchanged"
    assert len(peer.opened) == 1


def test_a_damaged_ledger_sends_the_run_again(store: Store, peer: Peer) -> None:
    uid = taken_in(store)
    export_runs(store, [uid], "peer:here")
    for path in Path(store.run_folder(store.run(uid)), "moves").iterdir():
        path.write_text("{")

    report = export_runs(store, [uid], "peer:here")

    assert [run.outcome for run in report.runs] == ["created"]
    assert FILE in peer.kinds
