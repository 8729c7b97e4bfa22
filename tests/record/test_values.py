"""Each kind of value is kept as it is, or refused with its name, its type and a remedy; the rest is kept."""

from __future__ import annotations

import math
import struct
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from journals import only_run, rows, runs, typed
from programs import CALMLY

import tracer


class Money(float):
    """A float of the user's own."""

    __slots__ = ()


class Celsius:
    """Something that can say what number it is."""

    def __float__(self) -> float:
        return 36.6


class Broken:
    """Something whose methods all fail."""

    def __float__(self) -> float:
        message = "broken sensor"
        raise RuntimeError(message)

    def __repr__(self) -> str:
        message = "no words"
        raise RuntimeError(message)

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError

    __hash__ = None  # type: ignore[assignment]


class Endless:
    """Something that asks itself for ever."""

    def __float__(self) -> float:
        return float(self)


class Trap:
    """Something whose attributes fail."""

    def __getattr__(self, name: str) -> object:
        message = f"do not touch {name}"
        raise LookupError(message)


def bits(number: float) -> bytes:
    """Return what tells every float from every other, NaN and -0.0 too."""
    return struct.pack("<d", number)


KEPT = {
    "zero": (0.0, 0.0),
    "negative zero": (-0.0, -0.0),
    "nan": (math.nan, math.nan),
    "infinity": (math.inf, math.inf),
    "negative infinity": (-math.inf, -math.inf),
    "subnormal": (5e-324, 5e-324),
    "largest": (1.7976931348623157e308, 1.7976931348623157e308),
    "int": (7, 7.0),
    "exact int": (-(2**53), -(2.0**53)),
    "true": (True, 1.0),
    "false": (False, 0.0),
    "own float": (Money(2.5), 2.5),
    "own number": (Celsius(), 36.6),
    "decimal": (Decimal("0.125"), 0.125),
    "decimal infinity": (Decimal("Infinity"), math.inf),
    "fraction": (Fraction(1, 4), 0.25),
    "numpy float32": (np.float32(0.5), 0.5),
    "numpy float64": (np.float64(0.1), 0.1),
    "numpy half": (np.float16(0.5), 0.5),
    "numpy int8": (np.int8(-3), -3.0),
    "numpy bool": (np.bool_(True), 1.0),
    "numpy 0-d": (np.array(1.5), 1.5),
    "numpy one": (np.array([1.5]), 1.5),
    "numpy long double": (np.longdouble(0.5), 0.5),
    "tensor": (torch.tensor(0.5), 0.5),
    "tensor of one": (torch.tensor([[0.5]]), 0.5),
    "tensor with a gradient": (torch.tensor(0.5, requires_grad=True) * 2, 1.0),
    "parameter": (torch.nn.Parameter(torch.tensor(0.5)), 0.5),
    "int tensor": (torch.tensor(3), 3.0),
    "bool tensor": (torch.tensor(True), 1.0),
    "bfloat16": (torch.tensor(0.5, dtype=torch.bfloat16), 0.5),
    "half tensor": (torch.tensor(0.5, dtype=torch.float16), 0.5),
    "fp8": (torch.tensor(0.5).to(torch.float8_e4m3fn), 0.5),
    "sparse": (torch.tensor([0.5]).to_sparse(), 0.5),
}

TYPED = {
    "text": ("warm-up", "warm-up"),
    "empty text": ("", ""),
    "unicode": ("naïve 深い \u202eRTL \u200b\x00", "naïve 深い \u202eRTL \u200b\x00"),
    "numpy text": (np.str_("x"), "x"),
    "none": (None, None),
    "long int": (2**63 + 1, 2**63 + 1),
    "negative long int": (-(2**80), -(2**80)),
    "numpy uint64": (np.uint64(2**64 - 1), 2**64 - 1),
    "long int tensor": (torch.tensor(2**62 + 1), 2**62 + 1),
}

REFUSED = {
    "complex": (1j, "complex"),
    "bytes": (b"loss", "bytes"),
    "list": ([1.0], "list"),
    "set": ({1.0}, "set"),
    "generator": ((x for x in ()), "generator"),
    "function": (print, "builtin_function_or_method"),
    "class": (int, "type"),
    "array": (np.zeros(3), "(3,)"),
    "empty array": (np.zeros(0), "(0,)"),
    "complex array": (np.array(1j), "complex"),
    "tensor": (torch.zeros(2, 3), "(2, 3)"),
    "empty tensor": (torch.zeros(0), "(0,)"),
    "complex tensor": (torch.tensor(1j), "complex64"),
    "meta tensor": (torch.zeros((), device="meta"), "meta"),
    "broken": (Broken(), "Broken"),
    "endless": (Endless(), "RecursionError"),
    "trap": (Trap(), "Trap"),
    "huge int": (10**5000, "bits"),
    "huge decimal": (Decimal("1e400"), "too large"),
    "huge fraction": (Fraction(10**400), "OverflowError"),
    "lone surrogate": ("\ud800", "surrogate"),
}


