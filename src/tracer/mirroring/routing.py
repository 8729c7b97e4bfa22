"""What of a batch goes to one back end: the rules, applied; see `rules.py`."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from importlib import import_module
from typing import TYPE_CHECKING

from tracer import events as vocabulary
from tracer.errors import ConfigError
from tracer.routing import Attempt
from tracer.transfer import FACTS, LAYER, Event, File, LogLine, Points, RunInfo

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tracer.mirroring.rules import Filter, Rule


class Route:
    """The way to one back end.

    Args:
        name: The lane's name.
        rules: All rules; those that do not name it are passed over.
        understood: The kinds that the back end understands.
    """

    def __init__(self, name: str, rules: Iterable[Rule], understood: Iterable[str]) -> None:
        self._rules = [rule for rule in rules if fnmatchcase(name, rule.to)]
        self._filters = {id(rule): _filter(rule.where) for rule in self._rules if rule.where is not None}
        lets_all = all(rule.drop for rule in self._rules)
        self._otherwise = lets_all
        named = {kind for rule in self._rules for kind in rule.kinds or ()}
        self._understood = frozenset(understood)
        #: What the journal has to be read for.
        self.kinds = self._understood - (set() if LAYER in named else {LAYER}) - {FACTS}
        #: Events that a filter raised at, and what it raised last; they do not go.
        self.failed, self.error = 0, ""
        self._of = functools.lru_cache(65536)(self._first)

    def through(self, found: Sequence[Event], origins: Mapping[str, str]) -> Iterator[tuple[Event, int | str | None]]:
        """Yield what goes, each with the interval to which it is thinned."""
        for event in found:
            if event.KIND not in self._understood:
                continue
            if isinstance(event, RunInfo):
                yield event, None
                continue
            name = name_of(event)
            rule = self._of(event.KIND, origins.get(name, vocabulary.USER), name, rank_of(event))
            if rule is None:
                if self._otherwise and event.KIND != LAYER:
                    yield event, None
                continue
            test = self._filters.get(id(rule))
            if test is None:
                if not rule.drop:
                    yield event, rule.thin
                continue
            left = self._tested(event, name, test, drop=rule.drop)
            if left is not None:
                yield left, rule.thin

    def _first(self, kind: str, source: str, name: str, rank: int) -> Rule | None:
        """Return the first rule that is about such an event."""
        return next((rule for rule in self._rules if rule.matches(kind, source, name, rank)), None)

    def _tested(self, event: Event, name: str, test: Filter, *, drop: bool) -> Event | None:
        """Return what of an event a filter lets through: of points, each is asked about."""
        if not isinstance(event, Points):
            step = getattr(event, "step", None)
            return event if self._goes(test, name, step or 0, event, drop=drop) else None
        import numpy as np

        pairs = zip(event.steps.tolist(), event.values.tolist(), strict=True)
        goes = np.array([self._goes(test, name, step, value, drop=drop) for step, value in pairs], bool)
        return part(event, goes) if goes.any() else None

    def _goes(self, test: Filter, name: str, step: int, value: object, *, drop: bool) -> bool:
        """Ask a filter; one that raises lets nothing through."""
        with Attempt() as attempt:
            return bool(test(name, step, value)) is not drop
        self.failed += 1
        self.error = f"a rule's `where` raised {attempt.said}"
        return False


def name_of(event: Event) -> str:
    """Return what an event is called: of a line without a name, its kind."""
    if isinstance(event, LogLine):
        return event.name or event.kind
    return event.name


def rank_of(event: Event) -> int:
    """Return the rank an event is of; an artifact is the run's."""
    return 0 if isinstance(event, (File, RunInfo)) else event.rank


def size_of(event: Event) -> int:
    """Return how many points an event counts as."""
    return len(event) if isinstance(event, Points) else 1


def part(points: Points, chosen: slice | npt.NDArray[np.bool_]) -> Points:
    """Return some of the points of a series."""
    return replace(points, steps=points.steps[chosen], times=points.times[chosen], values=points.values[chosen])


def split(found: Iterable[Event], limit: int) -> Iterator[list[Event]]:
    """Yield batches of so many points at most; what is not points counts as one; facts and files go alone."""
    batch: list[Event] = []
    room = limit
    for event in found:
        if isinstance(event, (RunInfo, File)):
            if batch:
                yield batch
            yield [event]
            batch, room = [], limit
            continue
        left: Event | None = event
        while left is not None:
            if room == 0:
                yield batch
                batch, room = [], limit
            size = size_of(left)
            if size <= room or not isinstance(left, Points):
                batch.append(left)
                room -= min(size, room)
                left = None
            else:
                batch.append(part(left, slice(0, room)))
                left, room = part(left, slice(room, None)), 0
    if batch:
        yield batch


def halves(batch: Sequence[Event]) -> tuple[list[Event], list[Event]]:
    """Return a batch in two parts of about as many points; one that cannot be parted has an empty second."""
    middle = sum(map(size_of, batch)) // 2
    first: list[Event] = []
    for number, event in enumerate(batch):
        size = size_of(event)
        if middle >= size:
            first.append(event)
            middle -= size
            continue
        if isinstance(event, Points) and middle:
            return [*first, part(event, slice(0, middle))], [part(event, slice(middle, None)), *batch[number + 1 :]]
        return (first, list(batch[number:])) if first else ([event], list(batch[number + 1 :]))
    return first, []


def _filter(where: Filter | str | None) -> Filter:
    """Return the function that a rule names.

    Raises:
        ConfigError: There is none at that place.
    """
    if not isinstance(where, str):
        return where  # type: ignore[return-value]  # asked for rules that have one
    module, _, name = where.partition(":")
    with Attempt() as attempt:
        found: Filter = getattr(import_module(module), name)
        return found
    message = f"The rule's where={where!r} cannot be loaded ({attempt.said}). Write `module:function`."
    raise ConfigError(message)


__all__ = ["Route", "halves", "name_of", "part", "rank_of", "size_of", "split"]
