"""Two ranks of which one gets a bad row: both see it, one is named, nobody waits for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.slow]


def test_the_rank_that_brought_the_fault_is_named_and_both_skip_the_step(tmp_path: Path) -> None:
    program = Path(__file__).resolve().parent / "ranks.py"
    environment = {**os.environ, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, program, tmp_path / f"run{rank}" / "capsules", tmp_path / "store"],
            env={**environment, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [rank.communicate(timeout=200) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], outputs
    zero, one = (json.loads(output) for output, _ in outputs)

    assert [finding[:3] for finding in zero["told"]] == [["nan_or_inf", 2, 0]]
    assert one["told"] == [["nan_or_inf", 2, 1, True, "step-2-nan_or_inf-rank1.trc"]]
    assert zero["told"][0][3] is not True
    assert (zero["capsules"], one["capsules"]) == (["step-2-nan_or_inf-rank0.trc"], ["step-2-nan_or_inf-rank1.trc"])
    assert zero["weights"] == one["weights"]
    assert all(weight < 1.0 for weight in zero["weights"])
