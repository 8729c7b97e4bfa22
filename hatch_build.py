"""Build the native kernel into the wheel, or beside its source for an editable install, where a C compiler is.

Both kinds also get what brings capture into an interpreter that finds TRACER_AUTO: two files for the root of
site-packages, `tracer.pth` and, for Python 3.15 and later, `tracer.start`.

Tracer works without it: no compiler, or a failing one, gives a pure wheel, and `TRACER_BUILD_NATIVE=off` asks for one.
The library uses no other, not even libc, so a wheel fits every Python and every Linux of its processor.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_PLACE = "tracer/capture/native/statistics.so"
_CARRIERS = ("tracer.pth", "tracer.start")
_OFF = frozenset({"0", "off", "false", "no"})
_FLAGS = ("-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-trapping-math", "-fno-math-errno", "-Wno-psabi")
#: On Linux nothing is linked but the compiler's own run-time part, which asks the processor what it can do.
_LINKED = ("-nostdlib", "-lgcc", "-s") if sys.platform == "linux" else ()


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # hatchling's own configuration is of no interest
    """Adds the library and the carriers of capture to what is built."""

    _folder: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build before files are collected.

        Args:
            version: "editable" for an editable install, where the library has to lie in the source tree.
            build_data: What hatchling is told.
        """
        included = build_data["force_include_editable" if version == "editable" else "force_include"]
        included |= {os.path.join(self.root, "src", "tracer", "boot", name): name for name in _CARRIERS}
        source = Path(self.root, "src", os.path.dirname(_PLACE), "statistics.c")
        wanted = os.environ.get("TRACER_BUILD_NATIVE", "").strip().lower() not in _OFF
        if version == "editable":
            beside = source.with_name("statistics.so")
            beside.unlink(missing_ok=True)  # of an older source, perhaps
            self._say(compile_library(source, beside) if wanted else "")
            return
        if not wanted:
            return
        self._folder = tempfile.TemporaryDirectory()
        library = Path(self._folder.name, "statistics.so")
        failure = compile_library(source, library)
        self._say(failure)
        if not failure:
            build_data["force_include"][str(library)] = _PLACE
            build_data["pure_python"] = False
            build_data["tag"] = f"py3-none-{platform_tag()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 -- hatchling's
        """Remove what was only needed for the wheel."""
        if self._folder is not None:
            self._folder.cleanup()

    def _say(self, failure: str) -> None:
        """Tell why there is no native kernel."""
        if failure:
            self.app.display_warning(f"Tracer is built without its native kernel: {failure}")


def compile_library(source: Path, library: Path) -> str:
    """Compile the library in one step; return why that failed, or nothing."""
    compiler = shlex.split(os.environ.get("CC", "")) or next(
        ([found] for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), []
    )
    if not compiler:
        return "no C compiler was found (cc, gcc, clang, or what CC names)."
    # Written beside its place and then moved: a program that has the old one loaded keeps it.
    unfinished = library.with_suffix(f".{os.getpid()}")
    command = [*compiler, *_FLAGS, source.name, "-o", str(unfinished), *_LINKED]
    try:
        done = subprocess.run(command, cwd=source.parent, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError as error:
        return f"{compiler[0]!r} could not be started ({error})."
    if done.returncode != 0:
        unfinished.unlink(missing_ok=True)
        return f"{shlex.join(command)} failed:\n{done.stderr}"
    unfinished.replace(library)
    return ""


def platform_tag() -> str:
    """Return the tag of this platform; on Linux any distribution's, because the library needs none of its libraries."""
    name = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    return name.replace("linux_", "manylinux_2_17_", 1) if name.startswith("linux_") else name
