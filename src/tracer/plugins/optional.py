"""How an optional package is asked for: it is imported in the function that needs it, inside `needs`."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

from contextlib import contextmanager

from tracer.errors import MissingDependency


@contextmanager
def needs(package: str, *, extra: str, purpose: str) -> Iterator[None]:
    """Turn the absence of an optional package into the command that brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != package:
            raise  # it is installed but broken: its own message says more than ours
        raise missing(package, extra=extra, purpose=purpose) from None


def missing(package: str, *, extra: str, purpose: str) -> MissingDependency:
    """Return the error that names the command."""
    command = f"pip install 'ml-tracer[{extra}]'" if extra else f"pip install {package}"
    return MissingDependency(f"{purpose} needs the {package} package, which is not installed. {command}")


__all__ = ["missing", "needs"]
