"""Everything that can go wrong, as one tree.

    TracerError
    ├── UsageError          a call that cannot be meant; also a RuntimeError
    ├── ConfigError         a setting that cannot be read; also a ValueError
    ├── MissingDependency   an optional package is absent; also an ImportError
    ├── StoreError          the store cannot be read or written
    │   ├── SchemaTooNew    a newer Tracer wrote it
    │   ├── JournalCorrupt  bytes of a journal fail their check
    │   └── RunNotFound     no run of that name or id; also a ValueError
    ├── CapsuleError        a capsule cannot be read or replayed
    ├── TrainingAnomaly     training went wrong, and the program asked to be stopped then
    └── CommandError        a command's refusal; carries the exit code, only `cli.main` prints it

A message says the fact, the value and the remedy. A wrong argument is a plain `TypeError` or `ValueError`.
"""

from __future__ import annotations


class TracerError(Exception):
    """The root of all errors that Tracer raises on purpose."""


class UsageError(TracerError, RuntimeError):
    """A call that cannot be meant, such as `log` before `init`."""


class ConfigError(TracerError, ValueError):
    """A setting that cannot be read."""


class MissingDependency(TracerError, ImportError):
    """An optional package is not installed; the message names the command that brings it."""


class StoreError(TracerError):
    """The store cannot be read or written."""


class SchemaTooNew(StoreError):
    """A newer version of Tracer wrote this; the message says which."""


class JournalCorrupt(StoreError):
    """Bytes of a journal fail their check."""


class RunNotFound(StoreError, ValueError):
    """No run answers to that name or id."""


class CapsuleError(TracerError):
    """A capsule cannot be read or replayed; the message names the entry."""


class TrainingAnomaly(TracerError):
    """Training went wrong and the program asked to be stopped; `finding` says how, `capsule` is the file, if any."""

    def __init__(self, message: str, *, finding: object = None, capsule: str | None = None) -> None:
        super().__init__(message)
        self.finding, self.capsule = finding, capsule


class CommandError(TracerError):
    """A command cannot do what it was asked; `exit_code` is what the shell sees."""

    def __init__(self, message: str, *, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


__all__ = [
    "CapsuleError",
    "CommandError",
    "ConfigError",
    "JournalCorrupt",
    "MissingDependency",
    "RunNotFound",
    "SchemaTooNew",
    "StoreError",
    "TracerError",
    "TrainingAnomaly",
    "UsageError",
]
