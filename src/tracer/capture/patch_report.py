"""What became of each patch, as `run.capture_report()`, `tracer doctor` and `tracer run --dry-run` tell it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from tracer.capture.patching import Patch

import contextlib
from importlib import metadata

#: Distributions that bring the same package under another name.
_OTHERWISE = {"xgboost": ("xgboost-cpu",), "mlflow": ("mlflow-skinny",)}


class Row:
    """A line of the report: one patch."""

    __slots__ = (
        *("framework", "module", "attribute", "package", "version", "tested", "untested"),
        *("state", "why", "events"),
    )

    def __init__(self, framework: str, patch: Patch, state: str, why: str = "") -> None:
        self.framework, self.module, self.attribute = framework, patch.module, patch.attribute
        self.package, self.tested, self.events = patch.package, patch.tested, patch.hook.events
        self.state, self.why = state, why
        self.version = version_of(patch.package)
        self.untested = self.version is not None and not is_between(self.version, patch.tested)

    def as_dict(self) -> dict[str, object]:
        """Return the line as JSON holds it."""
        return {name: getattr(self, name) for name in self.__slots__}


def version_of(package: str) -> str | None:
    """Return the version of an installed package, whatever the distribution is called that brings it."""
    for name in (package, *_OTHERWISE.get(package, ())):
        with contextlib.suppress(metadata.PackageNotFoundError):
            return metadata.version(name)
    return None


def is_between(version: str, tested: tuple[str, str]) -> bool:
    """Tell whether a version is one of those that were tested, or lies between; patch releases of the newest count."""
    oldest, newest = (_numbers(end) for end in tested)
    found = _numbers(version)
    return oldest <= found[: len(oldest)] and found[: max(len(newest) - 1, 1)] <= newest[: max(len(newest) - 1, 1)]


def _numbers(version: str) -> tuple[int, ...]:
    """Return the leading numbers of a version."""
    numbers = []
    for part in version.partition("+")[0].split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


__all__ = ["Row", "is_between", "version_of"]
