"""What the flight recorder costs: a GPT's training step with the recorder and without, in turns, by thread CPU time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TypedDict

from figures import Spread, number, percent
from fresh import fresh, scratch
from report import progress, reporting

_WIDTH, _VOCABULARY, _LENGTH, _BATCH, _LAYERS, _HEADS = 256, 1000, 64, 8, 4, 4
_ORDER = (True, False, False, True)
#: How the gradient's norm is known, and what is recorded: name, whether the program clips, settings of the recorder.
_CASES: tuple[tuple[str, bool, dict[str, object]], ...] = (
    ("the program clips", True, {}),
    ("the program clips, gradients of outputs are not kept", True, {"upstream": "off"}),
    ("the recorder computes the norm", False, {}),
)


class Measured(TypedDict):
    """CPU of the training thread in ms for each step, and what the recorder says of itself."""

    recorded: list[float]
    bare: list[float]
    own_us: float


def training(case: int, rounds: int, block: int) -> Measured:
    """Train in blocks, with a recorder and without."""
    import torch
    from torch import nn

    from tracer import clock
    from tracer.flight.recorder import FlightRecorder
    from tracer.flight.settings import FlightConfig

    clock.monotonic = time.thread_time  # so that what a neighbour takes from us is not in the hooks' own account
    _, clips, settings = _CASES[case]
    torch.set_num_threads(1)
    torch.manual_seed(1)
    layer = nn.TransformerEncoderLayer(_WIDTH, _HEADS, 4 * _WIDTH, 0.1, batch_first=True, norm_first=True)
    model = nn.Sequential(
        nn.Embedding(_VOCABULARY, _WIDTH),
        nn.TransformerEncoder(layer, _LAYERS, enable_nested_tensor=False),
        nn.Linear(_WIDTH, _VOCABULARY),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    text = torch.randint(0, _VOCABULARY, (_BATCH, _LENGTH + 1))

    def step() -> None:
        optimizer.zero_grad()
        logits = model(text[:, :-1])
        loss = nn.functional.cross_entropy(logits.reshape(-1, _VOCABULARY), text[:, 1:].reshape(-1))
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not say
        if clips:
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    taken: dict[bool, list[float]] = {True: [], False: []}
    own, steps = 0.0, 0
    _block(step, 5)
    for recorded in _ORDER * rounds:
        if recorded:
            with FlightRecorder(model, optimizer, FlightConfig(**settings)) as recorder:  # type: ignore[arg-type]  # by name
                _block(step, 3)
                before = recorder.cost_s
                taken[True] += _block(step, block)
                own, steps = own + recorder.cost_s - before, steps + block
        else:
            _block(step, 3)
            taken[False] += _block(step, block)
    return {"recorded": taken[True], "bare": taken[False], "own_us": 1e6 * own / steps}


def _block(step: Callable[[], None], count: int) -> list[float]:
    """Return the CPU time of each step in ms."""
    taken = []
    for _ in range(count):
        spent = time.thread_time_ns()
        step()
        taken.append((time.thread_time_ns() - spent) / 1e6)
    return taken


def main() -> None:
    """Measure, print."""
    how = (
        f"A transformer of {_LAYERS} layers (width {_WIDTH}, vocabulary {_VOCABULARY:,}, {_BATCH} texts of {_LENGTH}) "
        "trains on one core, in blocks with a flight recorder and in blocks without, alternating in one process; CPU "
        "time of the training thread. `Inside` is the part of it that passes within the recorder's hooks."
    )
    with reporting("flight", "The flight recorder at each step", how) as report, scratch("flight") as folder:
        rounds, block = (1, 20) if report.quick else (4, 40)
        table = report.table(
            "", "case", "bare step, ms", "more at the minimum", "more at the median", "inside, µs", "share"
        )
        for case, (name, _, _) in enumerate(_CASES):
            progress(f"flight: {name}")
            found = fresh(training, case, rounds, block, folder=folder)
            recorded, bare = Spread.of(found["recorded"]), Spread.of(found["bare"])
            table.add(
                name,
                number(statistics.median(found["bare"])),
                percent(recorded.min / bare.min),
                percent(recorded.median / bare.median),
                number(found["own_us"]),
                percent(1 + found["own_us"] / 1e3 / bare.median),
            )


if __name__ == "__main__":
    main()
