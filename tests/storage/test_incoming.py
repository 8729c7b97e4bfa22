"""Runs of other trackers: kept as they were, once, whole or not at all."""

from __future__ import annotations

import json
import math
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dying import Died, mortal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journal_builder import JournalBuilder, make_run, make_store
from keepers import begin

import tracer
from tracer import clock, events, runfile, transfer
from tracer.errors import StoreError
from tracer.storage import Store, incoming
from tracer.storage.outgoing import USED
from tracer.transfer import Event, File, Histogram, LogLine, Media, Part, Points, RunInfo, Span, Text

T0 = 1_700_000_000_000_000
INFO = RunInfo(
    "theirs", "vision", "größe", T0, events.COMPLETED, T0 + 5_000_000, 100, "g", "train", "a note", ("good", "µ"),
    {"team": "x"}, {"lr": 0.1, "opt": {"name": "adam"}}, {"best": 0.5}, {"host": "far"}, {"commit": "abc"}, "mlflow:77",
)  # fmt: skip
HARD = [math.nan, math.inf, -math.inf, -0.0, 1e-300, 5e-324, 1.7976931348623157e308, 1 / 3]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store", create=True) as found:
        yield found


def points(name: str, values: Sequence[float], first: int = 0, rank: int = 0) -> Points:
    """A series of steps in a row."""
    steps = np.arange(first, first + len(values))
    return Points(name, steps, T0 + steps * 1000, np.array(values, np.float64), rank)


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, by its path in it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows(store: Store, uid: str) -> list[tuple[object, ...]]:
    """The lines of a run."""
    return [tuple(row) for row in store.log_lines(uid)]


def test_everything_is_kept_bit_by_bit(store: Store, tmp_path: Path) -> None:
    picture = tmp_path / "pic.png"
    picture.write_bytes(b"\x89PNG" + bytes(9000))
    (tmp_path / "w.bin").write_bytes(b"weights")
    found = store.take_in(
        INFO,
        [
            points("hard", HARD),
            Points("steps", np.array([-(2**63), 2**53 + 1, 2**63 - 1]), np.array([1, 2, 3]), np.array([1.0, 2, 3]), 3),
            points("naïve/größe 🙂", [1.0]),
            Text("phase", 3, T0, "warm"),
            LogLine("log", T0 + 5, "said", "me", "info", 4, {"a": [1, None]}, 1),
            Media("pic", "image", 3, T0, path=str(picture), suffix=".png", caption="c", rank=1),
            Media("note", "text", 4, T0, data=b"short"),
            Histogram("weights", 5, T0, (0.0, 0.1, 0.3), (4, 2)),
            Histogram("gradients/fc.w", 5, T0, (-2.0, -1.0, -0.5, 0.5, 1.0, 2.0), (1, 0, 0, 3, 4), 1),
            File("model", "model", "v4", (Part("w.bin", str(tmp_path / "w.bin"), 7, ""),), T0, 9, ("best",), {"k": 1}),
            File("data", "dataset", "3", (Part("a/w.bin", str(tmp_path / "w.bin"), 7, ""),), metadata={USED: True}),
            Span("work", "a" * 32, "b" * 16, T0, T0 + 9),
        ],
    )

    assert (found.created, found.changed, found.points, found.superseded, found.notes) == (True, True, 12, 0, ())
    uid = found.uid
    assert uid == runfile.shared_id("origin", "mlflow:77")
    assert store.series(uid, "hard").value.tobytes() == struct.pack("<8d", *HARD)
    assert store.series(uid, "hard").time.tolist() == [T0 + step * 1000 for step in range(8)]
    assert store.series(uid, "steps", rank=3).step.tolist() == [-(2**63), 2**53 + 1, 2**63 - 1]
    assert store.series(uid, "naïve/größe 🙂").value.tolist() == [1.0]
    assert store.texts(uid, "phase") == [(3, T0, "warm")]
    assert (T0 + 5, 4, 1, "log", "info", "me", "said", '{"a":[1,null]}') in rows(store, uid)
    pic, note, hist = sorted(store.media(uid), key=lambda row: row.step)
    assert (pic.rank, pic.suffix, pic.caption, store.media_bytes(uid, pic)) == (1, ".png", "c", picture.read_bytes())
    assert store.media_bytes(uid, note) == b"short"
    assert (hist.kind, dict(hist.fields)) == ("histogram", {"limits": [0.0, 0.1, 0.3], "counts": [4, 2]})
    layer = store.histograms(uid, "fc.w", rank=1)
    assert (layer.lowest, layer.negative.tolist(), layer.positive.tolist()) == (-1, [[0, 1]], [[3, 4]])
    (model,) = store.artifacts(uid)
    assert (model.reference, model.type, model.aliases, dict(model.metadata)) == (
        "model:v4", "model", ("best", "latest") if model.aliases[0] == "best" else ("latest", "best"), {"k": 1},
    )  # fmt: skip
    assert [path.read_bytes() for path in model.files().values()] == [b"weights"]
    assert [one.name for one in store.artifacts(uid, used=True)] == ["data"]
    row, info = store.run(uid), store.info(uid)
    assert (row.status, row.host, row.started, row.ended) == ("completed", "far", T0, T0 + 5_000_000)
    assert replace(info, uid="theirs") == INFO
    assert store.check().is_clean
    store.rebuild()
    assert store.check().is_clean
    assert len(store.digests(uid)) == 3