@pytest.mark.parametrize(("value", "stored"), KEPT.values(), ids=KEPT)
def test_a_number_is_kept(tmp_path: Path, value: object, stored: float) -> None:
    with tracer.init(project="values", **CALMLY):
        tracer.log({"value": value, "beside": 1.0}, step=3)  # type: ignore[dict-item]

    (row,) = rows(only_run(tmp_path / ".tracer"))
    assert row.step == 3
    assert {name: bits(found) for name, found in row.values.items()} == {"value": bits(stored), "beside": bits(1.0)}


@pytest.mark.parametrize(("value", "stored"), TYPED.values(), ids=TYPED)
def test_what_no_double_holds_is_kept_exactly(tmp_path: Path, value: object, stored: object) -> None:
    with tracer.init(project="values", **CALMLY):
        tracer.log({"value": value, "beside": 1.0}, step=3)  # type: ignore[dict-item]

    folder = only_run(tmp_path / ".tracer")
    assert typed(folder) == {"value": stored}
    assert [(row.step, row.values) for row in rows(folder)] == [(3, {"beside": 1.0})]


@pytest.mark.parametrize(("value", "said"), REFUSED.values(), ids=REFUSED)
def test_anything_else_is_refused_and_the_rest_is_kept(tmp_path: Path, value: object, said: str) -> None:
    with tracer.init(project="values", **CALMLY):
        with pytest.raises(TypeError) as caught:
            tracer.log({"before": 1.0, "value": value, "after": 2, "word": "x"}, step=3)
        tracer.log({"later": 1.0}, step=4)

    message = str(caught.value)
    assert "'value'" in message
    assert said in message
    assert "Log " in message or "Remove it" in message
    assert message.endswith("The other values of this call were recorded.")
    folder = only_run(tmp_path / ".tracer")
    assert [(row.step, row.values) for row in rows(folder)] == [(3, {"before": 1.0, "after": 2.0}), (4, {"later": 1.0})]
    assert typed(folder) == {"word": "x"}


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("", ValueError, "empty"),
        ("a\0b", ValueError, "cannot be stored"),
        ("\ud800", ValueError, "cannot be stored"),
        ("x" * 10_000_000, ValueError, "10000000 characters"),
        (3, TypeError, "names are text"),
        (None, TypeError, "names are text"),
        (("a", "b"), TypeError, "names are text"),
        (b"loss", TypeError, "names are text"),
    ],
    ids=["empty", "zero", "surrogate", "long", "int", "none", "tuple", "bytes"],
)
def test_what_is_no_name_is_refused(tmp_path: Path, name: object, error: type[Exception], said: str) -> None:
    with tracer.init(project="values", **CALMLY):
        for value in (1.0, 1, "text"):
            with pytest.raises(error, match=said):
                tracer.log({name: value})  # type: ignore[dict-item]
        tracer.log({"fine": 1.0})

    assert [row.values for row in rows(only_run(tmp_path / ".tracer"))] == [{"fine": 1.0}]


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "a\\b", "C:\\x", "..", ".", "con", "%2e%2e/x", "loss;DROP TABLE", "深い", "🙂" * 200,
     "e\u0301", "\u202eevil", "a\nb", " ", "x" * 1000, "-rf", "$(id)", "`id`", "a'b\"c"],
    ids=lambda name: ascii(name)[:20],
)  # fmt: skip
def test_an_odd_name_is_kept_and_never_a_path(tmp_path: Path, name: str) -> None:
    before = set(tmp_path.rglob("*"))

    with tracer.init(project=name, run_name=name, tags=[name], group=name, **CALMLY):
        tracer.log({name: 1.0, "text": name}, step=1)

    folder = only_run(tmp_path / ".tracer")
    assert [row.values for row in rows(folder)] == [{name: 1.0}]
    assert typed(folder) == {"text": name}
    written = set(tmp_path.rglob("*")) - before
    assert {path for path in written if not path.is_relative_to(tmp_path / ".tracer")} == set()
    assert {path.name for path in folder.parent.iterdir()} == {folder.name}
    assert set(folder.name) <= set("0123456789abcdef-")


def test_nested_dictionaries_are_flattened(tmp_path: Path) -> None:
    with tracer.init(project="values", **CALMLY):
        tracer.log({"val": {"loss": 0.5, "top": {"1": 1, "name": "x"}}, "loss": 2.0})

    folder = only_run(tmp_path / ".tracer")
    assert [row.values for row in rows(folder)] == [{"val/loss": 0.5, "val/top/1": 1.0, "loss": 2.0}]
    assert typed(folder) == {"val/top/name": "x"}


