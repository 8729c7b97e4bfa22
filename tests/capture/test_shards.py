"""Statistics of sharded models: those of the whole tensors, on two real processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.torch

#: Trains a small model, sharded or whole, and writes the layer values that this rank emitted.
PROGRAM = """
import json, os, sys
import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from tracer import sink
from tracer.capture.governor import Governor
from tracer.capture.watching import Watch, Watcher
from tracer.events import LayerValues

how, out = sys.argv[1], sys.argv[2]
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
dist.init_process_group("gloo")
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3, bias=False))
batches = torch.randn(6, 8, 5)
if how == "sharded":
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    mesh = init_device_mesh("cpu", (world,))
    fully_shard(model[0], mesh=mesh)
    fully_shard(model, mesh=mesh)
elif how == "replicated":
    model = nn.parallel.DistributedDataParallel(model)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
events = []
sink.listen(events.append)
governor = Governor(float(sys.argv[3]))
step = [0]
watcher = Watcher(governor, guard=sink.Guard(strict=True), step=lambda: step[0], wanted=lambda: False)
watcher.watch(model, Watch(activations=False, histograms=False))
for batch in batches.repeat(int(sys.argv[4]), 1, 1):
    mine = batch[rank::world] if how != "whole" else batch
    model(mine).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    step[0] += 1
watcher.stop()
said = [
    {"what": one.axis.what, "layers": one.axis.layers, "statistics": one.axis.statistics, "step": one.step,
     "values": np.frombuffer(bytes(one.matrix), np.float32).tolist()}
    for one in events if isinstance(one, LayerValues)
]
intervals = {name: one.interval for name, one in governor.instruments.items()}
json.dump({"said": said, "intervals": intervals}, open(f"{out}.{rank}", "w"))
dist.barrier()
dist.destroy_process_group()
"""


def run(tmp_path: Path, how: str, ranks: int, *, overhead: float = 1e9, epochs: int = 1) -> list[dict[str, Any]]:
    """Run the program on so many ranks; return what each of them wrote."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = tmp_path / f"{how}.json"
    shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-c", PROGRAM, how, str(out), str(overhead), str(epochs)]
    started = [
        subprocess.Popen(arguments, env={**os.environ, **shared, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True)
        for rank in range(ranks)
    ]
    said = [one.communicate(timeout=120)[1] for one in started]
    assert [one.returncode for one in started] == [0] * ranks, "\n".join(said)
    return [json.loads(Path(f"{out}.{rank}").read_text(encoding="utf-8")) for rank in range(ranks)]


def tables(said: list[dict[str, Any]], what: str) -> dict[int, dict[str, list[float]]]:
    """Return step → statistic → one value per layer."""
    found = {}
    for one in said:
        if one["what"] == what:
            matrix = np.array(one["values"]).reshape(len(one["statistics"]), -1)
            found[one["step"]] = dict(zip(one["statistics"], matrix.tolist(), strict=True))
    return found


def test_statistics_of_a_sharded_model_are_those_of_the_whole_model(tmp_path: Path) -> None:
    [whole] = run(tmp_path, "whole", 1)
    first, second = run(tmp_path, "sharded", 2)

    assert [one["layers"] for one in first["said"][:1]] == [["0.weight", "0.bias", "2.weight"]]
    for what in ("gradients", "weights"):
        expected, found = tables(whole["said"], what), tables(first["said"], what)
        assert list(found) == list(expected) == [0, 1, 2, 3, 4, 5]
        for step, statistics in expected.items():
            for statistic, values in statistics.items():
                np.testing.assert_allclose(found[step][statistic], values, rtol=2e-4, atol=1e-6, err_msg=statistic)
    assert second["said"] == []  # one rank speaks for all


def test_updates_and_optimizer_norms_of_a_sharded_model_are_those_of_the_whole_model(tmp_path: Path) -> None:
    [whole] = run(tmp_path, "whole", 1)
    first, _ = run(tmp_path, "sharded", 2)

    for what in ("updates", "optimizer"):
        expected, found = tables(whole["said"], what), tables(first["said"], what)
        assert list(found) == list(expected)
        for statistic, values in expected[3].items():
            np.testing.assert_allclose(found[3][statistic], values, rtol=2e-3, err_msg=f"{what} {statistic}")


def test_sharded_ranks_look_at_the_same_steps_however_dear_it_is(tmp_path: Path) -> None:
    first, second = run(tmp_path, "sharded", 2, overhead=0.02, epochs=20)

    assert first["intervals"] == second["intervals"]
    assert first["intervals"]["gradients"] > 1  # it was too dear for every step; nobody waited for the other


def test_of_replicas_the_first_one_speaks(tmp_path: Path) -> None:
    [whole] = run(tmp_path, "whole", 1)
    first, second = run(tmp_path, "replicated", 2)

    assert first["said"][0]["layers"] == ["0.weight", "0.bias", "2.weight"]
    np.testing.assert_allclose(
        tables(first["said"], "gradients")[5]["norm"], tables(whole["said"], "gradients")[5]["norm"], rtol=2e-4
    )
    assert second["said"] == []
