"""`tracer doctor`: what is wrong with this installation and this store; each line a fact and its remedy."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

import click

from tracer import clock, places
from tracer.cli.options import reading
from tracer.cli.output import Rows, Show
from tracer.errors import TracerError
from tracer.render.formats import clean, duration, size
from tracer.render.tables import Block, Cell, Lines, Styled, Table

_OURS = "ml-tracer"
_NAMES = ("tracer", "tracelet", "agentic_boilerplate")
_BASE = {"click": "8.1.7", "duckdb": "1.5", "numpy": "1.26", "psutil": "5.9.8", "PyYAML": "6.0.1", "rich": "13.7"}
_LEAST_PYTHON = (3, 11)
_LITTLE_DISK, _TOO_LITTLE_DISK = 1 << 30, 100 << 20
_FEW_FILES, _FEW_INODES = 256, 10_000
_CLOCK_OFF_S = 2.0
_SMALL_FILE = 64 << 20
GOOD, NOTE, WRONG = "ok", "note", "wrong"
_STYLES = {GOOD: "green", NOTE: "yellow", WRONG: "bold red"}


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at: `ok`, `note` or `wrong`, what was found, and what to do about it."""

    verdict: str
    subject: str
    fact: str
    remedy: str = ""


@click.command("doctor")
@reading(rows=True, store=False)
def examine(storage: str, show: Show) -> None:
    """Look for what is wrong with this installation and this store. Exit with 1 when something is.

    Versions, other distributions that own our names, settings in the environment, file system, disk, limits, clocks,
    and the store itself. `tracer fsck` goes further and checks every byte.
    """
    lines = [*_python(), *_packages(), *_native(), *_collisions(), *_settings(), *_carriers(), *_patches()]
    lines += [*_limits(), *_place(storage), *_store(storage)]
    wrong = [line for line in lines if line.verdict == WRONG]
    show(
        {
            "healthy": not wrong,
            "lines": [
                {"verdict": line.verdict, "subject": line.subject, "fact": line.fact, "remedy": line.remedy}
                for line in lines
            ],
        },
        blocks=lambda: _blocks(lines, len(wrong)),
        rows=lambda: Rows(
            ("verdict", "subject", "fact", "remedy"),
            [(line.verdict, line.subject, line.fact, line.remedy) for line in lines],
        ),
    )
    if wrong:
        click.get_current_context().exit(1)


def _blocks(lines: list[Line], wrong: int) -> list[Block]:
    """Return the findings for people."""
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            Styled(line.verdict, _STYLES[line.verdict]),
            line.subject,
            clean(f"{line.fact}. {line.remedy}".rstrip(". ") + "."),
        )
        for line in lines
    )
    end = "Nothing is wrong." if not wrong else f"{wrong} thing{'s are' if wrong > 1 else ' is'} wrong."
    return [Table(("", "what", "fact and remedy"), rows, may_wrap=frozenset({2})), Lines((end,))]


def _python() -> Iterator[Line]:
    """Look at Python and Tracer themselves."""
    import platform

    from tracer.version import __version__

    version = platform.python_version()
    if sys.version_info < _LEAST_PYTHON:
        yield Line(WRONG, "python", f"Python {version}", "Tracer needs Python 3.11 or newer.")
    else:
        yield Line(
            GOOD, "python", f"Python {version}, Tracer {__version__} in {os.path.dirname(os.path.dirname(__file__))}"
        )
    if not sys.platform.startswith("linux"):
        yield Line(NOTE, "platform", f"{sys.platform}", "Only Linux is tested.")


def _packages() -> Iterator[Line]:
    """Look at what Tracer is built on."""
    from tracer.cli.info import installed

    found = installed()
    for name, least in _BASE.items():
        version = found[name]
        if version is None:
            yield Line(WRONG, name, "not installed", f"pip install '{name}>={least}'")
        elif _numbers(version) < _numbers(least):
            yield Line(WRONG, name, f"version {version}", f"pip install '{name}>={least}'")
    others = [f"{name} {version}" for name, version in found.items() if version is not None]
    yield Line(GOOD, "packages", ", ".join(others))
    if found["torch"] is None:
        yield Line(
            NOTE, "torch", "not installed here", "Gradient statistics need it; pip install the build of your machine."
        )


