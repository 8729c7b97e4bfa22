"""Who is writing: host, process, rank; stored in the header of every journal segment."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

import os
import socket
import sys

from tracer import clock
from tracer.version import __version__

#: The launchers' names for the same three numbers, the most specific first.
_RANK = ("RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMI_RANK")
_LOCAL_RANK = ("LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID")
_WORLD_SIZE = ("WORLD_SIZE", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


class Place:
    """Where this process stands in its job."""

    __slots__ = ("attempt", "local_rank", "rank", "world_size")

    def __init__(self, rank: int = 0, local_rank: int = 0, world_size: int = 1, attempt: int = 1) -> None:
        self.rank, self.local_rank, self.world_size, self.attempt = rank, local_rank, world_size, attempt

    @classmethod
    def here(cls, environ: Mapping[str, str] | None = None) -> Place:
        """Read the place from the process group if torch has one, else from the launcher's environment."""
        environ = os.environ if environ is None else environ
        rank, size = _first(environ, _RANK, 0), _first(environ, _WORLD_SIZE, 1)
        distributed = sys.modules.get("torch.distributed")
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            rank, size = distributed.get_rank(), distributed.get_world_size()
        attempt = 1 + _first(environ, ("TORCHELASTIC_RESTART_COUNT",), 0)
        return cls(rank, _first(environ, _LOCAL_RANK, 0), max(size, 1), attempt)


def job_key(environ: Mapping[str, str] | None = None) -> str:
    """Return what all ranks of one job have in common without talking to each other; empty outside a job."""
    environ = os.environ if environ is None else environ
    if _first(environ, _WORLD_SIZE, 1) == 1:
        return ""
    elastic = environ.get("TORCHELASTIC_RUN_ID", "none")
    if elastic != "none":
        return f"elastic {elastic}"
    if "SLURM_PROCID" in environ and "RANK" not in environ:
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        return " ".join(["slurm", *(environ.get(name, "0") for name in names)])
    # Ranks started by one launcher on one machine share its process; its start time tells two jobs apart.
    # Lightning's first rank starts the others itself, and names no RANK.
    starts_others = "RANK" not in environ and "NODE_RANK" in environ and environ.get("LOCAL_RANK") == "0"
    parent = os.getpid() if starts_others else os.getppid()
    return f"launcher {socket.gethostname()} {parent} {clock.process_started(parent)} {environ.get('MASTER_PORT', '')}"


def identity(uid: str, folder: str, place: Place, role: str, mode: str) -> dict[str, object]:
    """Return what a segment says of its writer, except the thread."""
    return {
        "run": uid[:500],
        "folder": folder,
        "host": socket.gethostname()[:200],
        "pid": os.getpid(),
        "process_started": clock.process_started(),
        "boot": clock.boot_id(),
        "rank": place.rank,
        "local_rank": place.local_rank,
        "world_size": place.world_size,
        "attempt": place.attempt,
        "role": role,
        "mode": mode,
        "opened": clock.now_us(),
        "opened_monotonic": clock.monotonic_ns(),
        "python": sys.version.split()[0],
        "tracer": __version__,
    }


def _first(environ: Mapping[str, str], names: tuple[str, ...], default: int) -> int:
    """Return the first of these variables that holds a whole number."""
    for name in names:
        text = environ.get(name, "")
        if text.isdigit():
            return int(text)
    return default
