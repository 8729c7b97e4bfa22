"""Whether a back end keeps the contract: what `tracer.testing.check_backend` runs.

Each check is a method that says in a sentence what is not as it must be: the fact, the value, the remedy.
"""

from __future__ import annotations

import math
import struct
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from tracer import events as vocabulary
from tracer.backends import corpora
from tracer.backends.base import Backend, Limits, Refused, RemoteIds, Unreachable
from tracer.backends.plugin import as_backend
from tracer.routing import Attempt
from tracer.transfer import FACTS, KINDS, POINTS, Event, RunInfo

#: Returns what a peer has of a run, by the peer's own reader: name there → steps and values.
Read = Callable[[RemoteIds], Mapping[str, Sequence[tuple[int, float]]]]
Series = dict[str, list[tuple[int, float]]]

_SECRET = "conformance-secret-7f3a"  # noqa: S105 -- planted, to see that no message repeats it


class Conformance:
    """Tries one back end.

    Args:
        make: A `Backend` class, a class or object of the plugins' shape, or a function from options to a back end.
        read: Reads a run back through the peer; without it is only seen that nothing raises.
        options: What the back end is told.
        losses: Classes of values and steps that the peer cannot hold, beside those that `Limits.losses` names: of
            `NaN Inf -0.0 tiny large negative precision`.
        dead: Options that lead where nobody answers.
        many: So many points of one series.
    """

    def __init__(
        self,
        make: object,
        read: Read | None,
        options: Mapping[str, object],
        *,
        losses: Collection[str] = (),
        dead: Mapping[str, object] | None = None,
        many: int = 10_000,
    ) -> None:
        self._make, self._read, self._options, self._dead, self._many = make, read, dict(options), dead, many
        backend = self.new()
        self._kinds, self._limits = self._declared(backend)
        told = " ".join(self._limits.losses)
        self._losses = {*losses, *(one for one in (*corpora.VALUES, *corpora.STEPS) if one in told)}

    def checks(self) -> list[Callable[[], None]]:
        """Return what is tried, in order."""
        found = [self.it_opens_and_resumes, self.it_takes_every_kind_that_it_claims, self.it_takes_changed_facts]
        if POINTS in self._kinds:
            found += [
                self.a_batch_may_come_twice, self.names_stay_apart, self.values_stay_what_they_are,
                self.many_points_arrive,
            ]  # fmt: skip
        return [*found, self.it_closes_with_each_status, self.it_says_when_nobody_answers]

    def new(self, options: Mapping[str, object] | None = None) -> Backend:
        """Return a back end."""
        told = self._options if options is None else options
        is_plain = not isinstance(self._make, type) and callable(self._make) and not hasattr(self._make, "get_metadata")
        backend: Backend | None = None
        with Attempt() as attempt:
            made = self._make(told) if is_plain else as_backend(self._make, told)  # type: ignore[operator]  # asked above
            backend = made if isinstance(made, Backend) else as_backend(made, told)
        if backend is None:
            _fail(f"Making the back end raised {attempt.said}. With good options it must neither connect nor fail.")
        return backend

    # What is tried.

    def it_opens_and_resumes(self) -> None:
        """`open` names the run in the peer, and goes on with it when it gets that name again."""
        info, first = corpora.run_info("resumed"), self.new()
        remote = self._open(first, info)
        self._write(first, self._pair("resumed", 0))
        second = self.new()
        again = self._open(second, info, remote)
        if dict(again) != dict(remote):
            _fail(
                f"Opened again with the ids {dict(remote)!r} it returned {dict(again)!r}: a crash would make a second "
                "run. `open` must resume the run that `remote` names and return the same ids."
            )
        self._write(second, self._pair("resumed", 2))
        self._close(second)
        self._compare(remote, {"resumed": [(step, step / 2) for step in range(4)]}, second)

    def it_takes_every_kind_that_it_claims(self) -> None:
        """Each kind in `kinds` is taken."""
        with tempfile.TemporaryDirectory() as folder:
            backend = self.new()
            self._open(backend, corpora.run_info("kinds"))
            for kind in sorted(self._kinds):
                for event in corpora.example(kind, folder):
                    self._write(backend, [event])
            self._close(backend)

    def it_takes_changed_facts(self) -> None:
        """What is known of the run may change while it is open."""
        if FACTS not in self._kinds:
            return
        info, backend = corpora.run_info("facts"), self.new()
        self._open(backend, info)
        changed = replace(
            info, name="renamed", tags=("new",), params={**info.params, "lr": 0.2, "late": "x"}, summary={"best": 0.5}
        )
        self._write(backend, [changed])
        self._write(backend, [changed])
        self._close(backend)

    def a_batch_may_come_twice(self) -> None:
        """A batch whose acknowledgement was lost comes again."""
        backend = self.new()
        remote = self._open(backend, corpora.run_info("twice"))
        batch = self._pair("twice", 0)
        self._write(backend, batch)
        self._write(backend, batch)
        self._close(backend)
        self._compare(remote, {"twice": [(0, 0.0), (1, 0.5)]}, backend, doubles=not self._limits.repeatable)

    def names_stay_apart(self) -> None:
        """Whatever a metric is called, it arrives, and two never become one."""
        backend = self.new()
        remote = self._open(backend, corpora.run_info("names"))
        expected = {name: [(1, float(number))] for number, name in enumerate(corpora.NAMES)}
        for name, points in expected.items():
            self._write(backend, [corpora.series(name, [1], [points[0][1]])])
        self._close(backend)
        sent = [backend.renamed().get(name, name) for name in corpora.NAMES]
        doubled = {name for name in sent if sent.count(name) > 1}
        if doubled:
            _fail(f"Two names become the one name {doubled.pop()!r}. Use `tracer.backends.names.NameMap`.")
        self._compare(remote, expected, backend)

    def values_stay_what_they_are(self) -> None:
        """Values and steps at the edges are what they were."""
        backend = self.new()
        remote = self._open(backend, corpora.run_info("values"))
        expected: Series = {}
        for kind, values in corpora.VALUES.items():
            self._write(backend, [corpora.series(f"values/{kind}", list(range(len(values))), list(values))])
            if kind not in self._losses:
                expected[f"values/{kind}"] = list(enumerate(values))
        for kind, steps in corpora.STEPS.items():
            self._write(backend, [corpora.series(f"steps/{kind}", list(steps), [0.5] * len(steps))])
            if kind not in self._losses:
                expected[f"steps/{kind}"] = [(step, 0.5) for step in steps]
        self._close(backend)
        self._compare(remote, expected, backend)

    def many_points_arrive(self) -> None:
        """Batches as large as it asks for arrive whole and in order."""
        backend = self.new()
        remote = self._open(backend, corpora.run_info("many"))
        size = max(self._limits.batch, 1)
        for at in range(0, self._many, size):
            steps = list(range(at, min(at + size, self._many)))
            self._write(backend, [corpora.series("many", steps, [step / 8 for step in steps])])
        self._close(backend)
        self._compare(remote, {"many": [(step, step / 8) for step in range(self._many)]}, backend)

    def it_closes_with_each_status(self) -> None:
        """A run may end in each way, and one that is left running may be gone on with."""
        for status in vocabulary.STATUSES:
            info, backend = corpora.run_info(f"ends {status}"), self.new()
            remote = self._open(backend, info)
            self._close(backend, status)
            if status == vocabulary.RUNNING:
                again = self.new()
                self._open(again, info, remote)
                self._close(again)

    def it_says_when_nobody_answers(self) -> None:
        """A peer that is away is `Unreachable`, and no message repeats a secret."""
        if self._dead is None:
            return
        with Attempt() as attempt:
            self.new({**self._dead, "api_key": _SECRET}).open(corpora.run_info("dead"), {})
        if not isinstance(attempt.error, (Unreachable, Refused)):
            said = attempt.said or "nothing"
            _fail(
                f"Where nobody answers `open` raised {said}. It must raise Unreachable, so that the lane tries again."
            )
        if _SECRET in str(attempt.error):
            _fail("The message of an error repeats the `api_key`. Leave credentials out of messages.")

    # Small parts.

    def _declared(self, backend: Backend) -> tuple[frozenset[str], Limits]:
        """Return what a back end says of itself, checked."""
        if not isinstance(getattr(backend, "name", None), str) or not backend.name:
            _fail(f"{type(backend).__name__}.name is no text. Say `name: ClassVar = 'mine'`.")
        kinds = getattr(backend, "kinds", None)
        if not isinstance(kinds, (frozenset, set)) or not kinds or not set(kinds) <= set(KINDS):
            _fail(
                f"{type(backend).__name__}.kinds is {kinds!r}. It must be a frozenset of some of: {', '.join(KINDS)}."
            )
        limits: object = backend.limits
        if not isinstance(limits, Limits) or limits.batch < 1:
            _fail(
                f"{type(backend).__name__}.limits is {backend.limits!r}. It must be a `Limits` with a batch from 1 on."
            )
        return frozenset(kinds), limits

    def _pair(self, name: str, first: int) -> list[Event]:
        """Return a batch of two points; of a back end without points one of what it takes."""
        if POINTS in self._kinds:
            return [corpora.series(name, [first, first + 1], [first / 2, (first + 1) / 2])]
        return []

    def _open(self, backend: Backend, info: RunInfo, remote: RemoteIds | None = None) -> RemoteIds:
        """Open a run; what it returns must be texts."""
        found: object = None
        with Attempt() as attempt:
            found = backend.open(info, dict(remote or {}))
        if attempt.error is not None:
            _fail(f"`open` raised {attempt.said}.")
        if not isinstance(found, Mapping) or not all(isinstance(one, str) for pair in found.items() for one in pair):
            _fail(f"`open` returned {found!r}. It must return a mapping of texts: they are kept in a JSON file.")
        url: object = backend.url()
        if url is not None and not isinstance(url, str):
            _fail(f"`url` returned {url!r}. It must return a text or None.")
        return dict(found)

    def _write(self, backend: Backend, batch: Sequence[Event]) -> None:
        """Write a batch."""
        if not batch:
            return
        with Attempt() as attempt:
            backend.write(batch)
        if attempt.error is not None:
            about = f"{batch[0].KIND} {getattr(batch[0], 'name', '')!r}"
            _fail(f"`write` raised {attempt.said} at {about}. A kind that is not understood must not stand in `kinds`.")

    def _close(self, backend: Backend, status: str = vocabulary.COMPLETED) -> None:
        """Close a run."""
        ended = None if status == vocabulary.RUNNING else corpora.BEGAN + 60_000_000
        with Attempt() as attempt:
            backend.close(status, ended)
        if attempt.error is not None:
            _fail(f"`close({status!r}, …)` raised {attempt.said}.")

    def _compare(self, remote: RemoteIds, expected: Series, backend: Backend, *, doubles: bool = False) -> None:
        """See that the peer has what was sent."""
        if self._read is None or POINTS not in self._kinds:
            return
        found = self._read(remote)
        for name, points in expected.items():
            sent = backend.renamed().get(name, name)
            if sent not in found:
                some = ", ".join(map(repr, list(found)[:5])) or "nothing"
                _fail(f"The peer has no series {sent!r}. It has: {some}. `renamed` must tell what a name became.")
            _same(name, points, list(found[sent]), doubles=doubles)


def _same(name: str, expected: list[tuple[int, float]], found: list[tuple[int, float]], *, doubles: bool) -> None:
    """See that a series is what was sent, in any order, bit for bit."""
    found = [(int(step), float(value)) for step, value in found]
    there = dict(found)
    for step, value in expected:
        if step not in there:
            _fail(f"The peer lacks step {step} of {name!r}. What `write` returned from must be there.")
        if _bits(there[step]) != _bits(value):
            _fail(
                f"{name!r} at step {step} is {there[step]!r} in the peer; {value!r} was sent. If it cannot hold that, "
                "name it in `Limits.losses`."
            )
    if len(found) != len(expected) and not doubles:
        _fail(
            f"The peer has {len(found):,} points of {name!r}; {len(expected):,} were sent. A batch that comes twice "
            "must change nothing, or the back end says `Limits(repeatable=False)`."
        )


def _bits(value: float) -> bytes:
    """Return what two equal values share; every NaN is one."""
    return b"nan" if math.isnan(value) else struct.pack("<d", value)


def _fail(message: str) -> NoReturn:
    """Say what is not as it must be."""
    raise AssertionError(message)


__all__ = ["Conformance", "Read"]