def _native() -> Iterator[Line]:
    """Tell whether tensors are measured by the native kernel."""
    from tracer.capture import native

    if native.available():
        yield Line(GOOD, "native kernel", native.reason())
    else:
        yield Line(NOTE, "native kernel", native.reason(), "Statistics are taken in Python; see docs/native.md.")


def _collisions() -> Iterator[Line]:
    """Look for other distributions that install a package of our name: two wheels overwrite each other silently."""
    from importlib import metadata

    owners = metadata.packages_distributions()
    for name in _NAMES:
        strangers = sorted({owner for owner in owners.get(name, []) if owner.lower().replace("_", "-") != _OURS})
        if strangers:
            remedy = f"pip uninstall {' '.join(strangers)}, then pip install --force-reinstall {_OURS}"
            yield Line(WRONG, "names", f"{', '.join(strangers)} installs a package {name!r} too", remedy)
            return
    yield Line(GOOD, "names", "no other distribution installs tracer, tracelet or agentic_boilerplate")


def _settings() -> Iterator[Line]:
    """Look for settings in the environment that nobody reads."""
    import difflib

    from tracer.activation.variables import PUBLIC
    from tracer.config import SETTINGS

    known = {name for row in SETTINGS for name in row.env} | {"TRACER_CONFIG", "TRACER_NATIVE", *PUBLIC}
    for name in sorted(os.environ):
        if name.startswith("TRACER_") and not name.startswith("TRACER_FLIGHT_") and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            yield Line(
                NOTE,
                "settings",
                f"{name} is set, and no setting has that name",
                f"Did you mean {near[0]}?" if near else "",
            )


def _carriers() -> Iterator[Line]:
    """Look for what brings capture into this Python and into those that it starts."""
    from tracer.activation.carriers import carriers
    from tracer.activation.variables import AUTO, is_set

    found = {carrier.name: carrier for carrier in carriers()}
    if not found["sitecustomize"].is_there:
        place = found["sitecustomize"].place
        yield Line(WRONG, "capture", f"{place} is missing", f"pip install --force-reinstall {_OURS}")
    elif found["tracer.pth"].is_there:
        yield Line(GOOD, "capture", "carried by PYTHONPATH from `tracer run`, and by tracer.pth in this environment")
    else:
        yield Line(
            NOTE,
            "capture",
            "carried by PYTHONPATH from `tracer run`; there is no tracer.pth in this environment",
            "TRACER_AUTO=1 without `tracer run`, and python -I, need it: install Tracer here with pip.",
        )
    if is_set(os.environ.get(AUTO)):
        yield Line(NOTE, "capture", f"{AUTO} is set: every Python started from here is listened to")


def _patches() -> Iterator[Line]:
    """Look at each place in a framework where capture would listen, or does."""
    from tracer.capture.frameworks import AUTO, chosen
    from tracer.capture.patching import ACTIVE, REFUSED, patches

    for name in chosen([AUTO]):
        rows = [row for row in patches.report([name]) if row.version is not None]
        for package in dict.fromkeys(row.package for row in rows):
            ours = [row for row in rows if row.package == package]
            states = ", ".join(dict.fromkeys(row.state for row in ours))
            heard = f", {sum(row.events for row in ours)} heard" if any(row.state == ACTIVE for row in ours) else ""
            first = ours[0]
            fact = f"{package} {first.version}: {len(ours)} place{'s' if len(ours) > 1 else ''}, {states}{heard}"
            refused = [f"{row.attribute}: {row.why}" for row in ours if row.state == REFUSED]
            if refused:
                yield Line(WRONG, name, f"{fact}; {'; '.join(refused)}", "Your program is unaffected; update Tracer.")
            elif first.untested:
                tested = " to ".join(first.tested)
                yield Line(NOTE, name, f"{fact}; untested", f"Tested are {tested}; it is listened to all the same.")
            else:
                yield Line(GOOD, name, fact)


