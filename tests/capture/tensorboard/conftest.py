"""What the tests of TensorBoard share: both packages, what was heard, what TensorBoard itself reads in its files."""

# ruff: noqa: ANN401 -- the packages decide what they hand over, and of what type

from __future__ import annotations

import importlib
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorboard", reason="needs tensorboard")
pytest.importorskip("tensorboardX", reason="needs tensorboardX")

from tracer.capture.patching import patches
from tracer.storage import Store
from tracer.testing import capture_events

PACKAGES = {"torch": "torch.utils.tensorboard", "tensorboardX": "tensorboardX"}


@pytest.fixture(params=PACKAGES)
def package(request: pytest.FixtureRequest) -> Any:
    """Return one of the packages; the test runs with each."""
    return importlib.import_module(PACKAGES[request.param])


@pytest.fixture
def heard(package: Any) -> Iterator[list[Any]]:  # noqa: ARG001 -- it is imported by then
    """Listen, and give what was heard."""
    patches.start(["tensorboard"])
    with capture_events() as events:
        yield events
    patches.stop()


@pytest.fixture
def writer(package: Any, tmp_path: Path) -> Iterator[Any]:
    """Give a writer of the package."""
    with package.SummaryWriter(str(tmp_path / "log")) as made:
        yield made


class EventFiles:
    """What TensorBoard's own reader finds below a folder; nothing is thinned out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def scalars(self) -> dict[str, list[tuple[int, float, float]]]:
        """Return tag → step, value and time, in order; the parts of `add_scalars` as `main/key`."""
        from tensorboard.backend.event_processing import event_accumulator as reading
        from tensorboard.util.tensor_util import make_ndarray

        found: dict[str, list[tuple[int, float, float]]] = {}
        for folder in sorted({path.parent for path in self._folder.rglob("*tfevents*")}):
            reader = reading.EventAccumulator(
                str(folder), size_guidance=dict.fromkeys(reading.DEFAULT_SIZE_GUIDANCE, 0)
            )
            reader.Reload()
            for tag in reader.Tags()["scalars"]:
                name = self._name(folder, tag)
                found.setdefault(name, []).extend((one.step, one.value, one.wall_time) for one in reader.Scalars(tag))
            for tag in reader.Tags()["tensors"]:
                if reader.SummaryMetadata(tag).plugin_data.plugin_name == "scalars":
                    found.setdefault(tag, []).extend(
                        (one.step, float(make_ndarray(one.tensor_proto).reshape(-1)[0]), one.wall_time)
                        for one in reader.Tensors(tag)
                    )
        return found

    def _name(self, folder: Path, tag: str) -> str:
        below = f"/{folder.relative_to(self._folder).as_posix()}"
        for begin in (f"/{tag.replace('/', '_')}_", f"/{tag}/"):
            if begin in below:
                return f"{tag}/{below.partition(begin)[2]}"
        return tag

    def timeless(self) -> dict[str, list[bytes]]:
        """Return the records of each folder's files, with the times taken out."""
        from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
        from tensorboard.compat.proto.event_pb2 import Event

        found: dict[str, list[bytes]] = {}
        for path in sorted(self._folder.rglob("*tfevents*")):
            records = found.setdefault(path.parent.relative_to(self._folder).as_posix(), [])
            for record in RawEventFileLoader(str(path)).Load():
                event = Event.FromString(record)
                event.wall_time = 0.0
                records.append(event.SerializeToString(deterministic=True))
        return found


@pytest.fixture
def event_files() -> type[EventFiles]:
    """Return what reads the event files below a folder."""
    return EventFiles


@pytest.fixture
def recorded() -> Callable[[Path], dict[str, list[tuple[int, float, float]]]]:
    """Return what reads the scalars of the newest run below a folder: name → step, value and time."""

    def read(folder: Path) -> dict[str, list[tuple[int, float, float]]]:
        store = Store.open(folder / ".tracer")
        uid = store.run("@last").uid
        names = [row.metric for row in store.metrics(uid) if not row.metric.startswith(("system/", "tracer/"))]
        found = {}
        for name in names:
            series = store.series(uid, name)
            times = [time / 1e6 for time in series.time.tolist()]
            found[name] = list(zip(series.step.tolist(), series.value.tolist(), times, strict=True))
        return found

    return read


@pytest.fixture
def bits() -> Callable[[float], bytes]:
    """Return what makes numbers comparable that are none."""
    return lambda value: struct.pack("<d", value)
