"""What Aim and its parts raise, as what a lane reacts to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from subprocess import SubprocessError

from tracer.backends.base import Refused, Rejected, Unreachable

OPENING = "open the repository"


@contextmanager
def errors(doing: str) -> Iterator[None]:
    """Turn what Aim and its parts raise into what a lane reacts to."""
    rocks, named = import_module("aimrocks.errors"), import_module("aim.sdk.errors")
    gone, locked = named.MissingRunError, named.RunLockingError
    database = import_module("sqlalchemy.exc").SQLAlchemyError
    try:
        yield
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        message = f"Aim could not {doing}: {error.strerror}. Name a folder that this process may write to."
        raise Refused(message) from error
    except (FileNotFoundError, ValueError, TypeError, OverflowError, KeyError, AssertionError, gone) as error:
        message = f"Aim could not {doing}: {error}."
        raise (Refused if doing == OPENING else Rejected)(message) from error
    except (OSError, RuntimeError, rocks.RocksIOError, rocks.Corruption, database, SubprocessError, locked) as error:
        # Its clean-up at exit waits for a signal that never comes when it fails, as on a full disk.
        import_module("aim.ext.cleanup").AutoClean.stop_signal.set()
        message = f"Aim could not {doing}: {hidden(str(error)) or type(error).__name__}."
        raise Unreachable(message) from error


def hidden(url: str) -> str:
    """Return an address without what stands before its `@`."""
    scheme, parted, rest = url.partition("://")
    return f"{scheme}{parted}{rest.rpartition('@')[2]}"
