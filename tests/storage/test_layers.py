"""Statistics of layers: one layer, all of them in buckets, histograms; in journal, files and merged files alike."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from journal_builder import JournalBuilder, make_run, make_store

from tracer.errors import SchemaTooNew, StoreError
from tracer.storage import Store, duck, fold, layer_merge, layer_parts, segments

NAMES = [f"layer.{number}" for number in range(6)]
FULL = ["norm", "mean", "nans"]


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


@pytest.fixture
def overviews(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every part have its share of the overview, and a merge make many files."""
    monkeypatch.setattr(layer_parts, "EXACT_VALUES", 0)
    monkeypatch.setattr(layer_merge, "_VALUES", 150)


def matrix_at(step: int, names: Sequence[str] = NAMES, statistics: Sequence[str] = FULL) -> np.ndarray:
    """Return what is recorded at a step: the norm is the step, and a hundredth more for each layer."""
    table = np.zeros((len(statistics), len(names)), np.float32)
    table[0] = step + np.arange(len(names)) / 100
    return table


def record(
    folder: Path,
    steps: Sequence[int],
    names: Sequence[str] = NAMES,
    statistics: Sequence[str] = FULL,
    *,
    change: Callable[[int, np.ndarray], None] | None = None,
    rank: int = 0,
) -> None:
    """Write a closed segment of layer values."""
    builder = JournalBuilder(folder, rank=rank)
    for step in steps:
        table = matrix_at(step, names, statistics)
        if change is not None:
            change(step, table)
        builder.layers("gradients", names, statistics, table, step, 1.7e9 + step)
    builder.write(closed=True)


def states(store: Store) -> Iterator[str]:
    """Yield the states a store goes through: journal, folded, merged, merged files alone, catalog made anew."""
    yield "journal"
    store.fold()
    yield "folded"
    store.compact()
    yield "merged"
    store.compact(grace_s=0)
    yield "swept"
    assert store.rebuild().problems == ()
    yield "rebuilt"
    assert store.check().problems == ()


@pytest.mark.usefixtures("overviews")
def test_layers_and_heat_map_are_the_same_wherever_the_values_lie(base: Path) -> None:
    folder = make_run(base)
    with Store.open(base) as store:
        for start in range(0, 90, 30):
            record(folder, range(start, start + 30))
            if start < 60:
                store.fold()
        for state in states(store):
            found = store.layers("run-1", "norm")
            assert found.layers == tuple(NAMES), state
            assert found.steps.tolist() == list(range(90)), state
            np.testing.assert_array_equal(found.values, np.stack([matrix_at(step)[0] for step in range(90)]))
            assert found.times.tolist() == [(1_700_000_000 + step) * 1_000_000 for step in range(90)]
            heat = store.layer_overview("run-1", "norm", buckets=16)
            assert heat.layers == tuple(NAMES), state
            width = int(heat.last_step[0] - heat.first_step[0]) + 1
            assert heat.first_step.tolist() == list(range(0, 90, width)), state
            assert heat.last_step.tolist()[-1] == 89, state
            assert heat.n.sum() == 90 * 6, state
            assert not heat.bad.any()
            np.testing.assert_allclose(heat.min[2], np.float32(heat.first_step + 0.02))
            np.testing.assert_allclose(heat.max[2], np.float32(heat.last_step + 0.02))
            np.testing.assert_allclose(heat.mean[2], (heat.first_step + heat.last_step) / 2 + 0.02, rtol=1e-6)


@pytest.mark.usefixtures("overviews")
def test_a_heat_map_opens_no_file(base: Path) -> None:
    folder = make_run(base)
    record(folder, range(200))
    with Store.open(base) as store:
        store.fold()
        before = duck.opened
        assert store.layer_overview("run-1", "norm").n.sum() == 1200
        assert store.layer_overview("run-1", "norm", start=10**6).n.size == 0
        assert duck.opened == before
        assert store.layer_overview("run-1", "norm", start=90, stop=110).first_step.tolist() == list(range(90, 110))


@pytest.mark.usefixtures("overviews")
def test_one_layer_of_a_merged_run_lies_in_one_file_beside_the_times(base: Path) -> None:
    folder = make_run(base)
    with Store.open(base) as store:
        for start in range(0, 100, 10):
            record(folder, range(start, start + 10))
            store.fold()
        before = duck.opened
        store.layers("run-1", "norm", layers=["layer.3"])
        assert duck.opened - before == 20
        store.compact(grace_s=0)
        before = duck.opened
        found = store.layers("run-1", "norm", layers=["layer.3"])
        assert duck.opened - before == 2
        assert found.values[:, 0].tolist() == [pytest.approx(step + 0.03) for step in range(100)]
        assert store.compact(grace_s=0) == 0


