"""What a run runs in: Python, packages, platform, container, torch; called on a background thread.

Nothing is imported for it: packages are read from the names of their folders, and torch is asked only when the program
has loaded it. CUDA is never initialised.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import platform
import socket
import sys
from collections.abc import Iterator, Mapping
from types import ModuleType

from tracer.capture.cgroups import Cgroup
from tracer.capture.program import program
from tracer.capture.redaction import Redactor

_VARIABLES = (
    "CUDA_", "NVIDIA_", "NCCL_", "OMP_", "MKL_", "OPENBLAS_", "TORCH_", "TORCHELASTIC_", "PYTORCH_", "SLURM_",
    "TRACER_", "TRACELET_", "OTEL_", "WANDB_", "MLFLOW_", "HF_", "TRANSFORMERS_", "TOKENIZERS_", "CONDA_",
    "VIRTUAL_ENV", "PYTHON", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip
_LOCK_FILES = (
    "uv.lock", "poetry.lock", "pdm.lock", "pixi.lock", "Pipfile.lock", "pylock.toml", "requirements.txt",
    "constraints.txt", "environment.yml", "conda-lock.yml",
)  # fmt: skip
_JOBS = {
    "slurm": "SLURM_JOB_ID", "torchelastic": "TORCHELASTIC_RUN_ID", "ray": "RAY_JOB_ID", "pbs": "PBS_JOBID",
    "lsf": "LSB_JOBID", "kubernetes": "KUBERNETES_SERVICE_HOST",
}  # fmt: skip
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS", "OMP_PROC_BIND")
_MAX_LOCK_BYTES = 8 << 20


def environment_facts(redactor: Redactor | None = None) -> dict[str, object]:
    """Return what this process runs in.

    Args:
        redactor: What cuts secrets out of the command line and the variables.

    Returns:
        `python platform cpu memory container jobs command script program variables threads packages direct_urls
        lock_files torch redacted`; `torch` is None when the program has not loaded it, `redacted` lists the places
        where something was cut. The user's name is not among them.

    Example:
        >>> environment_facts()["python"]["implementation"]
        'CPython'
    """
    redactor = redactor or Redactor()
    running = program()
    group = Cgroup()
    return {
        "python": _python(),
        "platform": _platform(),
        "cpu": {
            "model": _cpu_model(),
            "count": os.cpu_count(),
            "allowed": _allowed_cpus(),
            "quota": group.cpu_quota(),
        },
        "memory": {"total_gb": _total_memory_gb(), "limit_gb": _gb(group.memory_limit())},
        "container": container(),
        "jobs": {name: os.environ[variable] for name, variable in _JOBS.items() if os.environ.get(variable)},
        "command": {
            "argv": redactor.arguments(sys.argv, "environment.command.argv"),
            "orig_argv": redactor.arguments(sys.orig_argv, "environment.command.orig_argv"),
            "folder": os.getcwd(),
        },
        "script": running.path,
        "program": {"kind": running.kind, "module": running.module},
        "variables": _variables(os.environ, redactor),
        "threads": _threads(),
        "packages": packages(),
        "direct_urls": _direct_urls(redactor),
        "lock_files": _lock_files(running.folder),
        "torch": _torch(),
        "redacted": redactor.found_in("environment."),
    }


def packages(path: list[str] | None = None) -> dict[str, str]:
    """Return installed distributions by name, with their versions; nothing is imported or parsed.

    Args:
        path: The folders to look in; `sys.path` when None.

    Returns:
        Name → version; the first folder wins, as it does for `import`.

    Example:
        >>> "pip" in packages() or "ml_tracer" in packages() or packages() == {}
        True
    """
    found: dict[str, str] = {}
    for folder in sys.path if path is None else path:
        try:
            entries = os.listdir(folder or ".")
        except OSError:  # a zip archive, or gone
            continue
        for entry in entries:
            stem, extension = os.path.splitext(entry)
            if extension in (".dist-info", ".egg-info"):
                name, _, version = stem.partition("-")
                found.setdefault(name, version.partition("-py")[0])
    return dict(sorted(found.items(), key=lambda item: item[0].lower()))


def container() -> str | None:
    """Return what kind of container this process runs in, if any.

    Returns:
        `docker`, `podman`, `kubernetes`, `apptainer` or None.

    Example:
        >>> container() in (None, "docker", "podman", "kubernetes", "apptainer")
        True
    """
    if "KUBERNETES_SERVICE_HOST" in os.environ:
        return "kubernetes"
    if "APPTAINER_NAME" in os.environ or "SINGULARITY_NAME" in os.environ:
        return "apptainer"
    if os.path.exists("/run/.containerenv"):
        return "podman"
    return "docker" if os.path.exists("/.dockerenv") else None


def _python() -> dict[str, object]:
    """Return which Python this is."""
    return {
        "version": platform.python_version(),
        "implementation": platform.python_implementation(),
        "build": sys.version,
        "executable": sys.executable,
        "virtual_environment": sys.prefix if sys.prefix != sys.base_prefix else None,
    }


def _platform() -> dict[str, object]:
    """Return which machine and system this is."""
    return {
        "name": platform.platform(),
        "system": platform.system(),
        "kernel": platform.release(),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()).strip(),
        "hostname": socket.gethostname(),
    }


def _cpu_model() -> str | None:
    """Return the processor's name."""
    line = next((line for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    return line.partition(":")[2].strip() or platform.processor() or None


def _allowed_cpus() -> int | None:
    """Return on how many processors this process may run."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _total_memory_gb() -> float | None:
    """Return the machine's memory."""
    fields = next((line.split() for line in _lines("/proc/meminfo") if line.startswith("MemTotal:")), None)
    return int(fields[1]) / (1 << 20) if fields else None


def _gb(size: int | None) -> float | None:
    """Return bytes in gibibytes."""
    return None if size is None else size / (1 << 30)


def _threads() -> dict[str, object]:
    """Return how many threads the numerical libraries are told to use, and how workers are started."""
    told = {name: os.environ.get(name) for name in _THREADS}
    multiprocessing = sys.modules.get("multiprocessing")
    method = multiprocessing.get_start_method(allow_none=True) if multiprocessing is not None else None
    return {**{name: value for name, value in told.items() if value}, "start_method": method}


def _direct_urls(redactor: Redactor) -> dict[str, str]:
    """Return where packages come from that no index has: a folder, a repository at a commit, an address."""
    found: dict[str, str] = {}
    for folder in sys.path:
        for path in sorted(glob.glob(os.path.join(glob.escape(folder or "."), "*.dist-info", "direct_url.json"))):
            name = os.path.basename(os.path.dirname(path)).partition("-")[0]
            try:
                with open(path, encoding="utf-8") as file:
                    said = json.load(file)
                commit = said.get("vcs_info", {}).get("commit_id")
                address = f"{said['url']}@{commit}" if commit else str(said["url"])
            except (OSError, ValueError, KeyError, AttributeError):  # written by hand, or gone
                continue
            found.setdefault(name, redactor.text(address, f"environment.direct_urls.{name}", random=False))
    return found


def _variables(environ: Mapping[str, str], redactor: Redactor) -> dict[str, object]:
    """Return the variables that steer training; all others stay unread."""
    return {
        name: redactor.named(name, value, f"environment.variables.{name}")
        for name, value in sorted(environ.items())
        if name.startswith(_VARIABLES)
    }


def _lock_files(folder: str) -> dict[str, str]:
    """Return the SHA-256 of each lock file beside the script."""
    hashes = {}
    for name in _LOCK_FILES:
        path = os.path.join(folder, name)
        try:
            if os.path.getsize(path) <= _MAX_LOCK_BYTES:
                with open(path, "rb") as file:
                    hashes[name] = hashlib.sha256(file.read()).hexdigest()
        except OSError:  # not there, as most are not
            continue
    return hashes


def _torch() -> dict[str, object] | None:
    """Return how torch was built and is set, if the program has loaded it completely."""
    torch = sys.modules.get("torch")
    if not isinstance(torch, ModuleType) or not hasattr(torch, "__version__") or not hasattr(torch, "backends"):
        return None
    try:
        cudnn = torch.backends.cudnn
        return {
            "version": str(torch.__version__),
            "cuda": torch.version.cuda,
            "hip": getattr(torch.version, "hip", None),
            "cudnn": cudnn.version() if torch.version.cuda else None,
            "threads": torch.get_num_threads(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "cudnn_deterministic": cudnn.deterministic,
            "cudnn_benchmark": cudnn.benchmark,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "tf32": torch.backends.cuda.matmul.allow_tf32,
            "cudnn_tf32": cudnn.allow_tf32,
            "interop_threads": torch.get_num_interop_threads(),
            "default_dtype": str(torch.get_default_dtype()),
        }
    except AttributeError:  # it is being imported at this moment, on another thread
        return None


def _lines(path: str) -> Iterator[str]:
    """Yield the lines of a small system file; none where it is absent."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            yield from file
    except OSError:
        return


__all__ = ["container", "environment_facts", "packages"]
