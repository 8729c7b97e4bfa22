"""Runs come into the store once, whatever happens on the way, and a comparison finds what is not the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from moving import ListSource, all_series, info, odd_events

from tracer import runfile
from tracer.backends.base import Rejected, Unreachable
from tracer.migration import import_runs
from tracer.migration.importing import importing_of, taken_in
from tracer.storage import Store
from tracer.transfer import Points, digest


def source(folder: Path | None = None, count: int = 2) -> ListSource:
    """Return a source with odd runs."""
    return ListSource({f"list:{at}": (info(at), list(odd_events(at, folder))) for at in range(count)})


def test_every_value_arrives_as_it_was(store: Store, tmp_path: Path) -> None:
    report = import_runs(store, source(tmp_path), verify=True)

    assert [(run.outcome, run.points, run.series, run.artifacts) for run in report.runs] == [("created", 500, 5, 1)] * 2
    assert [run.differences for run in report.runs] == [(), ()]
    assert report.is_good
    for number, run in enumerate(report.runs):
        assert {key: told for key, (_, told) in store.digests(run.uid).items()} == {
            (one.name, one.rank): digest([one]) for one in all_series(number)
        }


def test_twice_is_once(store: Store) -> None:
    first = import_runs(store, source())
    again = import_runs(store, source())

    assert [run.uid for run in again.runs] == [run.uid for run in first.runs]
    assert [run.outcome for run in again.runs] == ["unchanged"] * 2
    assert again.sent == 0
    assert len(store.runs()) == 2


def test_a_run_that_grew_is_updated(store: Store) -> None:
    import_runs(store, source(count=1))
    grown = ListSource({"list:0": (info(0), list(odd_events(0, count=150)))})

    report = import_runs(store, grown, verify=True)

    assert [(run.outcome, run.points) for run in report.runs] == [("updated", 750)]
    assert report.is_good
    assert [run.points for run in store.runs()] == [750]


def test_only_what_a_pattern_means_comes_into_the_project_that_was_said(store: Store) -> None:
    report = import_runs(store, source(), pattern="vision/run 1*", project="mine")

    assert [(run.name, run.project) for run in report.runs] == [(info(1).name, "mine")]
    assert [run.project for run in store.runs()] == ["mine"]


def test_a_rehearsal_writes_nothing(store: Store) -> None:
    report = import_runs(store, source(), dry_run=True)

    assert [run.outcome for run in report.runs] == ["planned"] * 2
    assert store.runs() == []


def test_a_run_that_cannot_be_read_stops_no_other(store: Store) -> None:
    broken = source()
    broken.of["list:0"] = (info(0), [all_series()[0], Rejected("The file is damaged.")])

    report = import_runs(store, broken)

    assert [(run.outcome, run.notes) for run in report.runs] == [("failed", ("The file is damaged.",)), ("created", ())]
    assert not report.is_good
    assert len(store.runs()) == 1


def test_a_source_that_is_away_ends_the_import_and_the_next_goes_on(store: Store) -> None:
    away = source(count=3)
    away.of["list:1"] = (info(1), [all_series()[0], Unreachable("The server does not answer.")])

    stopped = import_runs(store, away)
    back = source(count=3)
    resumed = import_runs(store, back)
    again = import_runs(store, after := source(count=3))

    assert (stopped.stopped, len(stopped.runs)) == ("The server does not answer.", 2)
    assert [run.outcome for run in resumed.runs] == ["unchanged", "created", "created"]
    assert back.read == ["list:1", "list:2"]  # the first was done before
    assert after.read == ["list:0", "list:1", "list:2"]  # a whole import looks at all again
    assert again.is_good


def test_what_was_compared_before_an_interruption_is_not_read_again(store: Store) -> None:
    away = source(count=2)
    away.of["list:1"] = (info(1), [Unreachable("The server does not answer.")])

    import_runs(store, away, verify=True)
    resumed = import_runs(store, back := source(count=2), verify=True)

    assert back.read == ["list:1"]
    assert [(run.verified, run.compared) for run in resumed.runs] == [(True, 5)] * 2


def test_what_was_not_compared_before_an_interruption_is_read_again_for_it(store: Store) -> None:
    away = source(count=2)
    away.of["list:1"] = (info(1), [Unreachable("The server does not answer.")])

    import_runs(store, away)
    resumed = import_runs(store, back := source(count=2), verify=True)

    assert back.read == ["list:0", "list:1"]
    assert [run.verified for run in resumed.runs] == [True] * 2


def test_a_difference_is_an_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Store.digests
    monkeypatch.setattr(Store, "digests", lambda self, uid: held(self, uid) | {("loss", 0): (3, "0" * 64)})

    report = import_runs(store, source(count=1), verify=True)

    assert [(one.name, one.rank, one.here, one.there, one.is_error) for one in report.runs[0].differences] == [
        ("loss", 0, "100 values", "3 values", True)
    ]
    assert not report.is_good


def test_what_people_changed_here_stays_and_is_no_error(store: Store) -> None:
    import_runs(store, source(count=1))
    row = store.runs()[0]
    folder = store.run_folder(row)
    runfile.replace(folder, runfile.read(folder) | {"notes": "Mine."})

    report = import_runs(store, source(count=1), verify=True)

    assert [(one.name, one.is_error) for one in report.runs[0].differences] == [("notes", False)]
    assert report.is_good


def test_a_series_in_pieces_is_put_together_for_the_comparison(store: Store) -> None:
    whole = all_series()[0]

    def cut(start: int, stop: int) -> Points:
        part = slice(start, stop)
        return replace(whole, steps=whole.steps[part], times=whole.times[part], values=whole.values[part])

    other = Points("other", np.arange(3), np.arange(3), np.arange(3.0))
    pieces = ListSource({"list:0": (info(0), [cut(0, 30), other, cut(30, 60), cut(60, 100)])})

    report = import_runs(store, pieces, verify=True)

    assert (report.is_good, report.runs[0].series, report.runs[0].points) == (True, 2, 103)


def test_values_that_came_again_are_said(store: Store) -> None:
    twice = Points("loss", np.array([1, 1, 2]), np.array([1, 2, 3]), np.array([1.0, 2.0, 3.0]))

    report = import_runs(store, ListSource({"list:0": (info(0), [twice])}), verify=True)

    assert report.runs[0].notes == ("1 values came again for a step; the last of each counts.",)
    assert report.is_good


def test_progress_is_told(store: Store) -> None:
    seen: list[tuple[int, int]] = []
    importing = importing_of(source())
    assert len(importing.runs) == 2

    taken_in(importing, store, progress=lambda done, total: seen.append((done, total)))

    assert seen == [(1, 2), (2, 2)]