def test_norms_of_most_steps_and_all_statistics_of_some_are_one_axis(base: Path) -> None:
    folder = make_run(base)
    builder = JournalBuilder(folder)
    for step in range(20):
        statistics = FULL if step % 5 == 0 else ["norm"]
        builder.layers("gradients", NAMES, statistics, matrix_at(step, NAMES, statistics), step, 1.7e9 + step)
    builder.write(closed=True)

    with Store.open(base) as store:
        for state in states(store):
            assert store.layers("run-1", "norm").steps.tolist() == list(range(20)), state
            assert store.layers("run-1", "mean").steps.tolist() == [0, 5, 10, 15], state
            assert store.layer_overview("run-1", "norm").n.sum() == 120, state
            (axis,) = store.layer_axes("run-1")
            assert (axis.axis, axis.statistics, axis.layers) == ("gradients", tuple(FULL), tuple(NAMES)), state


@pytest.mark.parametrize("together", [True, False])
def test_of_equal_steps_the_last_wins_in_matrix_and_heat_map(base: Path, *, together: bool) -> None:
    builder = JournalBuilder(make_run(base))
    with Store.open(base) as store:
        for step in range(20):
            builder.layers("gradients", NAMES, FULL, matrix_at(step), step)
        if not together:
            builder.next_segment()
            store.fold()
        for step in range(10, 15):
            builder.layers("gradients", NAMES, FULL, matrix_at(step) + 1000, step)
        for step in (12, 13):
            builder.layers("gradients", ["layer.1"], ["norm"], matrix_at(step, ["layer.1"], ["norm"]), step)
        builder.write(closed=True)
        expected = [step + 0.01 + (1000 if step in (10, 11, 14) else 0) for step in range(20)]
        expected[12], expected[13] = 12.0, 13.0
        for state in states(store):
            values = store.layers("run-1", "norm", layers=["layer.1"]).values[:, 0]
            assert values.tolist() == pytest.approx(expected), state
            heat = store.layer_overview("run-1", "norm")
            assert heat.n.sum() == 120, state
            np.testing.assert_allclose(heat.max[1], np.float32(expected))


def test_values_that_are_not_finite_are_counted_and_gaps_are_none(base: Path) -> None:
    folder = make_run(base)

    def spoil(step: int, table: np.ndarray) -> None:
        if step == 3:
            table[0, 1], table[2, 1] = np.nan, 7
        if step == 4:
            table[0, 2] = -np.inf
        table[:, 5] = np.nan  # a frozen layer: its counts too are nothing

    record(folder, range(8), change=spoil)
    with Store.open(base) as store:
        for state in states(store):
            heat = store.layer_overview("run-1", "norm", buckets=4)
            assert heat.first_step.tolist() == [0, 2, 4, 6], state
            assert heat.bad.tolist() == [[0] * 4, [0, 1, 0, 0], [0, 0, 1, 0], [0] * 4, [0] * 4, [0] * 4], state
            assert heat.n.tolist() == [*[[2] * 4] * 5, [0] * 4], state
            assert heat.min[1].tolist() == pytest.approx([0.01, 2.01, 4.01, 6.01]), state
            assert np.isnan(heat.mean[5]).all(), state
            values = store.layers("run-1", "norm").values
            assert np.isnan(values[3, 1]), state
            assert values[4, 2] == -np.inf, state
            assert np.isnan(values[:, 5]).all(), state


def test_layers_that_join_later_have_no_values_before(base: Path) -> None:
    folder = make_run(base)
    with Store.open(base) as store:
        record(folder, range(5), ["b", "a"])
        record(folder, range(5, 10), ["b", "a", "new.c"])
        for state in states(store):
            assert store.layer_names("run-1") == ["b", "a", "new.c"], state
            heat = store.layer_overview("run-1", "norm")
            assert heat.layers == ("b", "a", "new.c"), state
            assert heat.n.tolist() == [[1] * 10, [1] * 10, [0] * 5 + [1] * 5], state
            values = store.layers("run-1", "norm", layers=["new.c", "b"], start=4, stop=7).values
            np.testing.assert_allclose(values, [[np.nan, 4], [5.02, 5], [6.02, 6]], rtol=1e-6)


def test_ranks_are_kept_apart(base: Path) -> None:
    folder = make_run(base)
    for rank in (0, 1):
        record(folder, range(rank, 6), rank=rank)
    with Store.open(base) as store:
        for state in states(store):
            for rank in (0, 1):
                assert store.layers("run-1", "norm", rank=rank).steps.tolist() == list(range(rank, 6)), state
                assert store.layer_overview("run-1", "norm", rank=rank).n.sum() == 6 * (6 - rank), state