def test_what_goes_out_of_one_store_comes_into_another_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = begin()
    for step in range(300):
        tracer.log({"loss": step / 7, "phase": "a" if step < 100 else "b"})
        tracer.step()
    (tmp_path / "m.pt").write_bytes(b"model")
    run.log_artifact("m.pt", name="model", aliases=["best"])
    tracer.finish()
    with Store.open(tmp_path / ".tracer") as ours, Store.open(tmp_path / "other", create=True) as other:
        found = other.take_in(ours.info(run.id), ours.outgoing(run.id))
        again = other.take_in(ours.info(run.id), ours.outgoing(run.id))

        assert (found.changed, again.changed, again.created) == (True, False, False)
        assert other.digests(found.uid) == ours.digests(run.id)
        assert other.texts(found.uid, "phase") == ours.texts(run.id, "phase")
        mine, theirs = ours.info(run.id), other.info(found.uid)
        assert replace(theirs, uid=mine.uid, origin="") == mine
        assert other.artifact("model:best").files().keys() == {"m.pt"}
        back = ours.take_in(theirs, other.outgoing(found.uid))
        assert ours.digests(back.uid) == ours.digests(run.id)


SERIES = st.lists(
    st.tuples(
        st.sampled_from(["a", "b/c", "ü"]), st.integers(0, 2),
        st.lists(st.tuples(st.integers(-3, 12), st.floats(allow_nan=True, allow_infinity=True)), max_size=20),
    ),
    max_size=8,
)  # fmt: skip


@given(series=SERIES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_last_value_of_a_step_is_kept_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    series: list[tuple[str, int, list[tuple[int, float]]]],
) -> None:
    monkeypatch.setattr("tracer.storage.staging.BATCH_POINTS", 25)
    coming = [
        Points(name, np.array([s for s, _ in rows], np.int64), np.zeros(len(rows), np.int64),
               np.array([v for _, v in rows], np.float64), rank)
        for name, rank, rows in series
    ]  # fmt: skip
    grouped: dict[tuple[str, int], list[Points]] = {}
    for one in coming:
        if len(one):
            grouped.setdefault((one.name, one.rank), []).append(one)
    with Store.open(tmp_path_factory.mktemp("in") / "store", create=True) as store:
        found = store.take_in(INFO, coming)

        expected = {key: (len(transfer.settled(of)[0]), transfer.digest(of)) for key, of in grouped.items()}
        assert store.digests(found.uid) == expected
        assert (found.points, found.points + found.superseded) == (
            sum(count for count, _ in expected.values()), sum(map(len, coming)),
        )  # fmt: skip
        assert not store.take_in(INFO, coming).changed


def test_a_second_time_writes_nothing(store: Store) -> None:
    coming: list[Event] = [points("loss", [1.0, 2.0]), Text("t", 1, T0, "x"), LogLine("line", T0, "out")]
    uid = store.take_in(INFO, coming).uid
    folder = Path(store.base, "runs", uid)
    before = content(folder)

    again = store.take_in(INFO, list(reversed(coming)))

    assert (again.uid, again.created, again.changed) == (uid, False, False)
    assert content(folder) == before
    assert [row.uid for row in store.runs()] == [uid]


@pytest.mark.parametrize(
    "change",
    [
        [points("loss", [1.0, 2.0, 3.0])],
        [points("loss", [1.0])],
        [points("loss", [1.0, 2.5])],
        [points("loss", [1.0, 2.0]), points("acc", [1.0])],
        [points("loss", [1.0, 2.0]), LogLine("line", T0, "more")],
        [],
    ],
)
def test_a_source_that_changed_makes_the_run_what_it_is_now(store: Store, change: list[Event]) -> None:
    uid = store.take_in(INFO, [points("loss", [1.0, 2.0])]).uid

    again = store.take_in(INFO, change)

    series = [one for one in change if isinstance(one, Points)]
    assert (again.changed, again.created, again.uid) == (True, False, uid)
    assert store.digests(uid) == {(one.name, 0): (len(one), transfer.digest([one])) for one in series}
    assert len(rows(store, uid)) == len(change) - len(series)
    assert store.check().is_clean
    assert [name for name in os.listdir(Path(store.base, "runs")) if name != uid] == []


