"""P12: old stores open in new versions; a newer store is refused politely and left untouched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from journals import only_run, points, segments
from programs import CALMLY

import tracer
from tracer import journal, runfile
from tracer.errors import SchemaTooNew
from tracer.storage import Store


def image(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Give a store with one run."""
    with tracer.init(project="versions", **CALMLY) as run:
        run.log({"loss": 1.0})
    return tmp_path / ".tracer"


def test_p12_a_newer_store_is_refused_and_left_untouched(store: Path) -> None:
    said = json.loads((store / "store.json").read_text(encoding="utf-8"))
    (store / "store.json").write_text(json.dumps({**said, "format": 99}), encoding="utf-8")
    before = image(store)

    with pytest.raises(SchemaTooNew, match=r"format 99.*pip install -U ml-tracer"):
        tracer.init(project="versions", **CALMLY)
    with pytest.raises(SchemaTooNew, match=r"format 99.*pip install -U ml-tracer"):
        Store.open(store)

    assert image(store) == before


def test_p12_a_newer_journal_is_refused_by_name(store: Path) -> None:
    (path,) = segments(only_run(store))
    data = bytearray(path.read_bytes())
    data[8:10] = (journal.FORMAT + 1).to_bytes(2, "little")

    with pytest.raises(SchemaTooNew, match=f"{path.name}.*pip install -U ml-tracer"):
        journal.Header.unpack(data, path.name)


def test_p12_a_newer_record_is_stepped_over(tmp_path: Path) -> None:
    with tracer.init(project="versions", **CALMLY) as run:
        run.log({"loss": 1.0}, step=1)
        run._recorder.append(200, {"of": "the future"})
        run.log({"loss": 2.0}, step=2)

    assert points(only_run(tmp_path / ".tracer")) == [("loss", 1, 1.0), ("loss", 2, 2.0)]
    with Store.open(tmp_path / ".tracer") as opened:
        opened.fold()
        assert opened.series(run.run_id, "loss").value.tolist() == [1.0, 2.0]


def test_p12_facts_that_a_newer_version_added_are_kept(store: Path) -> None:
    folder = str(only_run(store))
    facts = runfile.read(folder)
    runfile.replace(folder, {**facts, "invented_later": {"x": 1}})

    with Store.open(store) as opened:
        (row,) = opened.runs()
        opened.fold()

    assert row.uid == facts["id"]
    assert runfile.read(folder)["invented_later"] == {"x": 1}
