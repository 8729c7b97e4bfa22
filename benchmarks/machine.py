"""What a figure was measured on: processor, load, versions, date."""

from __future__ import annotations

import contextlib
import datetime as dt
import importlib.metadata
import os
import platform
from pathlib import Path

_PACKAGES = ("torch", "numpy", "duckdb", "tensorboard", "wandb", "trackio")


def processor() -> str:
    """Return how many cores of which processor this process may use."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if os.path.exists("/proc/cpuinfo") else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(os.sched_getaffinity(0))} cores of {names[0] if names else platform.machine()}"


def memory_gib() -> int:
    """Return how much memory the machine has."""
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)


def load() -> float:
    """Return how many processes wanted to run, on average over the last minute."""
    return round(os.getloadavg()[0], 2)


def now() -> str:
    """Return date and time in UTC, to the minute."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC")


def versions() -> dict[str, str]:
    """Return the versions of everything that was measured."""
    import tracer

    found = {"tracer": tracer.__version__, "Python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # the peers are there for `make bench` only
            found[package] = importlib.metadata.version(package)
    return found


def facts() -> dict[str, object]:
    """Return everything that belongs beside a figure."""
    return {
        "processor": processor(),
        "memory_gib": memory_gib(),
        "kernel": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "versions": versions(),
        "date": now(),
    }
