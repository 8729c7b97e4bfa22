"""What the tests of Keras, scikit-learn and the boosting packages share: running programs and reading runs back."""

# ruff: noqa: ANN401 -- options of programs

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from programs import run as run_program

from tracer import events, runfile
from tracer.capture.patching import patches
from tracer.capture.sklearn_calls import forget
from tracer.capture.trainings import trainings
from tracer.storage import Store
from tracer.testing import capture_events

#: How a program is started that knows nothing of Tracer.
UNCHANGED = [sys.executable, "-m", "tracer", "run"]


class Run:
    """What the store of a folder holds of its newest run."""

    def __init__(self, path: Path | str = ".tracer") -> None:
        self.store = Store.open(path)
        self.row = self.store.run("@last")

    def series(self, metric: str) -> dict[int, float]:
        """Return step → value."""
        series = self.store.series(self.row.uid, metric)
        return dict(zip(series.step.tolist(), series.value.tolist(), strict=True))

    def values(self, metric: str) -> list[float]:
        """Return the values in the order of their steps."""
        return list(self.series(metric).values())

    def metrics(self) -> set[str]:
        """Return the names of all metrics but the system's."""
        return {row.metric for row in self.store.metrics(self.row.uid) if not row.metric.startswith("system/")}

    def facts(self) -> dict[str, Any]:
        """Return what `run.json` says."""
        return runfile.read(next((Path(".tracer") / "runs").glob(f"{self.row.uid}*")))

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the fields of all events of a name, in their order."""
        said = "SELECT fields FROM logs WHERE kind = 'event' AND name = '{}' ORDER BY time"
        return [json.loads(fields) for (fields,) in self.store.sql(said.format(name)).rows]


def recorded(program: str, *arguments: object, **options: Any) -> tuple[Run, str]:
    """Run a program that knows nothing of Tracer under `tracer run`; return its run and what it printed."""
    done = run_program(program, *arguments, before=UNCHANGED, **options)
    return Run(), done.stdout


@contextmanager
def listening(*names: str) -> Iterator[list[Any]]:
    """Listen to frameworks for a block, as in a process that has just begun."""
    trainings.forget()
    forget()
    patches.start(names)
    try:
        with capture_events() as heard:
            yield heard
    finally:
        patches.stop()


def of(heard: list[Any], kind: type) -> list[Any]:
    """Return the events of one kind."""
    return [event for event in heard if type(event) is kind]


def curve(heard: list[Any], name: str) -> dict[int, float]:
    """Return step → value of a series among events."""
    return {event.step: event.values[name] for event in of(heard, events.Scalars) if name in event.values}


def entries(heard: list[Any], name: str) -> list[dict[str, Any]]:
    """Return the fields of the entries of a name."""
    return [event.fields for event in of(heard, events.Entry) if event.name == name]


def summary(heard: list[Any]) -> dict[str, Any]:
    """Return the values that were told for the summary."""
    found: dict[str, Any] = {}
    for event in of(heard, events.Metadata):
        found.update(event.changes.get("summary", {}))
    return found
