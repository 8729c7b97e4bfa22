"""Troubles that open, go on and close: what a detector finds again every second is stored once.

An episode is one kind of trouble with one thing (a metric, a layer) over overlapping steps. Its finding keeps kind,
step and subject for its whole life, so that what is stored of it later replaces what was stored first. Standard
library only.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

from tracer.analysis import severities
from tracer.events import Finding

#: What a finding is about: with kind and step these make two findings the same, in the store too.
ABOUT = ("metric", "layer", "layer_name", "parameter")
#: An episode is stored again while it lasts when its length has grown by this factor, and by so many steps.
_GROWTH, _LEAST_GROWTH = 4, 100
_MAX_CLOSED = 256
#: New episodes of one kind in one look; a network that explodes does so in every layer.
_MAX_NEW = 24
_EVER = 2**63


class Episode:
    """One trouble while it lasts."""

    __slots__ = ("about", "count", "details", "is_open", "kind", "last_step", "severity", "source", "step", "stored")

    def __init__(self, finding: Finding, source: object = None) -> None:
        self.source = source
        self.kind, self.about, self.step = finding.kind, about(finding), finding.step
        self.last_step, self.severity, self.details = end_of(finding), finding.severity, dict(finding.details)
        self.count, self.is_open = 1, True
        self.stored: tuple[int, str, object] | None = None

    def extend(self, finding: Finding) -> None:
        """Take what a later look found of the same trouble."""
        grew = end_of(finding) > self.last_step
        worse = severities.rank(finding.severity) > severities.rank(self.severity)
        if worse or end_of(finding) >= self.last_step:  # what came after may tell more of the same
            kept = {key: self.details[key] for key in ABOUT if key in self.details}
            self.details = {**self.details, **finding.details, **kept}
        if grew:
            self.count += 1
            self.last_step, self.is_open = end_of(finding), True
        if worse:
            self.severity = finding.severity

    def finding(self) -> Finding:
        """Return the finding as it stands now, to be stored."""
        self.stored = (self.last_step, self.severity, self.details.get("recovered"))
        return Finding(self.kind, self.severity, self.step, dict(self.details), self.last_step)

    @property
    def is_worse(self) -> bool:
        """Whether it became graver since it was stored."""
        return self.stored is not None and severities.rank(self.severity) > severities.rank(self.stored[1])

    @property
    def grew(self) -> bool:
        """Whether it lasts much longer than what was stored says."""
        if self.stored is None:
            return False
        length, stored = self.last_step - self.step, self.stored[0] - self.step
        return length >= _GROWTH * stored and length - stored >= _LEAST_GROWTH

    @property
    def changed(self) -> bool:
        """Whether what was stored is out of date."""
        return self.stored != (self.last_step, self.severity, self.details.get("recovered"))

    def meets(self, finding: Finding, gap: int, source: object = None) -> bool:
        """Tell whether a finding is the same trouble: of all layers of an axis the worst may change."""
        return (
            self.kind == finding.kind
            and finding.step <= self.last_step + gap
            and end_of(finding) >= self.step - gap
            and (self.about == about(finding) or ("layers" in finding.details and source == self.source))
        )


class Episodes:
    """All episodes of a run.

    Example:
        >>> episodes = Episodes()
        >>> first = Finding("loss_spike", "medium", 40, {"metric": "loss"}, 41)
        >>> [one.finding().step for one in episodes.see([first], gap=10)], episodes.see([first], gap=10)
        ([40], [])
        >>> longer = Finding("loss_spike", "medium", 40, {"metric": "loss"}, 45)
        >>> episodes.see([longer], gap=10), [found.last_step for found in episodes.close_before(60)]
        ([], [45])
    """

    def __init__(self) -> None:
        self._known: list[Episode] = []
        self._foreign: list[tuple[str, int, int]] = []

    def hear(self, finding: Finding) -> None:
        """Take note of what somebody else found and stored: it is not reported a second time."""
        self._foreign = [*self._foreign[-_MAX_CLOSED:], (finding.kind, finding.step, end_of(finding))]

    def heard(self, finding: Finding) -> bool:
        """Tell whether somebody else reported this trouble: the same kind, with steps that overlap or touch."""
        return any(
            kind == finding.kind and first <= end_of(finding) + 1 and finding.step <= last + 1
            for kind, first, last in self._foreign
        )

    def see(self, findings: list[Finding], gap: int, source: object = None, since: int | None = None) -> list[Episode]:
        """Take what a look found; return the episodes that are new or became graver, to be stored and acted upon.

        Args:
            findings: What was found.
            gap: So many steps may lie between two parts of one episode.
            source: The series that was looked at; `close_before` speaks of it.
            since: Where the window began: a trouble that is there already goes on, however long nobody looked.
        """
        fresh: list[Episode] = []
        for finding in sorted(findings, key=lambda one: (-severities.rank(one.severity), one.step)):
            reach = _EVER if since is not None and finding.step <= since else gap
            episode = next((one for one in reversed(self._known) if one.meets(finding, reach, source)), None)
            if episode is not None:
                episode.extend(finding)
                if episode.is_worse and episode not in fresh:
                    fresh.append(episode)
            elif not self.heard(finding) and sum(one.kind == finding.kind for one in fresh) < _MAX_NEW:
                fresh.append(self.open(finding, source))
        self._forget()
        return fresh

    def open(self, finding: Finding, source: object = None) -> Episode:
        """Begin an episode."""
        episode = Episode(finding, source)
        self._known.append(episode)
        return episode

    def meets(self, finding: Finding, gap: int) -> bool:
        """Tell whether this trouble is known."""
        return any(one.meets(finding, gap) for one in tuple(self._known))

    def note(self, finding: Finding, details: Mapping[str, object]) -> None:
        """Add what was learnt about a finding to its episode, so that a later version of it says so too."""
        for one in self._known:
            if (one.kind, one.step, one.about) == (finding.kind, finding.step, about(finding)):
                one.details.update(details)

    def updates(self) -> list[Finding]:
        """Return what is to be stored again although it is not over."""
        return [one.finding() for one in self._known if one.is_open and one.grew]

    def prolong(self, last_steps: Mapping[str, int]) -> None:
        """Let the episodes of metrics last up to a step, by the metric's name."""
        for one in self._known:
            last = last_steps.get(str(one.about[0]))
            if last is not None and one.is_open:
                one.last_step = max(one.last_step, last)

    def close_before(self, step: int, source: object = None) -> list[Finding]:
        """Close what ended before a step; return what is to be stored again.

        Args:
            step: Up to here everything was looked at.
            source: Only episodes of this series; all when None.
        """
        closed = []
        for one in self._known:
            if one.is_open and one.last_step < step and source in (None, one.source):
                one.is_open = False
                if one.changed:
                    closed.append(one.finding())
        return closed

    def _forget(self) -> None:
        """Forget the oldest of those that are over."""
        over = [one for one in self._known if not one.is_open]
        for one in over[: max(len(over) - _MAX_CLOSED, 0)]:
            self._known.remove(one)


def about(finding: Finding) -> tuple[object, ...]:
    """Return what a finding is about."""
    return tuple(finding.details.get(key) for key in ABOUT)


def end_of(finding: Finding) -> int:
    """Return the last step of a finding."""
    return finding.step if finding.last_step is None else max(finding.last_step, finding.step)


__all__ = ["ABOUT", "Episode", "Episodes", "about", "end_of"]
