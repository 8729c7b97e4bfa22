"""Media: bytes once per content, a record for each time, read back by name, kind and step."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from keepers import STORE, begin, contents

from tracer import events
from tracer.errors import StoreError, UsageError
from tracer.storage import Store
from tracer.storage.media import MediaRow

PNG = b"\x89PNG\r\n\x1a\n"


def kept(uid: str, **chosen: Any) -> list[MediaRow]:  # noqa: ANN401 -- the filters of `media`
    with Store.open(STORE) as store:
        return store.media(uid, **chosen)


def test_the_same_bytes_at_many_steps_are_one_file_and_many_records() -> None:
    with begin() as run:
        for step in range(5):
            run.log_media("sample", PNG + b"same", step=step, caption=f"at {step}")

    assert len(contents(run)) == 1
    assert [(row.step, row.caption, row.kind, row.suffix) for row in kept(run.id)] == [
        (step, f"at {step}", "image", ".png") for step in range(5)
    ]


@pytest.mark.parametrize("folded", [False, True])
def test_media_are_found_by_name_kind_and_step_before_and_after_a_fold(folded: bool) -> None:  # noqa: FBT001
    with begin() as run:
        run.log_media("a", PNG, step=1)
        run.log_media("a", b"RIFF....", step=2)
        run.log_media("b", "a text", step=2)
    if folded:
        with Store.open(STORE) as store:
            store.fold()

    assert [(row.name, row.step, row.kind) for row in kept(run.id)] == [
        ("a", 1, "image"), ("a", 2, "audio"), ("b", 2, "text"),
    ]  # fmt: skip
    assert [row.step for row in kept(run.id, name="a")] == [1, 2]
    assert [row.name for row in kept(run.id, kind="text")] == ["b"]
    assert [row.name for row in kept(run.id, step=2)] == ["a", "b"]


def test_small_text_stands_in_the_record_and_large_text_in_a_file() -> None:
    with begin() as run:
        run.log_media("small", "short")
        run.log_media("large", "long " * 2000)

    small, large = sorted(kept(run.id), key=lambda row: row.bytes)
    assert (small.text, small.digest) == ("short", None)
    assert (large.text, large.bytes) == (None, 10_000)
    with Store.open(STORE) as store:
        assert store.media_bytes(run.id, small) == b"short"
        assert store.media_bytes(run.id, large) == b"long " * 2000
    assert len(contents(run)) == 1


def test_fields_keep_arrays_and_too_large_ones_go_to_a_file() -> None:
    with begin() as run:
        run.take(events.Media("h", "histogram", fields={"counts": np.arange(3), "n": np.float32(2)}, step=1))
        run.take(events.Media("big", "histogram", fields={"counts": list(range(30_000))}, step=2))

    small, big = kept(run.id)
    assert (small.fields, small.digest) == ({"counts": [0, 1, 2], "n": 2.0}, None)
    with Store.open(STORE) as store:
        assert json.loads(store.media_bytes(run.id, big)) == {"counts": list(range(30_000))}


@pytest.mark.parametrize(
    "pixels",
    [
        np.arange(12, dtype=np.uint8).reshape(3, 4),
        np.zeros((3, 4, 3), np.float32),
        torch.rand(3, 5, 4),
        torch.ones(1, 5, 4, dtype=torch.bool),
        np.full((2, 2, 4), np.nan),
    ],
)
def test_arrays_and_tensors_of_pixels_become_pictures(pixels: object) -> None:
    from PIL import Image

    with begin() as run:
        run.log_media("x", pixels)

    (row,) = kept(run.id)
    with Store.open(STORE) as store:
        picture = Image.open(io.BytesIO(store.media_bytes(run.id, row)))
        assert (row.kind, picture.size) == ("image", (row.fields["width"], row.fields["height"]))


def test_files_keep_their_bytes_and_pictures_of_pillow_become_png() -> None:
    from PIL import Image

    Path("talk.wav").write_bytes(b"RIFF sound")
    with begin() as run:
        run.log_media("talk", Path("talk.wav"))
        run.log_media("photo", Image.new("RGB", (3, 2)), step=1)

    talk, photo = kept(run.id)
    with Store.open(STORE) as store:
        assert store.media_bytes(run.id, talk) == b"RIFF sound"
        assert store.media_bytes(run.id, photo).startswith(PNG)
    assert (talk.kind, talk.suffix) == ("audio", ".wav")


@pytest.mark.parametrize(
    ("value", "options", "error"),
    [
        (b"unknown", {}, ValueError),
        (PNG, {"kind": "hologram"}, ValueError),
        (object(), {}, TypeError),
        (np.zeros((2, 3, 7)), {}, TypeError),
        (np.zeros(4), {}, TypeError),
    ],
)
def test_what_is_no_media_raises_at_once(value: object, options: dict[str, str], error: type[Exception]) -> None:
    with begin() as run, pytest.raises(error):
        run.log_media("x", value, **options)  # type: ignore[arg-type]  # wrong on purpose

    assert kept(run.id) == []


def test_damaged_bytes_are_not_handed_out() -> None:
    with begin() as run:
        run.log_media("x", PNG + b"right")
    (row,) = kept(run.id)
    contents(run)[0].chmod(0o644)
    contents(run)[0].write_bytes(PNG + b"wrong")

    with Store.open(STORE) as store:
        with pytest.raises(StoreError, match="'x' of step 0 is damaged"):
            store.media_bytes(run.id, row)
        assert [problem.fact.rpartition(" (")[2] for problem in store.check().problems] == ["image 'x')"]


def test_a_finished_run_takes_none() -> None:
    with begin() as run:
        pass

    with pytest.raises(UsageError, match="finished"):
        run.log_media("x", "text")


def test_what_comes_faster_than_the_disk_takes_it_is_counted_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    from tracer.sink import Guard
    from tracer.storage import content_writer

    guard = Guard()
    with begin() as run:
        writer = content_writer.ContentWriter(run.folder, run.recorder.append, guard)
        writer._bytes = 256 * 1024 * 1024
        writer.put(events.Media("x", "image", data=PNG))
        writer.stop()

    assert guard.counters.nonzero() == {"records_lost": 1}
    assert "'x' and others are not kept" in capsys.readouterr().err


@pytest.mark.parametrize("rebuilt", [False, True])
def test_a_run_s_media_are_summed_up_live_folded_and_after_a_rebuild(rebuilt: bool) -> None:  # noqa: FBT001
    with begin() as run:
        run.log_media("a", PNG, step=4)
        run.flush()

        def summed_up() -> list[tuple[str, str, int, int, int]]:
            with Store.open(STORE) as store:
                return [(m.name, m.kind, m.n, m.first_step, m.last_step) for m in store.media_summary(run.id)]

        run.log_media("a", PNG, step=9)
        run.log_media("a", "text", step=1)
    with Store.open(STORE) as store:
        store.fold()
        if rebuilt:
            store.rebuild()

    assert summed_up() == [("a", "image", 2, 4, 9), ("a", "text", 1, 1, 1)]
