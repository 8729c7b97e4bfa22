"""Questions in SQL see everything, and can change and reach nothing."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

import tracer
from tracer.errors import StoreError
from tracer.storage import Store

HOSTILE = [
    "COPY (SELECT 1) TO '{store}/runs/x.csv'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{store}/runs/x.csv'",
    "/* hello */ EXPLAIN -- a comment\n ANALYZE COPY (SELECT 1) TO '{store}/runs/x.csv'",
    "SELECT 1; COPY (SELECT 1) TO '{store}/runs/x.csv'",
    "SELECT * FROM read_csv('{outside}')",
    "SELECT * FROM read_text('{outside}')",
    "SELECT * FROM '{outside}'",
    "SELECT * FROM glob('/*')",
    "ATTACH '{outside}' AS other",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "PRAGMA database_list",
    "CREATE TABLE mine AS SELECT 1",
    "DROP VIEW points",
    "EXPORT DATABASE '{store}/runs/x'",
    "SELECT * FROM store",
    "",
    "not a question at all",
]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return a store with one finished run of three steps."""
    with tracer.init(
        project="asked", run_name="one", config={"lr": 0.5}, storage_path=tmp_path / "s", quiet=True
    ) as run:
        for step, loss in enumerate((2.0, math.nan, 1.0)):
            run.log({"loss": loss, "phase": "warm"}, step=step)
        run.log({"loss": 7.0}, step=0)
    opened = Store.open(tmp_path / "s")
    opened.fold()
    return opened


def test_points_hold_every_value_and_the_last_of_a_step_wins(store: Store) -> None:
    answer = store.sql("SELECT step, value FROM points WHERE metric = 'loss' ORDER BY step")

    assert answer.columns == ("step", "value")
    assert [row[0] for row in answer.rows] == [0, 1, 2]
    assert answer.rows[0][1] == 7.0
    assert math.isnan(answer.rows[1][1])


def test_a_later_fold_replaces_a_value_of_an_earlier_one(store: Store) -> None:
    with tracer.init(resume="one", storage_path=store.path, quiet=True) as run:
        run.log({"loss": 9.0}, step=2)

    assert store.sql("SELECT value FROM points WHERE metric = 'loss' AND step = 2").rows == ((9.0,),)


def test_runs_series_params_and_texts_are_there(store: Store) -> None:
    asked = "SELECT r.name, p.num, s.n FROM runs r JOIN params p USING (run) JOIN series s USING (run) "
    answer = store.sql(asked + "WHERE p.key = 'lr' AND s.metric = 'loss'")

    assert answer.rows[0][:2] == ("one", 0.5)
    assert ("warm",) in store.sql("SELECT DISTINCT body FROM logs WHERE kind = 'text'").rows


def test_a_limit_says_when_it_cut(store: Store) -> None:
    cut, whole = store.sql("SELECT * FROM range(5)", limit=3), store.sql("SELECT * FROM range(3)", limit=3)

    assert (len(cut.rows), cut.complete) == (3, False)
    assert (len(whole.rows), whole.complete) == (3, True)


def test_an_empty_store_answers_with_no_rows(tmp_path: Path) -> None:
    with Store.open(tmp_path / "empty", create=True) as empty:
        for view in ("runs", "params", "series", "points", "rollup", "layers", "logs", "checkpoints", "findings"):
            assert empty.sql(f"SELECT * FROM {view}").rows == ()  # noqa: S608 -- the names above


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_but_a_question_gets_through(store: Store, tmp_path: Path, text: str) -> None:
    outside = tmp_path / "secret.csv"
    outside.write_text("a,b\n1,2\n", encoding="utf-8")
    before = _files(store)

    with pytest.raises(StoreError):
        store.sql(text.format(store=store.path, outside=outside))

    assert _files(store) == before


def _files(store: Store) -> list[Path]:
    return sorted(path for path in store.path.rglob("*") if not path.name.startswith("tracer.db"))