def test_facts_that_changed_are_updated_and_what_was_changed_here_stays(store: Store, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(b"w")
    file = File("model", "model", "v0", (Part("w", str(tmp_path / "w"), 1, ""),))
    uid = store.take_in(replace(INFO, status=events.RUNNING, ended=None), [points("loss", [1.0]), file]).uid
    folder = Path(store.base, "runs", uid)
    facts = runfile.read(str(folder))
    runfile.replace(str(folder), {**facts, "tags": [*facts["tags"], "mine"], "notes": "my note"})
    store.add_findings(uid, [events.Finding("spike", "low", 0, {"metric": "loss"})])
    (folder / "samples").mkdir()
    (folder / "samples" / "kept").write_bytes(b"x")

    store.take_in(replace(INFO, name="new", tags=("else",)), [points("loss", [1.0, 2.0]), file])

    info = store.info(uid)
    assert (info.name, info.status, info.notes) == ("new", "completed", "my note")
    assert set(info.tags) == {"good", "µ", "mine"}
    assert [row.kind for row in store.findings(uid)] == ["spike"]
    assert (folder / "samples" / "kept").read_bytes() == b"x"
    assert [one.reference for one in store.artifacts(uid)] == ["model:v0"]
    assert store.check().is_clean


def test_two_runs_of_one_name_get_versions_of_their_own(store: Store, tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / "w").write_bytes(bytes([number]))
        file = File("model", "model", "v0", (Part("w", str(tmp_path / "w"), 1, ""),))
        store.take_in(replace(INFO, origin=f"aim:{number}"), [file])

    assert [one.reference for one in store.artifacts(project="vision")] == ["model:v0", "model:v1"]


HOSTILE = ["/etc/cron", "../up", "a/../../up", "a\\b", "a\0b", "", ".", "x/" * 3000]


@pytest.mark.parametrize("path", HOSTILE)
def test_a_path_that_leads_elsewhere_is_left_out_and_said(store: Store, tmp_path: Path, path: str) -> None:
    good = tmp_path / "good"
    good.write_bytes(b"good")
    before = sorted(tmp_path.iterdir())
    parts = (Part(path, str(good), 4, ""), Part("fine.txt", str(good), 4, ""))

    found = store.take_in(INFO, [File("files", "file", "v0", parts)])

    assert len(found.notes) == 1
    assert [row.name for row in store.log_lines(found.uid)] == ["import"]
    (artifact,) = store.artifacts(found.uid)
    assert list(artifact.files()) == ["fine.txt"]
    assert sorted(tmp_path.iterdir()) == before


def test_links_devices_and_wrong_digests_are_left_out(store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    (tmp_path / "link").symlink_to(secret)
    os.mkfifo(tmp_path / "pipe")
    parts = tuple(
        Part(name, str(tmp_path / name), 6, "0" * 64 if name == "secret" else "")
        for name in ("secret", "link", "pipe", "absent")
    )

    found = store.take_in(
        INFO, [File("files", "file", "v0", parts), Media("m", "image", 1, T0, path=str(tmp_path / "link"))]
    )

    assert len(found.notes) == 5
    folder = Path(store.base, "runs", found.uid)
    assert all(path.read_bytes() != b"secret" for path in folder.rglob("*") if path.is_file())
    assert store.check().is_clean


def test_a_name_or_an_id_never_becomes_a_path(store: Store) -> None:
    info = replace(INFO, origin="x:../../../up\0", name="../up", project="/abs", uid="../../up")

    found = store.take_in(info, [points("../../metric\0", [1.0]), File("../up", "f", "../../v1", ())])

    assert os.listdir(Path(store.base, "runs")) == [found.uid]
    assert store.series(found.uid, "../../metric\0").value.tolist() == [1.0]


def test_numbers_beyond_what_is_kept_are_cut(store: Store) -> None:
    found = store.take_in(INFO, [Text("t", 2**70, 2**70, "x", -4), LogLine("what", -(2**70), "y", step=-(2**70))])

    assert store.texts(found.uid, "t") == [(2**63 - 1, 2**63 - 1, "x")]
    assert [(row.kind, row.step) for row in store.log_lines(found.uid)] == [("event", 1 - 2**63)]


def test_a_run_that_records_is_not_touched(store: Store) -> None:
    uid = store.take_in(INFO, [points("loss", [1.0])]).uid
    folder = str(Path(store.base, "runs", uid))
    runfile.replace(folder, {**runfile.read(folder), "status": "running", **runfile.owner()})

    with pytest.raises(StoreError, match="still records"):
        store.take_in(INFO, [points("loss", [2.0])])

    assert store.series(uid, "loss").value.tolist() == [1.0]


def test_a_run_in_the_trash_is_not_made_twice(store: Store) -> None:
    uid = store.take_in(INFO, [points("loss", [1.0])]).uid
    store.delete(uid)

    with pytest.raises(StoreError, match="trash"):
        store.take_in(INFO, [points("loss", [2.0])])

    store.empty_trash(days=0)
    assert store.take_in(INFO, [points("loss", [2.0])]).created


def test_a_source_that_fails_leaves_nothing(store: Store) -> None:
    def failing() -> Iterator[Event]:
        yield points("loss", [1.0])
        message = "gone"
        raise ConnectionError(message)

    with pytest.raises(StoreError, match="gone"):
        store.take_in(INFO, failing())

    assert os.listdir(Path(store.base, "runs")) == []
    assert store.runs() == []


@pytest.mark.parametrize("is_update", [False, True])
def test_whoever_dies_anywhere_leaves_the_run_whole_or_none(tmp_path: Path, *, is_update: bool) -> None:
    old, new = points("loss", [1.0, 2.0]), points("loss", [1.0, 2.0, 3.0])
    whole: list[Event] = [new, LogLine("line", T0, "out"), Media("m", "image", 1, T0, data=bytes(5000))]

    def attempt(base: Path, at: int) -> int:
        with Store.open(base, create=True) as store:
            if is_update:
                store.take_in(INFO, [old])
            with mortal(at) as life:
                try:
                    store.take_in(INFO, whole)
                except Died:
                    store.close()
            return life.count

    total = attempt(tmp_path / "all", 0)
    for at in range(1, total + 1, 11 if is_update else 7):
        base = tmp_path / str(at)
        attempt(base, at)
        with Store.open(base) as store:
            for row in store.runs():
                expected = [old, new] if is_update else [new]
                assert store.digests(row.uid)["loss", 0] in [(len(one), transfer.digest([one])) for one in expected], at
                assert row.status == "completed"
            found = store.take_in(INFO, whole)
            assert store.digests(found.uid) == {("loss", 0): (3, transfer.digest([new]))}, at
            assert len(store.log_lines(found.uid)) == 1
            assert store.check().is_clean, (at, store.check().problems)
            assert [name for name in os.listdir(base / "runs") if name != found.uid] == []


PROGRAM = """
import sys
import numpy as np
from tracer.storage import Store
from tracer.transfer import Points, RunInfo

def series():
    for at in range(300):
        steps = np.arange(20_000)
        yield Points(f"m{at}", steps, steps, steps / 7)
        if at == 5:
            print("begun", flush=True)

with Store.open(sys.argv[1], create=True) as store:
    store.take_in(RunInfo("x", "p", "n", 1, origin="aim:1"), series())
print("done", flush=True)
"""


@pytest.mark.parametrize("after_s", [0.0, 0.3, 1.0])
def test_an_import_that_is_killed_leaves_nothing_half(tmp_path: Path, after_s: float) -> None:
    base = tmp_path / "store"
    command = [sys.executable, "-c", PROGRAM, str(base)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        until = clock.monotonic() + after_s
        while clock.monotonic() < until and process.poll() is None:
            pass
        process.send_signal(signal.SIGKILL)
    with Store.open(base) as store:
        for row in store.runs():
            assert len(store.metrics(row.uid)) == 300

        def few() -> Iterator[Event]:
            yield points("m0", [1.0])

        found = store.take_in(RunInfo("x", "p", "n", 1, origin="aim:1"), few())
        assert store.digests(found.uid).keys() == {("m0", 0)}
        assert [name for name in os.listdir(base / "runs") if name != found.uid] == []
        assert json.loads((base / "runs" / found.uid / "run.json").read_text())["origin"] == "aim:1"


def test_an_import_tells_how_far_it_is(store: Store) -> None:
    told: list[int] = []

    store.take_in(INFO, [points("a", [1.0, 2.0]), points("b", [1.0])], progress=told.append)

    assert told == [2, 3]


def test_what_recording_cost_stays_at_home(tmp_path: Path) -> None:
    base = make_store(tmp_path / "store")
    builder = JournalBuilder(make_run(base))
    builder.row({"tracer/us": 1.0, "system/cpu": 2.0}, 1)
    builder.write(closed=True)
    with Store.open(base) as store:
        for _ in range(2):
            assert [one.name for one in store.outgoing("run-1") if isinstance(one, Points)] == ["system/cpu"]
            assert store.digests("run-1").keys() == {("system/cpu", 0)}
            store.fold()


def test_the_result_says_what_became_of_it() -> None:
    found = incoming.TakenIn("u", 1, created=True, changed=True, superseded=0)

    assert found.notes == ()
