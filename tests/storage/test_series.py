"""Reading arrays: ranges, buckets, layers and texts, from files and journal alike."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import duckdb
import numpy as np
import pytest
from journal_builder import JournalBuilder, make_run, make_store
from pyarrow import parquet

from tracer import journal
from tracer.errors import RunNotFound
from tracer.storage import Store
from tracer.storage.compact import compact_run
from tracer.storage.snapshot import FileGone


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_store(tmp_path / "store")


def long_run(base: Path, count: int = 200_000) -> np.ndarray:
    """A run with one long series, partly folded and compacted, partly in the journal."""
    folder = make_run(base)
    values = np.cumsum(np.random.default_rng(5).standard_normal(count))
    edges = [0, count // 2, count * 8 // 10, count * 9 // 10, count]
    with Store.open(base) as store:
        for number, (begin, end) in enumerate(itertools.pairwise(edges)):
            builder = JournalBuilder(folder)
            steps = np.arange(begin, end)
            builder.rows(
                ["loss", "other"], steps, 1.7e9 + steps * 0.1, np.stack([values[begin:end], -values[begin:end]], 1)
            )
            builder.seal()
            builder.write(closed=True)
            if number < 3:
                store.fold()
            if number == 1:
                store.compact(grace_s=0)
    return values


def test_a_range_is_read_from_compacted_files_new_files_and_journal(base: Path) -> None:
    values = long_run(base)

    with Store.open(base) as store:
        for start, stop in (
            (None, None),
            (95_000, 105_000),
            (150_000, 190_000),
            (199_990, None),
            (None, 5),
            (500_000, None),
            (7, 7),
        ):
            series = store.series("run-1", "loss", start=start, stop=stop)
            wanted = np.arange(len(values))[slice(start, stop)]
            assert series.step.tolist() == wanted.tolist()
            assert series.value.tolist() == values[wanted].tolist()
            assert series.time.tolist() == np.rint((1.7e9 + wanted * 0.1) * 1e6).astype(np.int64).tolist()


@pytest.mark.parametrize(
    ("start", "stop", "count"),
    [(None, None, 100), (0, 200_000, 50), (1_000, 190_001, 97), (5_000, 5_100, 1000), (0, 200_000, 1)],
)
def test_buckets_of_a_range_hold_its_extremes(base: Path, start: int | None, stop: int | None, count: int) -> None:
    values = long_run(base)

    with Store.open(base) as store:
        buckets = store.buckets("run-1", "loss", start=start, stop=stop, count=count)

    inside = values[slice(start, stop)]
    assert 1 <= len(buckets) <= count
    # A rollup's rows reach at most one row beyond each end of the range.
    assert len(inside) <= buckets.n.sum() <= len(inside) + 2 * 1024
    assert buckets.min.min() <= inside.min() + 1e-6 * abs(inside.min())
    assert buckets.max.max() >= inside.max() - 1e-6 * abs(inside.max())
    assert (buckets.first_step[1:] > buckets.last_step[:-1]).all()


def test_an_overview_of_files_and_journal_counts_every_point(base: Path) -> None:
    values = long_run(base)

    with Store.open(base) as store:
        live = store.overview("run-1", "loss")
        store.fold()
        folded = store.overview("run-1", "loss")

    for buckets in (live, folded):
        assert (int(buckets.n.sum()), int(buckets.first_step[0]), int(buckets.last_step[-1])) == (
            len(values),
            0,
            len(values) - 1,
        )
        np.testing.assert_allclose([buckets.min.min(), buckets.max.max()], [values.min(), values.max()], rtol=1e-6)


def test_a_name_nobody_logged_is_an_empty_series(base: Path) -> None:
    make_run(base)
    with Store.open(base) as store:
        assert len(store.series("run-1", "nothing")) == len(store.overview("run-1", "nothing")) == 0
        assert store.texts("run-1", "nothing") == []
        with pytest.raises(RunNotFound, match="There is no run with the id 'nobody'"):
            store.series("nobody", "loss")


def test_ranks_are_kept_apart(base: Path) -> None:
    folder = make_run(base)
    for rank in range(3):
        builder = JournalBuilder(folder, rank=rank)
        builder.row({"loss": float(rank)}, 1)
        builder.write(closed=True)

    with Store.open(base) as store:
        for _ in range(2):
            assert [store.series("run-1", "loss", rank=rank).value.tolist() for rank in range(4)] == [
                [0.0],
                [1.0],
                [2.0],
                [],
            ]
            assert [(row.metric, row.rank) for row in store.metrics("run-1")] == [("loss", 0), ("loss", 1), ("loss", 2)]
            store.fold()


def test_layer_values_become_a_matrix_of_steps_by_layers(base: Path) -> None:
    folder = make_run(base)
    names, statistics = [f"layer.{number}" for number in range(5)], ["norm", "max"]
    matrices = {step: np.random.default_rng(step).standard_normal((2, 5)).astype(np.float32) for step in range(6)}
    matrices[3][0, 1] = np.nan
    with Store.open(base) as store:
        for step, matrix in matrices.items():
            builder = JournalBuilder(folder)
            builder.layers("gradients", names, statistics, matrix, step, 1.7e9 + step)
            builder.write(closed=True)
            if step < 4:
                store.fold()
        for _ in range(3):
            found = store.layers("run-1", "max")
            assert found.layers == tuple(names)
            assert found.steps.tolist() == list(range(6))
            assert found.times.tolist() == [(1_700_000_000 + step) * 1_000_000 for step in range(6)]
            np.testing.assert_array_equal(found.values, np.stack([matrix[1] for matrix in matrices.values()]))
            chosen = store.layers("run-1", "norm", layers=["layer.1", "nowhere", "layer.0"], start=2, stop=5)
            assert (chosen.layers, chosen.steps.tolist()) == (("layer.1", "layer.0"), [2, 3, 4])
            np.testing.assert_array_equal(chosen.values, np.stack([matrices[step][0][[1, 0]] for step in (2, 3, 4)]))
            assert store.layer_names("run-1") == names
            assert store.layers("run-1", "nothing").values.shape == (0, 5)
            assert store.layer_names("run-1", "activations") == []
            store.fold()
            store.compact(grace_s=0)
        assert store.check().problems == ()


def test_layers_of_a_model_that_changed_are_one_matrix(base: Path) -> None:
    builder = JournalBuilder(make_run(base))
    builder.layers("gradients", ["a", "b"], ["norm"], np.array([[1, 2]]), 1)
    builder.layers("gradients", ["b", "c"], ["norm"], np.array([[3, 4]]), 2)
    builder.layers("gradients", ["b", "c"], ["norm"], np.array([[5, 6]]), 2)
    builder.write(closed=True)

    with Store.open(base) as store:
        for _ in range(2):
            found = store.layers("run-1", "norm")
            order = [found.layers.index(name) for name in "abc"]
            np.testing.assert_array_equal(found.values[:, order], [[1, 2, np.nan], [np.nan, 5, 6]])
            store.fold()


def test_texts_are_kept_with_their_steps_and_the_last_wins(base: Path) -> None:
    folder = make_run(base)
    with Store.open(base) as store:
        for step, value in ((1, "a"), (3, None), (2, "ünï\x00"), (1, "b")):
            builder = JournalBuilder(folder)
            builder.record(journal.Kind.TYPED, {"values": {"phase": value, "big": 2**60 + step}}, step, 1.7e9 + step)
            builder.write(closed=True)
            if step == 3:
                store.fold()
        for _ in range(2):
            assert [(step, value) for step, _, value in store.texts("run-1", "phase")] == [
                (1, "b"),
                (2, "ünï\x00"),
                (3, None),
            ]
            assert store.texts("run-1", "big") == []
            assert store.series("run-1", "big").value.tolist() == [2.0**60] * 3
            rows = {row.metric: row for row in store.metrics("run-1")}
            assert (rows["phase"].is_text, rows["phase"].n, rows["phase"].last_step) == (True, 4, 3)
            assert not rows["big"].is_text
            store.fold()
        from tracer.storage.texts import texts

        exact = texts(store, "run-1", "big", exact_numbers=True)
        assert [value for _, _, value in exact] == [2**60 + 1, 2**60 + 2, 2**60 + 3]


def test_our_parquet_is_everyones(base: Path) -> None:
    values = long_run(base)
    with Store.open(base) as store:
        store.fold()
        with store.writing() as catalog:
            compact_run(store, catalog, "run-1")
        (path,) = [file for file in (base / "runs" / "run-1" / "points").iterdir() if _is_alive(store, file)]

    table = parquet.read_table(path)
    footer = parquet.read_metadata(path)
    assert table.column_names == ["metric", "rank", "step", "time", "value"]
    assert table.filter(table["metric"].to_numpy() == "loss")["value"].to_pylist() == values.tolist()
    assert footer.metadata[b"tracer.run"] == b'"run-1"'
    encodings = {
        footer.row_group(0).column(at).path_in_schema: footer.row_group(0).column(at).encodings for at in range(5)
    }
    assert "BYTE_STREAM_SPLIT" in encodings["value"]
    assert "DELTA_BINARY_PACKED" in encodings["step"]
    assert footer.row_group(0).column(0).compression == "ZSTD"


def test_a_point_takes_less_than_six_bytes(base: Path) -> None:
    chance = np.random.default_rng(3)
    steps = np.arange(100_000)
    values = np.stack(
        [
            (np.exp(-steps / 3e4) + 0.05 * chance.standard_normal(100_000)).astype(np.float32),
            (1 - np.exp(-steps / 3e4) + 0.02 * chance.standard_normal(100_000)).astype(np.float32),
            np.exp(chance.standard_normal(100_000)).astype(np.float32),
            5e-4 * (1 + np.cos(np.pi * steps / 100_000)),
            chance.standard_normal(100_000),
        ],
        axis=1,
    )
    builder = JournalBuilder(make_run(base))
    builder.rows(["a", "b", "c", "d", "e"], steps, 1.7e9 + steps * 0.05 + chance.uniform(0, 2e-3, 100_000), values)
    builder.write(closed=True)

    with Store.open(base) as store:
        store.fold()
    size = sum(path.stat().st_size for path in base.rglob("*.parquet"))

    assert size / values.size <= 5.8


def test_a_reader_with_an_old_list_takes_a_new_one(base: Path) -> None:
    values = long_run(base)
    with Store.open(base) as store, Store.open(base) as other:
        store.fold()
        taken = []

        def compact_meanwhile(snap: object, _: int) -> int:
            taken.append(snap)
            if len(taken) == 1:
                other.compact(grace_s=0)
                for file in snap.of("points"):  # type: ignore[attr-defined]
                    if not Path(file.path).exists():
                        raise FileGone(file.path)
            return len(taken)

        from tracer.storage import snapshot

        assert snapshot.consistently(store.catalog, store.base, "run-1", snapshot.nothing, compact_meanwhile) == 2
        assert store.series("run-1", "loss").value.tolist() == values.tolist()


def test_replaced_files_stay_for_the_grace_period(base: Path) -> None:
    long_run(base)
    folder = base / "runs" / "run-1" / "points"
    with Store.open(base) as store:
        store.fold()
        before = {path.name for path in folder.iterdir()}
        assert store.compact() > 0
        assert before < {path.name for path in folder.iterdir()}
        store.compact(grace_s=0)
        assert len(list(folder.iterdir())) == 1
        assert store.check().problems == ()


def test_a_file_that_is_gone_for_good_is_an_error_with_its_name(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long_run(base)
    monkeypatch.setattr("tracer.storage.snapshot.ATTEMPTS", 2)
    with Store.open(base) as store:
        store.fold()
        store.series("run-1", "loss")
        path = next((base / "runs" / "run-1" / "points").glob("*.parquet"))
        path.rename(path.with_suffix(".gone"))
        with pytest.raises(FileGone, match=path.name):
            store.series("run-1", "loss")


def _is_alive(store: Store, path: Path) -> bool:
    return bool(store.catalog.value("SELECT dead IS NULL FROM segment WHERE path LIKE ?", (f"%{path.name}",)))


def test_duckdb_reads_the_footer_as_json(base: Path) -> None:
    builder = JournalBuilder(make_run(base))
    builder.row({"it's": 1.0}, 1)
    builder.write(closed=True)
    with Store.open(base) as store:
        store.fold()
    path = next((base / "runs" / "run-1" / "points").glob("*.parquet"))

    with duckdb.connect() as connection:
        asked = "SELECT key, value FROM parquet_kv_metadata($path)"
        pairs = dict(connection.execute(asked, {"path": str(path)}).fetchall())

    assert json.loads(pairs[b"tracer.series"]) == [["it's", 0, 1]]
    assert json.loads(pairs[b"tracer.order"]) == [1, 1]
    assert json.loads(pairs[b"tracer.siblings"]) == [f"points/{path.name}"]
