"""A run as a stream: everything it holds, kind by kind, whether it is folded or not."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from journal_builder import JournalBuilder, make_run, make_store
from keepers import begin

import tracer
from tracer import journal, transfer
from tracer.storage import Store, outgoing
from tracer.transfer import Event, Histogram, LayerPoints, Points


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


def everything(folder: Path) -> JournalBuilder:
    """A run that holds something of each kind."""
    builder = JournalBuilder(folder, rank=1)
    for step in range(30):
        builder.row({"loss": step / 7}, 30 - step)
    builder.row({"loss": -1.0}, 30)
    builder.record(journal.Kind.TYPED, {"values": {"phase": "warm"}}, 1)
    builder.record(journal.Kind.LOG, {"kind": "line", "body": "out", "name": "stdout"}, 4)
    builder.record(journal.Kind.MEDIA, {"name": "note", "kind": "text", "text": "short"}, 6)
    counts = np.zeros((2, 1, 3), int)
    counts[0, 0], counts[1, 0] = [1, 0, 0], [0, 2, 3]
    builder.histograms("gradients", ["fc.weight"], -2, counts, 9)
    builder.layers("gradients", ["fc.weight"], ["norm", "nans"], np.array([[math.nan], [3.0]]), 8)
    builder.write(closed=True)
    return builder


def shown(events: list[Event]) -> list[str]:
    """Events as text."""
    found = []
    for event in events:
        if isinstance(event, Points):
            found.append(f"{event.KIND} {event.name} {event.rank} {event.steps.tolist()} {event.values.tolist()}")
        else:
            found.append(repr(event))
    return found


def test_the_stream_is_the_same_before_a_fold_and_after(base: Path) -> None:
    folder = make_run(base, world_size=2)
    everything(folder)
    with Store.open(base) as store:
        before = shown(list(store.outgoing("run-1", transfer.KINDS)))
        digests = store.digests("run-1")
        store.fold()

        assert shown(list(store.outgoing("run-1", transfer.KINDS))) == before
        assert store.digests("run-1") == digests
        assert [one.KIND for one in store.outgoing("run-1", transfer.KINDS)] == [
            "points", "text", "log", "media", "histogram", "layer", "layer",
        ]  # fmt: skip


def test_a_series_is_sorted_with_one_value_per_step_and_comes_in_chunks(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything(make_run(base))
    monkeypatch.setattr(outgoing, "CHUNK", 12)
    with Store.open(base) as store:
        found = [one for one in store.outgoing("run-1") if isinstance(one, Points)]

        assert [len(one) for one in found] == [12, 12, 6]
        assert [step for one in found for step in one.steps.tolist()] == list(range(1, 31))
        assert found[-1].values[-1] == -1.0
        assert store.digests("run-1") == {("loss", 1): (30, transfer.digest(found))}


def test_layers_come_only_when_they_are_asked_for(base: Path) -> None:
    everything(make_run(base, world_size=2))
    with Store.open(base) as store:
        usual = list(store.outgoing("run-1"))
        layers = [one for one in store.outgoing("run-1", {"layer"}) if isinstance(one, LayerPoints)]

    assert not any(isinstance(one, LayerPoints) for one in usual)
    assert {one.name: one.values.tolist() for one in layers if not np.isnan(one.values).any()} == {
        "gradients/fc.weight/nans": [3.0]
    }
    assert {one.name for one in layers} == {"gradients/fc.weight/nans", "gradients/fc.weight/norm"}
    assert [one.counts for one in usual if isinstance(one, Histogram)] == [(0, 0, 1, 0, 0, 2, 3)]


def test_a_run_that_was_rewound_gives_what_is_kept(base: Path) -> None:
    folder = make_run(base)
    builder = JournalBuilder(folder)
    for step in range(10):
        builder.row({"loss": float(step)}, step)
    builder.record(journal.Kind.TOMBSTONE, {"step": 5, "pattern": "*"})
    builder.row({"loss": 50.0}, 5)
    builder.write(closed=True)
    with Store.open(base) as store:
        for _ in range(2):
            (series,) = (one for one in store.outgoing("run-1") if isinstance(one, Points))
            assert series.values.tolist() == [0, 1, 2, 3, 4, 50]
            assert store.digests("run-1")["loss", 0] == (6, transfer.digest([series]))
            store.fold()


def test_artifacts_come_with_their_files_made_and_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = begin("first")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.txt").write_text("a")
    (tmp_path / "d" / "b.txt").write_text("b")
    first.log_artifact("d", name="data", metadata={"k": 1}, aliases=["gold"])
    tracer.finish()
    second = begin("second")
    second.use_artifact("data:gold")
    tracer.finish()

    (made,) = outgoing.files(first.folder, ".tracer")
    (used,) = outgoing.files(second.folder, ".tracer")

    assert (made.name, made.version, made.aliases, dict(made.metadata)) == ("data", "v0", ("gold",), {"k": 1})
    assert {part.path: Path(part.local).read_text() for part in made.parts} == {"a.txt": "a", "b.txt": "b"}
    assert {part.path: Path(part.local).read_text() for part in used.parts} == {"a.txt": "a", "b.txt": "b"}
    assert used.metadata == {outgoing.USED: True}


def test_what_is_known_of_a_run_is_what_the_store_says(base: Path) -> None:
    make_run(base, status="running", pid=2**22 + 1, tags=["a"], config={"lr": 0.1}, summary={"best": 1})
    with Store.open(base) as store:
        info = store.info("run-1")

    assert (info.uid, info.project, info.status, info.tags) == ("run-1", "demo", "crashed", ("a",))
    assert (dict(info.params), dict(info.summary), info.origin) == ({"lr": 0.1}, {"best": 1}, "")
