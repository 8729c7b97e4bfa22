"""Ten million points as training makes them: 20 runs of 5 metrics, 100,000 steps each, from a fixed seed.

Three metrics are born as float32, one is a smooth cosine in float64, one fills its mantissa. A step takes 50 ms,
give or take 2 ms: that is what times cost at rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Columns = dict[str, npt.NDArray[np.float64]]

METRICS = ("train/loss", "train/accuracy", "train/grad_norm", "train/lr", "train/throughput")
RUNS, STEPS = 20, 100_000
_STARTED = 1_750_000_000.0


def columns(number: int, steps: int) -> Columns:
    """Return the values of one run, and under an empty name the times of its steps."""
    import numpy as np

    random = np.random.default_rng(number)
    at = np.arange(steps)
    falling = np.exp(-at / (0.3 * steps))
    born_small = {
        "train/loss": 0.3 + 2.2 * falling + 0.05 * random.standard_normal(steps),
        "train/accuracy": 1 - 0.9 * falling + 0.01 * random.standard_normal(steps),
        "train/grad_norm": np.exp(0.4 * random.standard_normal(steps)) * (0.5 + falling),
    }
    times = _STARTED + 86_400 * number + np.cumsum(0.05 + 0.002 * random.standard_normal(steps))
    return {
        **{name: values.astype(np.float32).astype(np.float64) for name, values in born_small.items()},
        "train/lr": 1.5e-4 * (1 + np.cos(np.pi * at / steps)),
        "train/throughput": 1e5 * (1 + 0.05 * random.random(steps)),
        "": times,
    }


def rows(number: int, steps: int) -> Iterator[tuple[int, float, dict[str, float]]]:
    """Yield step, time and values, as Python's own numbers."""
    made = columns(number, steps)
    times = made.pop("").tolist()
    lists = [made[name].tolist() for name in METRICS]
    for step, (time, *values) in enumerate(zip(times, *lists, strict=True)):
        yield step, time, dict(zip(METRICS, values, strict=True))


def record(number: int, steps: int, store: str) -> int:
    """Write one run through the real recorder; return the bytes of its journal."""
    import tracer

    run = tracer.init(
        project="ten-million",
        run_name=f"run-{number:02d}",
        storage_path=store,
        maintain="off",
        track_system_metrics=False,
        track_git=False,
        track_environment=False,
        quiet=True,
    )
    # Not `log`, which would stamp the time of now: what comes in a tight loop has times that cost nothing.
    put = run.recorder.row
    for step, time, values in rows(number, steps):
        put(values, step, time)
    run.finish()
    return sum(path.stat().st_size for path in Path(run.folder, "journal").iterdir())


def record_with(which: str, steps: int, folder: str) -> None:
    """Write the first run through a peer, which stamps its own times."""
    from contestants import CONTESTANTS

    log, finish = CONTESTANTS[which].open(Path(folder))
    for step, _, values in rows(0, steps):
        log(values, step=step)
    finish()
