"""The contract of a back end and of a source, and the errors that say what its lane does next."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from tracer.errors import TracerError
from tracer.transfer import Event, RunInfo

#: What a peer calls a run: kept in the lane's cursor and handed to `open` again. Text to text.
RemoteIds = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a peer takes, and what becomes of the rest; the table of limits in the docs is made from these.

    Args:
        batch: At most so many points in one `write`.
        repeatable: The peer recognises a batch that it has already: a lost acknowledgement doubles nothing.
        requests_per_s: So many writes a second at most; None for as many as it takes.
        losses: What it cannot hold → what we do then, as the docs say it.
    """

    batch: int = 1000
    repeatable: bool = True
    requests_per_s: float | None = None
    losses: Mapping[str, str] = field(default_factory=dict)


class BackendError(TracerError):
    """What a back end's lane reacts to."""


class Unreachable(BackendError):
    """The peer did not answer, or not in time: the batch is tried again, later and later."""


class Throttled(BackendError):
    """The peer asks to wait."""

    def __init__(self, message: str, after_s: float) -> None:
        super().__init__(message)
        self.after_s = after_s


class Rejected(BackendError):
    """The peer will never take this batch: it is counted, and the lane goes on.

    Args:
        message: Why.
        lost: How many points and other events, when the peer took the rest of the batch; None for all of it.
    """

    def __init__(self, message: str, lost: int | None = None) -> None:
        super().__init__(message)
        self.lost = lost


class Refused(BackendError):
    """Credentials or quota: the lane ends, and says why once."""


class Backend(ABC):
    """One run in one peer. It may block; it owns no queue and retries nothing: that is its lane's affair.

    Args:
        options: What was asked for, by the names in `options` of the table; secrets are here and are kept nowhere.
    """

    name: ClassVar[str]
    #: The kinds of `tracer.transfer` it understands; it is given nothing else.
    kinds: ClassVar[frozenset[str]]
    limits: ClassVar[Limits] = Limits()

    def __init__(self, options: Mapping[str, object]) -> None:
        self.options = dict(options)

    @abstractmethod
    def open(self, run: RunInfo, remote: RemoteIds) -> RemoteIds:
        """Create the run in the peer, or resume the one that `remote` names; return what it is called there."""

    @abstractmethod
    def write(self, events: Sequence[Event]) -> None:
        """Hand over a batch, in order; on return the peer has it. The same batch may come again."""

    @abstractmethod
    def close(self, status: str, ended: int | None) -> None:
        """End the run in the peer with one of `tracer.events.STATUSES`; `running` leaves it to be resumed."""

    def url(self) -> str | None:
        """Return where a person sees the run, if anywhere."""
        return None

    def readable(self) -> str:
        """Return what a source of the same name is given to read this run back; empty where nothing can be read."""
        return ""

    def renamed(self) -> Mapping[str, str]:
        """Return our names → the peer's, where they differ; see `tracer.backends.names`."""
        return {}


class Source(ABC):
    """Runs that stand in a peer, to be imported; nothing there is ever changed.

    Args:
        uri: Where: a folder, a file, a database or a server's address; what an empty one means, each source says.
        options: More, by name.
    """

    name: ClassVar[str]

    def __init__(self, uri: str, options: Mapping[str, object] | None = None) -> None:
        self.uri, self.options = uri, dict(options or {})
        #: What could not be read or had to be changed, in sentences, for the report.
        self.notes: list[str] = []

    @abstractmethod
    def runs(self) -> Iterator[RunInfo]:
        """Yield the runs, each with its `origin`; its `uid` is free."""

    @abstractmethod
    def events(self, run: RunInfo) -> Iterator[Event]:
        """Yield what happened in a run: points as large arrays, one series after the other, files last."""

    def close(self) -> None:  # noqa: B027 -- most sources keep nothing open
        """Let go of what is open."""


__all__ = [
    "Backend", "BackendError", "Limits", "Refused", "Rejected", "RemoteIds", "Source", "Throttled", "Unreachable",
]  # fmt: skip
