"""The figures of the system, and the thread that takes them."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tracer import sink
from tracer.capture.cgroups import Cgroup
from tracer.capture.collector import Collector, SystemSampler
from tracer.capture.gpu import GPUs
from tracer.capture.system import SystemMetrics
from tracer.config import Config
from tracer.events import Scalars
from tracer.sink import Guard
from tracer.testing import FakeClock

GB = 1 << 30


@pytest.fixture
def heard() -> Iterator[list[object]]:
    """Listen to what is emitted."""
    events: list[object] = []
    before = sink.listen(events.append)
    yield events
    sink.listen(before)


class Calls(SystemSampler):
    """A sampler that counts, and fails when it is told to."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.count, self.fails, self.called = 0, fails, threading.Event()

    def sample(self) -> None:
        """Count."""
        self.count += 1
        self.called.set()
        if self.fails:
            message = "no figures today"
            raise OSError(message)


def test_the_figures_have_the_shape_of_the_documents() -> None:
    figures = SystemMetrics(Config()).capture()

    assert {"percent", "count", "process_percent"} <= figures["cpu"].keys()  # type: ignore[attr-defined]
    assert {"total_gb", "available_gb", "percent", "process_rss_gb"} <= figures["memory"].keys()  # type: ignore[attr-defined]
    assert isinstance(figures["timestamp"], float)


def test_memory_is_what_the_kernel_says() -> None:
    memory = SystemMetrics(cgroup="/nowhere").capture()["memory"]

    assert isinstance(memory, dict)
    assert memory["total_gb"] == pytest.approx(psutil.virtual_memory().total / GB)
    assert memory["process_rss_gb"] == pytest.approx(psutil.Process().memory_info().rss / GB, rel=0.1)


def test_without_psutil_the_same_figures_come_from_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = SystemMetrics()
    assert type(theirs._machine).__module__ == "tracer.capture.psutil_machine"
    monkeypatch.setitem(sys.modules, "tracer.capture.psutil_machine", None)
    ours = SystemMetrics()
    assert type(ours._machine).__module__ == "tracer.capture.proc"

    one, two = theirs.capture(), ours.capture()

    assert {group: figures.keys() for group, figures in one.items() if isinstance(figures, dict)} == {
        group: figures.keys() for group, figures in two.items() if isinstance(figures, dict)
    }
    for name in ("total_gb", "available_gb", "process_rss_gb", "tree_rss_gb", "tree_uss_gb"):
        assert two["memory"][name] == pytest.approx(one["memory"][name], rel=0.1), name  # type: ignore[index]
    for name in ("count", "allowed", "physical"):
        assert two["cpu"].get(name) == one["cpu"].get(name), name  # type: ignore[attr-defined]
    psutils, procs = theirs._machine, ours._machine
    assert procs.cpu() == pytest.approx(psutils.cpu(), rel=0.01)
    assert procs.network() == pytest.approx(psutils.network(), rel=0.1, abs=1 << 20)


def test_the_load_of_the_process_and_its_tree_is_what_they_took(clock: FakeClock) -> None:
    metrics = SystemMetrics()
    clock.advance(10.0)
    times = os.times()
    sum(number * number for number in range(2_000_000))
    done = os.times()

    cpu = metrics.capture()["cpu"]

    assert isinstance(cpu, dict)
    took = (done.user + done.system - times.user - times.system) * 10
    assert cpu["process_percent"] >= took * 0.9 > 0
    assert cpu["tree_percent"] >= cpu["process_percent"]


def test_what_the_process_holds_is_what_the_kernel_says() -> None:
    metrics = SystemMetrics()
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(open(os.devnull, encoding="utf-8"))
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
            most = len(psutil.Process().children(recursive=True))  # others, of earlier tests, may end meanwhile
            process = metrics.capture()["process"]
            least = len(psutil.Process().children(recursive=True))
            fds = len(os.listdir("/proc/self/fd"))
            child.communicate()

    assert isinstance(process, dict)
    assert process["fds"] == pytest.approx(fds, abs=3)
    assert process["fds"] >= 50
    assert process["fds_limit"] == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert process["threads"] == len(os.listdir("/proc/self/task"))
    assert 1 <= least <= process["children"] <= most


