"""`tracer layers` as a person and as a program meets it."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tracer import journal
from tracer.config import Config
from tracer.storage.backend import StorageBackend

#: Runs a command; see conftest.py.
Ask = Callable[..., Any]

NAMES = ["wte.weight", *(f"h.{block}.{part}.weight" for block in range(30) for part in ("attn", "mlp"))]
STATISTICS = ("norm", "nans")


@pytest.fixture
def run() -> str:
    """A run with 61 layers, 100 steps; the layer h.3.mlp.weight holds NaN from step 60 to 63."""
    backend = StorageBackend(Config(project_name="demo", storage_path=os.environ.get("TRACER_STORAGE", ".tracer")))
    backend.create_run("grads", "demo", "grads", 1000.0, {})
    writer = backend._writer("grads")
    for step in range(100):
        table = np.zeros((2, len(NAMES)), np.float32)
        table[0] = np.exp(-np.arange(len(NAMES)) / 10 - step / 50)
        if 60 <= step < 64:
            table[0, NAMES.index("h.3.mlp.weight")] = np.nan
        writer.add_layers("gradients", NAMES, STATISTICS, table.tobytes(), step, 1000.0 + step)
    counts = np.zeros((2, len(NAMES), 3), np.uint32)
    for step in (0, 50):
        counts[:, :, 1], counts[0, :, 0] = 2 * step + 100, 30
        writer._add(journal.Kind.AXIS, journal.axis_payload(9, "weights", NAMES, (), ()), step, 1000.0)
        writer._add(journal.Kind.HISTOGRAM, journal.histogram_payload(9, -5, 3, counts.tobytes()), step, 1000.0)
    backend.close()
    return "grads"


def test_many_layers_are_a_heat_map_that_says_what_was_put_together(ask: Ask, run: str) -> None:
    lines = ask("layers", run, "--height", "20", "--width", "70").lines

    assert lines[0] == "grads: norm of gradients"
    rows = lines[1:16]
    assert rows[0].split()[0].startswith("wte.weight")
    assert [row.split()[0] for row in rows[1:3]] == ["h.1-2", "h.3-4"]
    assert "!" in rows[2]
    assert not any("!" in row for row in rows[3:])
    assert lines[16].split() == ["0", "25", "50", "75"]
    assert "logarithmic" in lines[17]
    assert "61 layers in 15 rows, neighbours together; a cell is the mean of its layers." in lines
    assert lines[-1] == "NaN or Inf in h.3.mlp.weight (from step 60)."


def test_a_heat_map_has_colour_on_a_terminal(on_terminal: Ask, run: str) -> None:
    answer = on_terminal("layers", run, columns=60, rows=20)

    assert max(map(len, answer.text[:-2])) <= 60
    assert "\x1b[48;5;" in answer.out
    assert "\x1b[97;41;1m" in answer.out


def test_a_pattern_picks_layers_and_steps_can_be_limited(ask: Ask, run: str) -> None:
    lines = ask("layers", run, "--layer", "*.mlp.*", "--layer", "wte.weight", "--from", "10", "--to", "19").lines
    found = json.loads(ask("layers", run, "--layer", "mlp", "--from", "10", "--to", "19", "--json").out)

    assert "31 layers in" in " ".join(lines)
    assert found["buckets"] == [[step, step] for step in range(10, 20)]
    assert len(found["layers"]) == 30
    assert found["mean"][0][0] == pytest.approx(np.exp(-0.2 - 0.2), rel=1e-6)


def test_one_layer_is_a_chart_with_a_summary(ask: Ask, run: str) -> None:
    lines = ask("layers", run, "--layer", "h.3.mlp.weight").lines

    assert lines[0] == "grads: norm of gradients, h.3.mlp.weight"
    assert any("┤" in line for line in lines)
    assert lines[-5].split(maxsplit=1) == ["min", "0.06204 at step 99"]
    assert lines[-1] == "NaN or Inf  4, the first at step 60"


def test_one_layer_as_rows_and_as_a_document(ask: Ask, run: str) -> None:
    rows = list(csv.DictReader(io.StringIO(ask("layers", run, "--layer", "h.3.mlp.weight", "--csv").out)))
    found = json.loads(ask("layers", run, "--layer", "h.3.mlp.weight", "--json").out)

    assert (len(rows), rows[0]["step"], rows[60]["value"]) == (100, "0", "NaN")
    assert found["values"][60] == "NaN"
    assert (found["axis"], found["statistic"], found["layer"]) == ("gradients", "norm", "h.3.mlp.weight")


def test_histograms_are_bars_by_power_of_two(ask: Ask, run: str) -> None:
    lines = ask("layers", run, "--axis", "weights", "--histogram", "wte.weight", "--width", "60").lines

    assert lines[0] == "grads: weights, wte.weight"
    assert [line.split()[0] for line in lines[1:4]] == ["2^-4", "-2^-5", "-2^-4"]
    assert lines[-4] == "step 50"
    assert [line.split()[0] for line in lines[-3:]] == ["2^-4", "-2^-5", "-2^-4"]
    assert [line.split()[-1] for line in lines[-3:]] == ["200", "30", "200"]
    rows = ask("layers", run, "--axis", "weights", "--histogram", "wte.weight", "--csv").lines
    assert rows[:3] == ["step,sign,exponent,count", "0,negative,-5,30", "0,negative,-4,100"]


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_an_export_appears_whole(ask: Ask, run: str, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"out.{ending}"

    ask("layers", run, "--export", str(path))

    text = path.read_text()
    assert text.startswith("layer,first_step" if ending == "csv" else "{")
    assert [one.name for one in tmp_path.glob("out*")] == [path.name]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--axis", "nowhere"), "has no axis 'nowhere'. It has: gradients, weights."),
        (("--stat", "median"), "no statistic 'median' was recorded. There is: norm, nans."),
        (("--axis", "weights"), "There is: histograms only, see --histogram."),
        (("--layer", "h.3.mpl.weight"), "Did you mean 'h.3.mlp.weight'?"),
        (("--histogram", "mlp"), "'mlp' fits 30 layers; name one, such as 'h.0.mlp.weight'."),
        (("--layer", "re:("), "is no regular expression"),
        (("--export", "x.xml"), "Choose one of: csv, json."),
    ],
)
def test_a_question_that_cannot_be_answered_says_what_can(
    ask: Ask, run: str, arguments: tuple[str, ...], said: str
) -> None:
    answer = ask("layers", run, *arguments)

    assert answer.code != 0
    assert said in answer.err
