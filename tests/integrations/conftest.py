"""What the tests of the callbacks share: a tiny data set, and reading back what was recorded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

# Two cores are shared by all workers of the suite, and tiny models gain nothing from threads.
torch.set_num_threads(1)
# Lightning's hints about data loaders and cores, which are no facts about us.
os.environ.setdefault("POSSIBLE_USER_WARNINGS", "off")


class Recorded:
    """What the store holds of the newest run."""

    def __init__(self, path: Path, name: str = "@last") -> None:
        from tracer.storage import Store

        self._store = Store.open(path)
        self.row = self._store.run(name)

    def series(self, metric: str) -> dict[int, float]:
        """Return step → value."""
        series = self._store.series(self.row.uid, metric)
        return dict(zip(series.step.tolist(), series.value.tolist(), strict=True))

    def metrics(self) -> set[str]:
        """Return the names of all metrics but the system's."""
        return {row.metric for row in self._store.metrics(self.row.uid) if not row.metric.startswith("system/")}

    def norms(self) -> dict[int, dict[str, float]]:
        """Return step → layer → norm of the gradient."""
        layers = self._store.layers(self.row.uid, "norm")
        return {
            step: dict(zip(layers.layers, row, strict=True))
            for step, row in zip(layers.steps.tolist(), layers.values.tolist(), strict=True)
        }

    def runs(self) -> int:
        """Return how many runs the store holds."""
        return len(self._store.runs())


@pytest.fixture
def recorded(tmp_path: Path) -> type[Recorded]:
    """Return what reads the newest run of this test's store."""

    class Here(Recorded):
        def __init__(self, name: str = "@last") -> None:
            super().__init__(tmp_path / ".tracer", name)

    return Here