def test_the_limits_of_a_container_hold_wherever_above_they_stand(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("0::/job.slice/step_1\n")
    job, step = tmp_path / "job.slice", tmp_path / "job.slice" / "step_1"
    step.mkdir(parents=True)
    (job / "memory.max").write_text(f"{2 * GB}\n")
    (job / "memory.current").write_text(f"{GB}\n")
    (job / "memory.stat").write_text(f"inactive_file {GB // 2}\n")
    (job / "memory.events").write_text("low 0\noom 2\noom_kill 3\n")
    (job / "cpu.max").write_text("150000 100000\n")
    (job / "cpu.stat").write_text("usage_usec 5\nthrottled_usec 2500000\n")
    (step / "memory.max").write_text("max\n")
    (step / "cpu.max").write_text("max 100000\n")

    group = Cgroup(str(tmp_path), str(own))

    assert (group.memory_limit(), group.memory_taken(), group.out_of_memory_kills()) == (2 * GB, GB // 2, 3)
    assert (group.cpu_quota(), group.throttled_s()) == (1.5, 2.5)


def test_limits_of_the_first_version_are_read_too(tmp_path: Path) -> None:
    for folder, name, number in (
        ("memory", "memory.limit_in_bytes", GB), ("memory", "memory.usage_in_bytes", GB // 2),
        ("cpu", "cpu.cfs_quota_us", 50_000), ("cpu", "cpu.cfs_period_us", 100_000),
    ):  # fmt: skip
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / name).write_text(f"{number}\n")

    group = Cgroup(str(tmp_path), "/nowhere")

    assert (group.memory_limit(), group.memory_taken(), group.cpu_quota()) == (GB, GB // 2, 0.5)


def test_the_flat_names_of_the_other_documents_are_there() -> None:
    flat = SystemMetrics().flat()

    assert flat.keys() >= {
        "platform", "python_version", "cpu_count", "cpu_count_physical", "memory_total", "hostname", "cpu_percent",
        "memory_percent", "memory_available",
    }  # fmt: skip
    assert flat["cpu_count"] == os.cpu_count()


def test_each_processor_is_told_on_request() -> None:
    cpu = SystemMetrics(per_core=True).capture()["cpu"]

    assert isinstance(cpu, dict)
    assert len(cpu["cores"]) == os.cpu_count()


def test_a_capture_never_sleeps(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = SystemMetrics()

    def refuse(seconds: float) -> None:
        message = f"slept {seconds} s"
        raise AssertionError(message)

    monkeypatch.setattr("time.sleep", refuse)
    metrics.capture()


def test_in_a_container_its_limit_is_the_total(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text(f"{GB}\n")
    (tmp_path / "memory.current").write_text(f"{GB * 3 // 4}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {GB // 4}\n")

    memory = SystemMetrics(cgroup=str(tmp_path)).capture()["memory"]

    assert isinstance(memory, dict)
    assert (memory["total_gb"], memory["available_gb"], memory["percent"]) == (1.0, 0.5, 50.0)


def test_the_memory_of_children_belongs_to_the_tree() -> None:
    program = "import sys; block = b'x' * (100 << 20); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        memory = SystemMetrics().capture()["memory"]
        child.communicate()

    assert isinstance(memory, dict)
    assert memory["tree_rss_gb"] - memory["process_rss_gb"] > 0.09


def test_the_disk_is_that_of_the_store_even_before_the_store_is_there(tmp_path: Path) -> None:
    disk = SystemMetrics(Config(storage_path=str(tmp_path / "a" / "b"))).capture()["disk"]

    assert isinstance(disk, dict)
    assert disk["free_gb"] == pytest.approx(psutil.disk_usage(str(tmp_path)).free / GB, rel=0.1)


def test_a_sample_is_emitted_as_metrics_and_kept_as_the_latest(heard: list[object]) -> None:
    sampler = SystemSampler()

    sampler.sample()

    (event,) = heard
    assert isinstance(event, Scalars)
    assert sampler.latest is not None
    assert event.values["system/memory/percent"] == sampler.latest["memory"]["percent"]  # type: ignore[index]
    assert {"system/cpu/percent", "system/cpu/process_percent", "system/memory/process_rss_gb"} <= event.values.keys()
    assert all(isinstance(value, (int, float)) for value in event.values.values())


def test_psutil_is_loaded_by_the_first_sample_and_not_before() -> None:
    program = (
        "import sys; from tracer.capture.collector import Collector; collector = Collector(); "
        "print('psutil' in sys.modules); collector.start(); collector.stop(30.0); print('psutil' in sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["False", "True"]


def test_the_collector_samples_at_once_and_a_last_time() -> None:
    sampler = Calls()
    collector = Collector(3600.0, sampler=sampler)
    collector.start()
    collector.start()
    assert sampler.called.wait(30.0)

    assert collector.stop(30.0)
    assert (sampler.count, collector.is_running) == (2, False)


def test_the_collector_samples_at_its_interval() -> None:
    sampler = Calls()
    collector = Collector(0.001, sampler=sampler)
    collector.start()
    while sampler.count < 5:
        sampler.called.clear()
        assert sampler.called.wait(30.0)

    assert collector.stop(30.0)


def test_a_collector_that_only_fails_gives_up_and_says_it_once(capsys: pytest.CaptureFixture[str]) -> None:
    sampler, guard = Calls(fails=True), Guard()
    collector = Collector(0.0, sampler=sampler, guard=guard)
    collector.start()
    assert collector._thread is not None
    collector._thread.join(30.0)

    assert sampler.count == 10
    assert guard.counters.nonzero() == {"internal_errors": 10}
    assert capsys.readouterr().err.count("no figures today") == 1


def test_stopping_does_not_wait_for_a_sample_that_hangs() -> None:
    free = threading.Event()

    class Hanging(SystemSampler):
        def sample(self) -> None:
            free.wait(60.0)

    collector = Collector(3600.0, sampler=Hanging())
    collector.start()

    assert not collector.stop(0.01)
    free.set()


def test_a_forked_child_has_no_thread_and_can_start_one() -> None:
    program = """
import os
from tracer.capture.collector import Collector
collector = Collector(3600.0)
collector.start()
child = os.fork()
if not child:
    before = collector.is_running
    collector.start()
    os._exit(0 if (before, collector.is_running, collector.stop(30.0)) == (False, True, True) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), collector.is_running)
"""

    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "0 True\n"


def test_torch_is_asked_for_memory_only_where_cuda_is_running(monkeypatch: pytest.MonkeyPatch) -> None:
    running = [False]
    cuda = types.SimpleNamespace(
        is_initialized=lambda: running[0],
        device_count=lambda: 1,
        get_device_name=lambda index: f"Card {index}",
        memory_allocated=lambda index: GB * (index + 1),
        memory_reserved=lambda index: 2 * GB * (index + 1),
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    gpus = GPUs()
    gpus._looked = True  # no driver here

    assert gpus.figures() == {}
    running[0] = True
    assert gpus.figures() == {"gpu_0": {"name": "Card 0", "memory_allocated_gb": 1.0, "memory_reserved_gb": 2.0}}


class Driver(types.ModuleType):
    """NVIDIA's library on a machine of two devices, of which the second tells no power."""

    NVML_TEMPERATURE_GPU = 0

    class NVMLError(Exception):
        """What the library raises."""

    def __init__(self) -> None:
        super().__init__("pynvml")

    def nvmlInit(self) -> None:  # noqa: N802 -- its name there
        """Open."""

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 -- its name there
        """Count."""
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802 -- its name there
        """Find."""
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802 -- its name there
        """Find by name."""
        return int(uuid[-1])

    def nvmlDeviceGetUUID(self, handle: int) -> str:  # noqa: N802 -- its name there
        """Tell the name that stays."""
        return f"GPU-uuid-{handle}"

    def nvmlDeviceGetName(self, handle: int) -> bytes:  # noqa: N802 -- its name there
        """Name."""
        return f"Card {handle}".encode()

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> types.SimpleNamespace:  # noqa: N802 -- its name there
        """Tell memory."""
        return types.SimpleNamespace(used=GB * (handle + 1), total=4 * GB)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> types.SimpleNamespace:  # noqa: N802 -- its name there
        """Tell load."""
        return types.SimpleNamespace(gpu=10 * handle)

    def nvmlDeviceGetTemperature(self, handle: int, sensor: int) -> int:  # noqa: N802 -- its name there
        """Tell heat."""
        return 40 + handle + sensor

    def nvmlDeviceGetPowerUsage(self, handle: int) -> int:  # noqa: N802 -- its name there
        """Tell power."""
        if handle:
            raise self.NVMLError
        return 250_000


def test_the_driver_is_asked_for_the_devices_the_program_sees(
    monkeypatch: pytest.MonkeyPatch, heard: list[object]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", Driver())
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-uuid-1,0")
    sampler = SystemSampler()

    sampler.sample()

    assert sampler.latest is not None
    gpu = sampler.latest["gpu"]
    assert isinstance(gpu, dict)
    assert gpu["gpu_0"]["name"] == "Card 1"
    assert gpu["gpu_0"]["memory_util"] == 50.0
    assert "power_w" not in gpu["gpu_0"]
    assert gpu["gpu_1"]["power_w"] == 250.0
    assert [gpu[name]["uuid"] for name in ("gpu_0", "gpu_1")] == ["GPU-uuid-1", "GPU-uuid-0"]
    (event,) = heard
    assert isinstance(event, Scalars)
    assert event.values["system/gpu/0/memory_used_gb"] == 2.0
    assert event.values["system/gpu/1/temperature"] == 40.0


def test_a_driver_that_is_reset_is_said_once_and_asked_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    gpus = GPUs()
    assert len(gpus.figures()) == 2

    def gone() -> int:
        message = "GPU is lost"
        raise Driver.NVMLError(message)

    monkeypatch.setattr(driver, "nvmlDeviceGetCount", gone)
    monkeypatch.setattr(driver, "nvmlShutdown", lambda: None, raising=False)
    first, second = gpus.figures(), gpus.figures()
    monkeypatch.delattr(driver, "nvmlDeviceGetCount")

    assert (first, second, len(gpus.figures())) == ({}, {}, 2)
    assert capsys.readouterr().err.count("GPU is lost") == 1


def test_devices_are_found_by_the_names_that_torch_has_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = types.SimpleNamespace(
        is_initialized=lambda: True,
        device_count=lambda: 2,
        get_device_name=lambda index: f"Card {index}",
        memory_allocated=lambda _: 0,
        memory_reserved=lambda _: 0,
        get_device_properties=lambda index: types.SimpleNamespace(uuid=f"uuid-{1 - index}"),  # CUDA counts otherwise
    )
    monkeypatch.setitem(sys.modules, "torch", types.SimpleNamespace(cuda=cuda))
    monkeypatch.setitem(sys.modules, "pynvml", Driver())

    figures = GPUs().figures()

    assert [figures[f"gpu_{index}"]["uuid"] for index in (0, 1)] == ["GPU-uuid-1", "GPU-uuid-0"]


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="has a GPU")
def test_a_machine_without_gpu_has_no_figures_of_it() -> None:
    assert GPUs().figures() == {}