@pytest.mark.usefixtures("overviews")
def test_random_runs_are_read_as_they_were_recorded(base: Path) -> None:
    random = np.random.default_rng(7)
    folder = make_run(base)
    expected: dict[tuple[str, int], float] = {}
    with Store.open(base) as store:
        for _ in range(25):
            names = [str(name) for name in random.permutation(NAMES)[: random.integers(1, 6)]]
            statistics = [FULL, ["norm"]][random.integers(2)]
            builder = JournalBuilder(folder)
            for step in random.integers(-40, 60, random.integers(1, 8)).tolist():
                table = random.standard_normal((len(statistics), len(names))).astype(np.float32)
                builder.layers("gradients", names, statistics, table, step)
                expected |= {(name, step): float(value) for name, value in zip(names, table[0], strict=True)}
            builder.write(closed=True)
            store.fold()
            if random.random() < 0.3:
                store.compact(grace_s=0)
            found = store.layers("run-1", "norm")
            read = {
                (name, step): float(found.values[row, column])
                for row, step in enumerate(found.steps.tolist())
                for column, name in enumerate(found.layers)
                if not np.isnan(found.values[row, column])
            }
            assert read == expected
            heat = store.layer_overview("run-1", "norm", buckets=8)
            assert heat.n.sum() == len(expected)
            for row, name in enumerate(heat.layers):
                ours = {step: value for (of, step), value in expected.items() if of == name}
                for column, (first, last) in enumerate(zip(heat.first_step, heat.last_step, strict=True)):
                    inside = [value for step, value in ours.items() if first <= step <= last]
                    assert heat.n[row, column] == len(inside)
                    if inside:
                        assert heat.max[row, column] == np.float32(max(inside))
                        assert heat.mean[row, column] == pytest.approx(np.mean(inside), rel=1e-5, abs=1e-6)


def test_a_segment_with_more_than_a_batch_becomes_several_files(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fold, "BATCH_POINTS", 100)
    monkeypatch.setattr(fold.gather, "__defaults__", (100,))
    record(make_run(base), range(50))
    with Store.open(base) as store:
        store.fold()
        assert store.catalog.value("SELECT count(*) FROM segment WHERE family = 'layers'") == 9
        assert store.layers("run-1", "norm").steps.tolist() == list(range(50))
        assert store.check().problems == ()


@pytest.mark.usefixtures("overviews")
def test_a_merge_that_was_not_finished_is_made_again(base: Path) -> None:
    folder = make_run(base)
    with Store.open(base) as store:
        for start in range(0, 40, 20):
            record(folder, range(start, start + 20))
            store.fold()
        store.compact()  # what was merged stays for a while
        merged = [path for (path,) in store.catalog.rows("SELECT path FROM segment WHERE level = 1")]
        assert len(merged) > 2
    (base / merged[1]).unlink()
    (base / "tracer.db").unlink()

    with Store.open(base) as store:
        assert store.rebuild().problems == ()
        assert store.layers("run-1", "norm").values.shape == (40, 6)
        assert not (base / merged[0]).exists()
        assert store.check().problems == ()


@pytest.mark.usefixtures("overviews")
def test_a_damaged_file_of_a_merge_takes_its_own_layers_only(base: Path) -> None:
    folder = make_run(base)
    with Store.open(base) as store:
        for start in range(0, 40, 20):
            record(folder, range(start, start + 20))
            store.fold()
        store.compact(grace_s=0)
        path = store.catalog.value(
            "SELECT s.path FROM segment s JOIN layer_part p ON p.segment = s.id "
            "WHERE p.stat = 'norm' AND p.low <= 'layer.3' AND p.high >= 'layer.3'"
        )
    data = bytearray((base / path).read_bytes())
    data[60:160] = bytes(100)
    (base / path).write_bytes(data)

    with Store.open(base) as store:
        with pytest.raises(StoreError, match="damaged"):
            store.layers("run-1", "norm", layers=["layer.3"])
        assert not store.check().is_clean
        assert store.check(repair=True).is_clean
        found = store.layers("run-1", "norm")
        kept = [column for column, name in enumerate(found.layers) if not np.isnan(found.values[:, column]).any()]
        assert 0 < len(kept) < 6
        assert len(store.layers("run-1", "mean").steps) == 40
        assert store.rebuild().problems == ()
        np.testing.assert_array_equal(store.layers("run-1", "norm").values, found.values)


def test_deleting_a_run_leaves_nothing_of_its_layers_in_the_catalog(base: Path) -> None:
    record(make_run(base), range(5))
    with Store.open(base) as store:
        store.fold()
        assert store.catalog.value("SELECT count(*) FROM layer_part") > 0
        store.delete("run-1", now=True)
        assert store.catalog.value("SELECT count(*) FROM layer_part") == 0
        assert store.catalog.value("SELECT count(*) FROM axis") == 0