def test_a_dictionary_that_holds_itself_is_refused(tmp_path: Path) -> None:
    metrics: dict[str, object] = {"loss": 1.0}
    metrics["self"] = metrics

    with tracer.init(project="values", **CALMLY), pytest.raises(TypeError, match="does the dictionary hold itself"):
        tracer.log(metrics)

    assert rows(only_run(tmp_path / ".tracer"))[0].values["loss"] == 1.0


def test_a_long_text_is_kept(tmp_path: Path) -> None:
    text = "0123456789é" * 1_000_000

    with tracer.init(project="values", **CALMLY):
        tracer.log({"before": 1.0})
        tracer.log({"text": text})
        tracer.log({"after": 1.0})

    folder = only_run(tmp_path / ".tracer")
    assert typed(folder) == {"text": text}
    assert [list(row.values) for row in rows(folder)] == [["before"], ["after"]]


def test_what_was_logged_does_not_change_afterwards(tmp_path: Path) -> None:
    array, tensor, metrics = np.array(1.0), torch.tensor(1.0), {"loss": 1.0}

    with tracer.init(project="values", **CALMLY):
        tracer.log({"array": array, "tensor": tensor})
        tracer.log(metrics)
        array += 1
        tensor += 1
        metrics["loss"] = 2.0

    assert [row.values for row in rows(only_run(tmp_path / ".tracer"))] == [
        {"array": 1.0, "tensor": 1.0},
        {"loss": 1.0},
    ]


STEPS = [0, 1, -1, 2**40, 2**63 - 1, -(2**63), 5, 5, 4, 0]


def test_steps_come_in_any_order_and_size(tmp_path: Path) -> None:
    with tracer.init(project="steps", **CALMLY):
        for step in STEPS:
            tracer.log({"loss": float(step)}, step=step)

    assert [(row.step, row.values["loss"]) for row in rows(only_run(tmp_path / ".tracer"))] == [
        (step, float(step)) for step in STEPS
    ]


@pytest.mark.parametrize(
    "step", [True, 3.0, np.int64(3), np.uint8(3), torch.tensor(3)], ids=lambda step: type(step).__name__
)
def test_a_step_is_any_whole_number(tmp_path: Path, step: object) -> None:
    with tracer.init(project="steps", **CALMLY):
        tracer.log({"loss": 1.0}, step=step)  # type: ignore[arg-type]
        tracer.log({"word": "x", "loss": 1}, step=step)  # type: ignore[arg-type]

    assert {row.step for row in rows(only_run(tmp_path / ".tracer"))} == {int(step)}  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("step", "error", "said"),
    [
        (1.5, TypeError, "not a whole number"),
        (math.nan, TypeError, "not a whole number"),
        ("3", TypeError, "not a whole number"),
        ([1], TypeError, "not a whole number"),
        (2**63, ValueError, "64 bits"),
        (-(2**63) - 1, ValueError, "64 bits"),
        (10**30, ValueError, "64 bits"),
    ],
    ids=str,
)
def test_what_is_no_step_is_refused_before_anything_is_written(
    tmp_path: Path, step: object, error: type[Exception], said: str
) -> None:
    with tracer.init(project="steps", **CALMLY):
        tracer.log({"loss": 0.0}, step=0)
        for metrics in ({"loss": 1.0}, {"loss": 1}, {"word": "x", "loss": 1}):
            with pytest.raises(error, match=said):
                tracer.log(metrics, step=step)  # type: ignore[arg-type]
        tracer.log({"loss": 2.0}, step=2)

    folder = only_run(tmp_path / ".tracer")
    assert [row.values for row in rows(folder)] == [{"loss": 0.0}, {"loss": 2.0}]
    assert typed(folder) == {}


@pytest.mark.parametrize("argument", [None, 3.0, [("loss", 1.0)], "loss"], ids=repr)
def test_what_is_no_dictionary_is_refused(tmp_path: Path, argument: object) -> None:
    with tracer.init(project="values", **CALMLY):
        with pytest.raises(TypeError, match="dictionary"):
            tracer.log(argument)  # type: ignore[arg-type]
        tracer.log({"loss": 1.0})

    assert len(rows(only_run(tmp_path / ".tracer"))) == 1


def test_an_empty_call_records_nothing(tmp_path: Path) -> None:
    with tracer.init(project="values", **CALMLY):
        tracer.log({})
        tracer.log({"loss": 1.0})
        tracer.log({})

    assert [row.values for row in rows(runs(tmp_path / ".tracer")[0])] == [{"loss": 1.0}]
