"""A training that goes to every back end at once; what it is told comes from the test, what it recorded goes back."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import tracer

STEPS = 200


def main() -> None:
    """Train, wait for a word between the last step and the end, finish."""
    options = json.loads(Path("options.json").read_text(encoding="utf-8"))
    run = tracer.init(
        project="everywhere",
        run_name="one",
        config={"lr": 0.125, "layers": 3, "optimizer": {"name": "adam"}},
        tags=["night", "good"],
        notes="all at once",
        backend=list(options),
        backend_options=options,
        finish_timeout_s=60.0,
        track_system_metrics=False,
        track_git=False,
        track_environment=False,
        track_code=False,
        quiet=True,
    )
    for step in range(STEPS):
        tracer.log({"loss": 1 / (step + 1), "acc/val": step / 8}, step=step)
    for step, value in enumerate((float("nan"), float("inf"), float("-inf"), -0.0, 1e-300, 2.0**53 + 2)):
        tracer.log({"odd": value}, step=step)
    tracer.log({"late": 1.0}, step=1000)
    tracer.log({"late": 2.0}, step=500)
    Path("model.txt").write_text("weights\n", encoding="utf-8")
    run.log_artifact("model.txt", name="model")
    print("recorded", flush=True)  # noqa: T201 -- the test reads it
    sys.stdin.readline()
    run.finish()
    until = time.monotonic() + 120  # a peer that begins slowly is served on after the end of the run
    while any(run.backend(name).state not in ("complete", "refused") for name in options) and time.monotonic() < until:
        time.sleep(0.1)
    states = {name: run.backend(name) for name in options}
    told = {name: [one.state, one.reason, dict(one.remote), one.sent, one.rejected] for name, one in states.items()}
    Path("states.json").write_text(json.dumps({"states": told, "run": run.run_id}), encoding="utf-8")


if __name__ == "__main__":
    main()