def test_files_of_the_old_form_are_set_aside_and_those_of_a_newer_one_refused(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(base)
    record(folder, range(5))
    monkeypatch.setattr(segments, "FORMAT", 1)
    with Store.open(base) as store:
        store.fold()
    monkeypatch.undo()
    (file,) = (folder / "layers").glob("*.parquet")

    with Store.open(base) as store:
        (problem,) = store.rebuild().problems
        assert "its layer values have format 1" in problem
        assert (folder / "journal" / "lost" / file.name).exists()
        assert store.layers("run-1", "norm").values.shape == (0, 0)

    record(folder, range(5))
    monkeypatch.setattr(segments, "FORMAT", 3)
    with Store.open(base) as store:
        store.fold()
    monkeypatch.undo()
    with Store.open(base) as store, pytest.raises(SchemaTooNew, match="has format 3; this Tracer reads up to 2"):
        store.rebuild()


def test_an_older_catalog_is_brought_up_and_its_layers_registered_anew(base: Path) -> None:
    folder = make_run(base)
    record(folder, range(5))
    with Store.open(base) as store:
        store.fold()
    connection = sqlite3.connect(base / "tracer.db")
    connection.executescript(
        "DROP TABLE layer_part; DROP TABLE axis; CREATE TABLE layer_stat(run INTEGER);"
        "CREATE TABLE axis(run INTEGER, digest TEXT, names TEXT); PRAGMA user_version = 1;"
    )
    connection.close()

    with Store.open(base) as store:
        assert store.layers("run-1", "norm").values.shape == (5, 6)
        assert store.check().problems == ()
    assert (base / "tracer.db.before-2").exists()


def test_layers_have_names_in_sql(base: Path) -> None:
    record(make_run(base), range(3))
    with Store.open(base) as store:
        table = store.sql("SELECT layer, step, value FROM layers WHERE stat = 'norm' AND step = 2 ORDER BY layer")
        assert table.rows == tuple((name, 2, pytest.approx(2 + at / 100)) for at, name in enumerate(NAMES))
        assert store.sql("SELECT count(*) FROM points").rows == ((0,),)


def test_a_run_that_was_copied_without_its_catalog_brings_its_layers(base: Path, tmp_path: Path) -> None:
    folder = make_run(base)
    record(folder, range(5))
    with Store.open(base) as store:
        store.fold()
    other = make_store(tmp_path / "other")
    shutil.copytree(folder, other / "runs" / folder.name)

    with Store.open(other) as store:
        assert store.layers("run-1", "norm").values.shape == (5, 6)
        assert store.layer_overview("run-1", "norm").n.sum() == 30


def counts_at(step: int) -> np.ndarray:
    """Return histograms of two layers at a step: signs by layers by bins."""
    table = np.zeros((2, 2, 4), np.int64)
    table[0, 0, 1], table[1, 0, 2], table[1, 1, 0] = step + 1, 5, 9
    return table


def test_histograms_are_exact_wherever_they_lie_and_the_last_wins(base: Path) -> None:
    builder = JournalBuilder(make_run(base))
    with Store.open(base) as store:
        for start in (0, 4, 2):
            for step in range(start, start + 4, 2):
                table = counts_at(step) * (10 if start == 2 else 1)
                builder.histograms("weights", ["b", "a"], -8, table, step, 1.7e9 + step)
            if start == 0:
                builder.next_segment()
                store.fold()
        builder.write(closed=True)
        for state in states(store):
            found = store.histograms("run-1", "b", axis="weights")
            assert (found.layer, found.axis, found.lowest) == ("b", "weights", -7), state
            assert found.steps.tolist() == [0, 2, 4, 6], state
            assert found.times.tolist() == [(1_700_000_000 + step) * 1_000_000 for step in (0, 2, 4, 6)]
            assert found.negative.tolist() == [[1, 0], [30, 0], [50, 0], [7, 0]], state
            assert found.positive.tolist() == [[0, 5], [0, 50], [0, 50], [0, 5]], state
            some = store.histograms("run-1", "a", axis="weights", start=2, stop=5)
            assert (some.steps.tolist(), some.lowest, some.positive.tolist()) == ([2, 4], -8, [[90], [90]]), state
            assert len(store.histograms("run-1", "nowhere").steps) == 0
            assert [(one.axis, one.statistics) for one in store.layer_axes("run-1")] == [("weights", ())], state
        rows = store.sql("SELECT exponent, positive FROM histograms WHERE layer = 'a' AND step = 6").rows
        assert rows == ((-8, 9),)


def test_a_histogram_without_values_is_known_to_have_been_taken(base: Path) -> None:
    builder = JournalBuilder(make_run(base))
    builder.histograms("gradients", ["a"], -4, np.zeros((2, 1, 3)), 5)
    builder.write(closed=True)
    with Store.open(base) as store:
        for state in states(store):
            found = store.histograms("run-1", "a")
            assert (found.steps.tolist(), found.positive.shape) == ([5], (1, 0)), state
