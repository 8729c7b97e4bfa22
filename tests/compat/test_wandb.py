"""`tracer.compat.wandb`: a program written for Weights & Biases, with one import changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from journals import only_run
from journals import series as points_of

from tracer import runfile
from tracer.compat import wandb
from tracer.compat.media import Image
from tracer.errors import UsageError


def series(name: str) -> list[tuple[int, float]]:
    """Return what was recorded of a metric."""
    return points_of(only_run(Path(".tracer")), name)


def test_a_program_keeps_its_lines() -> None:
    wandb.init(project="p", name="n", config={"lr": 0.1}, tags=["first"], notes="a try")
    for epoch in range(3):
        wandb.log({"loss": 1.0 / (epoch + 1), "eval": {"acc": epoch / 10}})
    wandb.config.epochs = 3
    wandb.summary["best"] = 0.2
    wandb.define_metric("loss", goal="minimize")
    wandb.finish()

    facts = runfile.read(str(only_run(Path(".tracer"))))
    assert series("loss") == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    assert series("eval/acc") == [(0, 0.0), (1, 0.1), (2, 0.2)]
    assert (facts["project"], facts["name"], facts["tags"], facts["notes"]) == ("p", "n", ["first"], "a try")
    assert facts["config"] == {"lr": 0.1, "epochs": 3}
    assert facts["summary"] == {"best": 0.2}
    assert facts["goals"] == {"loss": "min"}
    assert facts["status"] == "completed"


def test_steps_are_theirs_where_given_and_counted_where_not() -> None:
    with wandb.init(project="p") as run:
        run.log({"a": 1.0}, commit=False)
        run.log({"b": 2.0})
        run.log({"a": 3.0}, step=7)
        run.log({"a": 4.0}, step=5)

    assert series("a") == [(0, 1.0), (5, 4.0), (7, 3.0)]
    assert series("b") == [(0, 2.0)]


def test_a_disabled_run_records_nothing() -> None:
    with wandb.init(project="p", mode="disabled") as run:
        run.log({"loss": 1.0})

    assert not Path(".tracer").exists()


def test_an_exception_marks_the_run_failed() -> None:
    with pytest.raises(ZeroDivisionError), wandb.init(project="p"):
        wandb.log({"loss": 1 / 0})

    facts = runfile.read(str(only_run(Path(".tracer"))))
    assert facts["status"] == "failed"
    assert "ZeroDivisionError" in facts["reason"]


def test_what_is_not_served_says_so() -> None:
    with pytest.raises(AttributeError, match="no 'sweep'"):
        wandb.sweep({})
    with pytest.raises(UsageError, match=r"wandb\.init"):
        wandb.log({"loss": 1.0})


@pytest.mark.parametrize(
    "given",
    [np.zeros((2, 3)), np.zeros((2, 3, 3), dtype=np.uint8), np.full((2, 2, 4), 0.5), [[0, 255]]],
    ids=["grey", "colour", "transparent", "list"],
)
def test_arrays_become_pictures_that_others_read(given: object, tmp_path: Path) -> None:
    from PIL import Image as Pillow

    file = tmp_path / "picture.png"
    file.write_bytes(Image(given).medium().data or b"")

    with Pillow.open(file) as picture:
        pixels = np.asarray(picture)
    expected = np.asarray(given, dtype=np.float64)
    expected = expected * 255 if np.asarray(given).dtype.kind == "f" else expected
    assert np.array_equal(pixels, np.rint(expected).astype(np.uint8))


def test_a_tensor_with_colours_first_is_a_picture_too() -> None:
    import torch

    assert (Image(torch.zeros(3, 4, 5)).medium().data or b"")[16:24] == bytes([0, 0, 0, 5, 0, 0, 0, 4])


def test_what_is_no_picture_is_refused() -> None:
    with pytest.raises(TypeError, match=r"shape \(3,\)"):
        Image([1.0, 2.0, 3.0])
