"""Our own cost, measured, and kept under a share of the training's time by looking less often.

Each instrument that runs inside the training says what a look cost; the governor turns that into an interval: a power
of two of steps, so that what different instruments saw falls on the same steps. A dearer look widens the interval at
once; a cheaper one narrows it only after it stayed cheap for a while. After an alarm everything looks at every step.

Decisions depend on the figures that are passed in alone: ranks that agree on the figures agree on the steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

#: How far apart looks may come; a tensor is then still seen a few times in a short run.
LONGEST_INTERVAL = 1024
#: The median of so many looks is what a look costs: the first one warms caches, and a neighbour may disturb one.
_REMEMBERED = 5
#: So long a cheaper look must stay cheap before the interval is narrowed, in steps.
_PATIENCE = 200
#: In the first steps the figures are those of warming up: the interval follows them freely, but stays short.
_WARM_UP, _WARM_UP_INTERVAL = 32, 8
#: How many steps everything is looked at after an alarm.
_ALARM_STEPS = 20


class Instrument:
    """One kind of look, and how often it may happen.

    Args:
        name: What it is called in the run's account.
        share: The part of the allowance that is its own.
        allowance: Returns the share of the time that all instruments may take together.
        report: Told whenever the interval changes.
    """

    def __init__(
        self, name: str, share: float, allowance: Callable[[], float], report: Callable[[str, int, float], None]
    ) -> None:
        self.name, self.interval, self.looks = name, 1, 0
        self.together = False  # whether several ranks look at the same steps: no alarm of one of them changes that
        self.cost_s = self.last_s = 0.0
        self._share, self._allowance, self._report = share, allowance, report
        self._recent: deque[float] = deque(maxlen=_REMEMBERED)
        self._cheap_for = 0
        self._seen = 0

    def looked(self, seconds: float, step_seconds: float) -> None:
        """Take the cost of a look, and choose how long to wait until the next one.

        Args:
            seconds: What the look cost.
            step_seconds: How long a step takes without it; 0 while that is not known.
        """
        self._account(seconds)
        self._recent.append(seconds)
        self._decide(self._share * self._allowance() * step_seconds, step_seconds)

    def looked_together(self, seconds: float, agreed: tuple[float, float] | None, max_overhead: float) -> None:
        """Take the cost of a look of several ranks, which decide alike: only what they agreed upon counts.

        Args:
            seconds: What the look cost here.
            agreed: What the dearest look and the slowest step of all ranks took, None while they know nothing yet.
            max_overhead: The share of the time that all instruments may take together.
        """
        self.together = True
        self._account(seconds)
        if agreed is not None:
            cost, step_seconds = agreed
            self._recent.append(cost)
            self._decide(self._share * max_overhead * step_seconds, step_seconds)

    def _account(self, seconds: float) -> None:
        """Add a look to the account."""
        self.looks += 1
        self.cost_s += seconds
        self.last_s = seconds
        self._seen += self.interval

    def _decide(self, allowed: float, step_seconds: float) -> None:
        """Choose the interval: no look may cost more than is allowed in the steps until the next one."""
        if step_seconds <= 0.0:
            return
        usual = sorted(self._recent)[len(self._recent) // 2]
        wanted = _interval(usual, allowed)
        if self._seen <= _WARM_UP:
            self._set(min(wanted, _WARM_UP_INTERVAL), usual / step_seconds)
        elif wanted > self.interval:
            self._set(wanted, usual / step_seconds)
        elif wanted < self.interval:
            self._cheap_for += self.interval
            if self._cheap_for >= _PATIENCE:
                self._set(self.interval // 2, usual / step_seconds)
        else:
            self._cheap_for = 0

    def add(self, seconds: float) -> None:
        """Take the cost of a second part of the last look."""
        self.cost_s += seconds
        self.last_s += seconds
        if not self.together:
            self._recent[-1] += seconds

    def _set(self, interval: int, cost_share: float) -> None:
        """Change the interval, and have it told."""
        self._cheap_for = 0
        if interval != self.interval:
            self.interval = interval
            self._report(self.name, interval, cost_share)


class Governor:
    """Shares the allowance among the instruments, and keeps the account of what they cost.

    Args:
        max_overhead: The share of the training's time that all instruments may take together.
        report: Told of each change: the instrument's name, its new interval, the share of a step that a look takes.

    Example:
        >>> governor = Governor(0.01)
        >>> looks = governor.instrument("gradients", share=1.0)
        >>> for _ in range(40):  # a look of 4 ms beside steps of 100 ms is four times too dear
        ...     looks.looked(0.004, step_seconds=0.1)
        >>> looks.interval
        4
    """

    def __init__(self, max_overhead: float, report: Callable[[str, int, float], None] | None = None) -> None:
        self.max_overhead = max_overhead
        self.instruments: dict[str, Instrument] = {}
        self.step_seconds = 0.0  # how long a step takes without us: a moving average
        self.fixed_s = 0.0  # the cost of what looks at every step and is never thinned out
        self._fixed_per_step = 0.0
        self._report = report or _say_nothing
        self.total_s = 0.0  # the time of all steps, with what we did in them
        self._alarmed_until = -1
        self._steps = 0

    def instrument(self, name: str, *, share: float) -> Instrument:
        """Return the instrument of this name, made at the first call."""
        if name not in self.instruments:
            self.instruments[name] = Instrument(name, share, self._allowance, self._report)
        return self.instruments[name]

    def due(self, instrument: Instrument) -> bool:
        """Tell whether an instrument looks at the present step."""
        alarmed = self._steps <= self._alarmed_until and not instrument.together
        return self._steps % instrument.interval == 0 or alarmed

    def due_next(self, instrument: Instrument) -> bool:
        """Tell whether an instrument looks at the step after the present one."""
        alarmed = self._steps < self._alarmed_until and not instrument.together
        return (self._steps + 1) % instrument.interval == 0 or alarmed

    def alarm(self) -> None:
        """Have everything looked at for some steps: something seems wrong."""
        self._alarmed_until = self._steps + _ALARM_STEPS

    def spend(self, seconds: float) -> None:
        """Take the cost of something that is done at every step whatever it costs."""
        self.fixed_s += seconds
        self._fixed_per_step += seconds

    def step_ended(self, seconds: float) -> None:
        """Take how long a step took, with what we did in it."""
        self._steps += 1
        self.total_s += seconds
        without = max(seconds - self._fixed_per_step, 0.0)
        self._fixed_per_step = 0.0
        # Longer steps (an evaluation, a checkpoint) are no reason to look more often: they count little.
        weight = 0.1 if without <= 2 * self.step_seconds or self._steps < _REMEMBERED else 0.01
        self.step_seconds += (without - self.step_seconds) * (1.0 if self._steps == 1 else weight)

    @property
    def cost_s(self) -> float:
        """What everything cost so far."""
        return self.fixed_s + sum(one.cost_s for one in self.instruments.values())

    @property
    def overhead(self) -> float:
        """What everything cost as a share of the time of the steps, 0 before the first."""
        return self.cost_s / self.total_s if self.total_s else 0.0

    def _allowance(self) -> float:
        """Return what is left for the instruments once the fixed part is paid; never nothing."""
        if not self.step_seconds or not self._steps:
            return self.max_overhead
        fixed = self.fixed_s / self._steps / self.step_seconds
        return max(self.max_overhead - fixed, self.max_overhead / 8)


def _interval(cost: float, allowed: float) -> int:
    """Return the smallest power of two of steps over which a cost is allowed."""
    interval = 1
    while interval < LONGEST_INTERVAL and cost > allowed * interval:
        interval *= 2
    return interval


def _say_nothing(name: str, interval: int, cost_share: float) -> None:
    """Tell nobody of a change."""


__all__ = ["LONGEST_INTERVAL", "Governor", "Instrument"]
