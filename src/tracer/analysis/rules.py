"""The table of rules: which detector looks at what. The store is searched with it, and so is a run that is under way.

A detector is a pure function `detect(window, **options) -> list[Finding]`; a window of the last few hundred steps
serves it as well as a whole run. Rules with `live=False` need the whole course of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tracer.analysis import activations, courses, finiteness, gradients, kinds, losses, memory, pace, ranks, tensors
from tracer.analysis import windows as subjects
from tracer.analysis.windows import Window
from tracer.events import Finding

Detector = Callable[..., list[Finding]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One detector and what it takes.

    Args:
        kinds: The kinds of its findings.
        subject: Which windows it takes, see `windows`.
        detect: The detector; takes a `Window` and options by name.
        statistics: The tables that a window of layers must have.
        partners: The partners that a window must have.
        fewest: With fewer steps it says nothing.
        live: Whether it makes sense of the last few hundred steps alone.
    """

    kinds: tuple[str, ...]
    subject: str
    detect: Detector
    statistics: tuple[str, ...] = ()
    partners: tuple[str, ...] = ()
    fewest: int = 1
    live: bool = True

    def takes(self, window: Window) -> bool:
        """Tell whether a window is of its subject and holds what it needs."""
        return (
            window.subject == self.subject
            and len(window) >= self.fewest
            and window.has(*self.statistics)
            and all(name in window.partners for name in self.partners)
        )


RULES = (
    # One metric.
    Rule((kinds.LOSS_SPIKE, kinds.LOSS_DROP), subjects.LOSS, losses.departures, fewest=11),
    Rule((kinds.LOSS_DIVERGENCE,), subjects.LOSS, courses.divergence, fewest=60),
    Rule((kinds.LOSS_PLATEAU,), subjects.LOSS, courses.plateau, fewest=200, live=False),
    Rule((kinds.OVERFITTING,), subjects.PAIR, courses.overfitting, partners=("training",), fewest=8, live=False),
    Rule((kinds.OVERTRAINING,), subjects.PAIR, courses.overtraining, fewest=12, live=False),
    Rule((kinds.NAN_OR_INF,), subjects.METRIC, finiteness.metric_not_finite),
    Rule((kinds.GRADIENT_EXPLOSION,), subjects.NORM, gradients.logged_norm_explosions, fewest=11),
    # One statistic of each layer.
    Rule((kinds.NAN_OR_INF,), subjects.GRADIENTS, finiteness.layers_not_finite, ("nans", "infs")),
    Rule((kinds.NAN_OR_INF,), subjects.WEIGHTS, finiteness.layers_not_finite, ("nans", "infs")),
    Rule((kinds.NAN_OR_INF,), subjects.ACTIVATIONS, finiteness.layers_not_finite, ("nans", "infs")),
    Rule((kinds.GRADIENT_EXPLOSION,), subjects.GRADIENTS, gradients.explosions, ("norm",)),
    Rule((kinds.VANISHING_GRADIENT,), subjects.GRADIENTS, gradients.vanishing, ("norm",)),
    Rule((kinds.ALL_ZERO,), subjects.GRADIENTS, tensors.all_zero, ("norm",), fewest=16, live=False),
    Rule((kinds.ALL_ZERO,), subjects.WEIGHTS, tensors.all_zero, ("norm",), fewest=16, live=False),
    Rule((kinds.UPDATE_RATIO,), subjects.UPDATES, tensors.update_ratios, ("ratio",), fewest=16),
    Rule((kinds.UNCHANGED_TENSOR,), subjects.UPDATES, tensors.unchanged, ("ratio",), ("gradients",), fewest=16),
    Rule((kinds.UNCHANGED_TENSOR,), subjects.WEIGHTS, tensors.unchanged, ("norm",), ("gradients",), fewest=16),
    Rule((kinds.TENSOR_VARIANCE,), subjects.WEIGHTS, tensors.spreads, ("std",), fewest=16),
    Rule((kinds.POOR_WEIGHT_INITIALIZATION,), subjects.WEIGHTS, tensors.equal_weights, ("std", "mean"), live=False),
    Rule((kinds.POOR_WEIGHT_INITIALIZATION,), subjects.ACTIVATIONS, activations.signals, ("std",), live=False),
    Rule((kinds.DEAD_RELU,), subjects.ACTIVATIONS, activations.dead_units, ("dead",)),
    Rule((kinds.SATURATED_ACTIVATION,), subjects.ACTIVATIONS, activations.saturated_units, ("saturated",)),
    # The machine.
    Rule((kinds.MEMORY_SPIKE,), subjects.MEMORY, memory.spikes),
    Rule((kinds.MEMORY_GROWTH,), subjects.MEMORY_USE, memory.growth, fewest=30, live=False),
    Rule((kinds.THROUGHPUT_DROP,), subjects.STEP_TIME, pace.throughput_drops, fewest=60),
    Rule((kinds.DATA_LOADER_STALL,), subjects.DATA_TIME, pace.data_stalls, fewest=20),
    Rule((kinds.STALLED_TRAINING,), subjects.TIMES, pace.pauses, fewest=20),
    # Several ranks.
    Rule((kinds.RANK_DIVERGENCE,), subjects.RANKS, ranks.divergence, ("value",), fewest=20),
    Rule((kinds.STRAGGLER,), subjects.RANK_TIMES, ranks.stragglers, ("value",), fewest=20),
)


def rules_for(window: Window, wanted: Iterable[str] | None = None, *, live: bool = False) -> Iterator[Rule]:
    """Yield the rules that take a window.

    Args:
        window: What there is to look at.
        wanted: Only rules that find one of these kinds; all when None.
        live: Only rules that make sense of the last steps alone.
    """
    chosen = None if wanted is None else set(wanted)
    for rule in RULES:
        if (chosen is None or chosen.intersection(rule.kinds)) and (rule.live or not live) and rule.takes(window):
            yield rule


def findings_in(window: Window, wanted: Iterable[str] | None = None, *, live: bool = False) -> list[Finding]:
    """Return what all rules find in a window, by step; see `rules_for`."""
    chosen = None if wanted is None else set(wanted)
    found = [one for rule in rules_for(window, chosen, live=live) for one in rule.detect(window)]
    return sorted((one for one in found if chosen is None or one.kind in chosen), key=lambda one: (one.step, one.kind))


__all__ = ["RULES", "Detector", "Rule", "Window", "findings_in", "rules_for"]