def _limits() -> Iterator[Line]:
    """Look at what the system allows this process."""
    import resource

    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < _FEW_FILES:
        yield Line(WRONG, "limits", f"only {files} open files are allowed", "ulimit -n 1024")
    largest = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    if largest != resource.RLIM_INFINITY and largest < _SMALL_FILE:
        yield Line(WRONG, "limits", f"files may not be larger than {size(largest)}", "ulimit -f unlimited")
    elif files == resource.RLIM_INFINITY or files >= _FEW_FILES:
        yield Line(GOOD, "limits", f"{files if files >= 0 else 'any number of'} open files, files of any useful size")


def _place(storage: str) -> Iterator[Line]:
    """Look at where the store lies: file system, space, whether it can be written, its clock."""
    kind, mode = places.file_system(storage) or "unknown", places.kind(storage)
    how = "journals are mapped" if mode == "mapped" else "journals are appended to; the catalog is kept on this machine"
    yield Line(GOOD if mode == "mapped" else NOTE, "file system", f"{kind}: {how}")
    folder = _existing(storage)
    free = shutil.disk_usage(folder).free
    if free < _LITTLE_DISK:
        verdict = WRONG if free < _TOO_LITTLE_DISK else NOTE
        yield Line(verdict, "disk", f"{size(free)} free", "Make room, or free some with `tracer gc`.")
    else:
        yield Line(GOOD, "disk", f"{size(free)} free")
    inodes = os.statvfs(folder)
    if inodes.f_files and inodes.f_favail < _FEW_INODES:
        yield Line(WRONG, "disk", f"room for only {inodes.f_favail} more files", "Delete files you do not need.")
    yield from _writing(folder)


def _writing(folder: str) -> Iterator[Line]:
    """Look whether files can be made there, and whether the file system's clock is this machine's."""
    before = clock.now()
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"doctor")
            file.flush()
            written = os.fstat(file.fileno()).st_mtime
    except OSError as error:
        yield Line(
            WRONG,
            "access",
            f"{folder} cannot be written: {error.strerror}",
            "Change its owner or mode, or choose another with TRACER_STORAGE.",
        )
        return
    off = written - min(max(written, before), clock.now())
    if abs(off) > _CLOCK_OFF_S:
        way = "ahead of" if off > 0 else "behind"
        yield Line(
            WRONG,
            "clock",
            f"the file system's clock is {duration(abs(off))} {way} this machine's",
            "Synchronise both by NTP.",
        )
    else:
        yield Line(GOOD, "clock", "the file system and this machine agree")


def _store(storage: str) -> Iterator[Line]:
    """Look at the store itself."""
    if not os.path.isdir(storage):
        yield Line(NOTE, "store", f"{os.path.abspath(storage)} is not there yet", "The first tracer.init makes it.")
        return
    from tracer.storage.store import Store

    try:
        with Store.open(storage) as store:
            runs = store.runs()
            total = sum(store.sizes().values())
    except (TracerError, OSError) as error:
        yield Line(WRONG, "store", str(error), "`tracer fsck` says more, and --repair mends what can be mended.")
        return
    yield Line(GOOD, "store", f"{os.path.abspath(storage)}: {len(runs)} runs, {size(total)}")
    lost = [run for run in runs if run.lost]
    if lost:
        points = sum(run.lost for run in lost)
        yield Line(
            WRONG, "store", f"{points} points of {len(lost)} runs could not be read", "`tracer fsck` says where."
        )
    ahead = max((run.started for run in runs), default=0) / 1e6 - clock.now()
    if ahead > _CLOCK_OFF_S:
        yield Line(
            NOTE,
            "clock",
            f"a run began {duration(ahead)} in the future",
            "A machine that writes here has a wrong clock.",
        )


def _existing(path: str) -> str:
    """Return a path or its nearest parent that exists."""
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version."""
    parts = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        parts.append(int(digits))
    return tuple(parts)


__all__ = ["examine"]
