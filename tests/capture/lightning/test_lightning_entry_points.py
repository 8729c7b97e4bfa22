"""What our entry points name: nothing until capture is on, then one callback, and never an exception."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path

import programs  # type: ignore[import-not-found]  # found on the path of the suite
import pytest

from tracer.capture import lightning_factories
from tracer.capture.lightning_callback import CapturingCallback
from tracer.capture.lightning_fabric import FabricCallback
from tracer.capture.patching import patches

GROUPS = {
    "lightning.pytorch.callbacks_factory": "trainer_callbacks",
    "pytorch_lightning.callbacks_factory": "trainer_callbacks",
    "lightning.fabric.callbacks_factory": "fabric_callbacks",
    "lightning_fabric.callbacks_factory": "fabric_callbacks",
}


@pytest.fixture
def distribution(tmp_path: Path) -> Path:
    """Return a folder with a distribution that declares what ours does; to be put on the path."""
    folder = tmp_path / "site" / "declares_tracer-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: declares-tracer\nVersion: 1.0\n", encoding="utf-8")
    rows = [f"[{group}]\ndeclared = tracer.capture.lightning_factories:{maker}\n" for group, maker in GROUPS.items()]
    (folder / "entry_points.txt").write_text("\n".join(rows), encoding="utf-8")
    return folder.parent


def test_our_own_distribution_declares_all_four_groups() -> None:
    root = Path(__file__).resolve().parents[3]
    declared = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["entry-points"]

    assert {group: declared[group] for group in GROUPS} == {
        group: {"tracer": f"tracer.capture.lightning_factories:{maker}"} for group, maker in GROUPS.items()
    }


def test_they_give_nothing_until_capture_is_on() -> None:
    assert lightning_factories.trainer_callbacks() == lightning_factories.fabric_callbacks() == []

    patches.start(["tensorboard"])
    assert lightning_factories.trainer_callbacks() == lightning_factories.fabric_callbacks() == []

    patches.start(["lightning"])
    assert [type(one).__mro__[1] for one in lightning_factories.trainer_callbacks()] == [CapturingCallback]
    assert [type(one) for one in lightning_factories.fabric_callbacks()] == [FabricCallback]


def test_a_failure_of_ours_gives_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    patches.start(["lightning"])
    monkeypatch.setitem(sys.modules, "tracer.capture.lightning_callback", None)

    assert lightning_factories.trainer_callbacks() == []
    assert "Your program is unaffected." in capsys.readouterr().err


def test_lightning_finds_them_under_each_of_its_names(distribution: Path) -> None:
    done = programs.run(
        """
        import json, sys, warnings
        warnings.simplefilter("ignore")
        sys.path.insert(0, sys.argv[1])
        import lightning.pytorch, pytorch_lightning, lightning.fabric
        from lightning_fabric import Fabric as OtherFabric

        def ours():
            found = {}
            for made in (lightning.pytorch.Trainer, pytorch_lightning.Trainer):
                callbacks = made(accelerator="cpu", logger=False, enable_checkpointing=False).callbacks
                found[made.__module__] = [type(one).__name__ for one in callbacks if "racer" in type(one).__module__]
            for made in (lightning.fabric.Fabric, OtherFabric):
                callbacks = made(accelerator="cpu")._callbacks
                found[made.__module__] = [type(one).__name__ for one in callbacks]
            return found

        heavy = {"tracer.capture.patching", "tracer.capture.lightning", "tracer.run"}
        silent, loaded = ours(), sorted(heavy & set(sys.modules))
        from tracer.capture.patching import patches
        patches.start(["lightning"])
        print(json.dumps({"silent": silent, "loaded": loaded, "asked for": ours()}))
        """,
        distribution,
        env={"POSSIBLE_USER_WARNINGS": "off"},
    )

    said = json.loads(done.stdout.splitlines()[-1])
    assert said["loaded"] == []
    assert set(map(tuple, said["silent"].values())) == {()}
    for module, callbacks in said["asked for"].items():
        # Twice where our own distribution is installed with its entry points too; the first records.
        assert set(callbacks) == {"FabricCallback" if "fabric" in module else "CapturingCallback"}
