"""Where the course of a loss went wrong: it diverged, it never fell, or validation and training parted."""

from __future__ import annotations

import numpy as np

from tracer.analysis.goals import words
from tracer.analysis.kinds import LOSS_DIVERGENCE, LOSS_PLATEAU, OVERFITTING, OVERTRAINING
from tracer.analysis.statistics import Values, deviation, noise_scale
from tracer.analysis.windows import Window
from tracer.events import Finding

#: The losses of players of a game, and of an agent that makes its own data, have no course that they should keep.
_WITHOUT_COURSE = frozenset({
    "g", "gen", "generator", "d", "disc", "discriminator", "adv", "adversarial", "critic", "actor", "policy", "pg",
    "value", "q", "td", "entropy", "kl",
})  # fmt: skip
_BLOCKS = 20
_FEWEST_IN_BLOCK = 3
#: A loss diverged when it ends above its best by so many times its noise and by this share of what it had gained.
_SIGMAS, _LOST_SHARE = 8.0, 0.5
_FAR = 10.0
_STAYED = 4.0
#: A loss that lost less than this share of itself, and less than its own noise, has not fallen.
_FALL_SHARE = 0.02
_STANDSTILL = 0.6
_LONG = 500
#: Validation rose when it left its best by this share of what it had gained, and by so many times its noise.
_RISE_SHARE, _RISE_SIGMAS = 0.1, 4.0
_LAST, _FIRST = 3, 5
#: The standard error of a median is so much larger than that of a mean.
_MEDIAN_ERROR = 1.25
_NO_PROGRESS, _NO_PROGRESS_POINTS = 0.6, 8


def divergence(window: Window, *, sigmas: float = _SIGMAS) -> list[Finding]:
    """Find a loss that rises and does not come back by the end of the window.

    Args:
        window: A loss.
        sigmas: How many times its noise it must end above its best.

    Returns:
        At most one finding `loss_divergence`, from where the loss left its best level for good, with `loss`, `best`,
        `best_step`, `z_score`.

    Example:
        >>> import numpy as np
        >>> steps = np.arange(400)
        >>> values = np.where(steps < 200, 1 + 2 * np.exp(-steps / 40), 1 + (steps - 200) / 10) + 0.01 * np.cos(steps)
        >>> [found] = divergence(Window("loss", "loss", steps, values))
        >>> found.kind, found.details["best_step"] < 220
        ('loss_divergence', True)
    """
    known = np.isfinite(window.values)
    steps, values = window.steps[known], window.values[known]
    size = len(values) // _BLOCKS
    if size < _FEWEST_IN_BLOCK or _WITHOUT_COURSE.intersection(words(window.name)):
        return []
    start = len(values) - size * _BLOCKS
    blocks = values[start:].reshape(_BLOCKS, size)
    middles = np.median(blocks, axis=1)
    spread = max(float(np.median([deviation(block) for block in blocks])), noise_scale(values))
    best = int(np.argmin(middles))
    level, end = float(middles[best]), float(middles[-1])
    gained = float(middles[: best + 1].max()) - level
    bar = max(sigmas * spread, _LOST_SHARE * gained, _LOST_SHARE * abs(level))
    if best >= _BLOCKS - 2 or min(middles[-1], middles[-2]) <= level + bar:
        return []
    # It left where it was at its best level for the last time.
    low = np.flatnonzero(values[start + best * size :] <= level + max(_STAYED * spread, _FALL_SHARE * abs(level)))
    left = min(start + best * size + (int(low[-1]) + 1 if len(low) else 0), len(values) - 1)
    first = float(middles[0])
    grave = end > _FAR * abs(first) and end > first
    details = {
        "metric": window.name, "loss": end, "best": level,
        "best_step": int(steps[start + best * size + int(np.argmin(blocks[best]))]),
        "z_score": (end - level) / max(spread, np.finfo(np.float64).tiny),
    }  # fmt: skip
    return [Finding(LOSS_DIVERGENCE, "high" if grave else "medium", int(steps[left]), details, int(steps[-1]))]


def plateau(window: Window, *, share: float = _FALL_SHARE) -> list[Finding]:
    """Find a training loss that never fell, or that stands still for most of a long run.

    Args:
        window: A loss.
        share: A fall by less than this share of the loss is none.

    Returns:
        At most one finding `loss_plateau` with `loss`, `since` and `share` (of the run that it stands still).

    Example:
        >>> import numpy as np
        >>> values = 2.3 + 0.01 * np.cos(np.arange(400) * 7.0)
        >>> [found.severity for found in plateau(Window("loss", "loss", np.arange(400), values))]
        ['medium']
    """
    known = np.isfinite(window.values)
    steps, values = window.steps[known], window.values[known]
    size = len(values) // _BLOCKS
    if (
        size < _FEWEST_IN_BLOCK
        or not known[-1]
        or values.min() <= 0
        or _WITHOUT_COURSE.intersection(words(window.name))
    ):
        return []  # what crosses zero is no distance from a goal; what ends in NaN is not standing still
    middles = np.median(values[: size * _BLOCKS].reshape(_BLOCKS, size), axis=1)
    spread = noise_scale(values)
    early, late = values[: max(len(values) // 10, _FEWEST_IN_BLOCK)], values[-(len(values) // 4) :]
    begin, end = float(np.median(early)), float(np.median(late))
    error = _MEDIAN_ERROR * spread / np.sqrt(len(early))
    if begin - end <= max(share * begin, error):
        if end > begin + _STAYED * error + share * begin:
            return []  # it rose: `divergence` speaks of that
        details = {"metric": window.name, "loss": end, "since": int(steps[0]), "share": 1.0}
        return [Finding(LOSS_PLATEAU, "medium", int(steps[0]), details, int(steps[-1]))]
    bar, spread = share * begin, spread / np.sqrt(size)
    best = np.minimum.accumulate(middles)
    better = np.flatnonzero(best[1:] < best[:-1] - bar / _BLOCKS - spread)
    since = int(better[-1]) + 2 if len(better) else 1
    stood = 1 - since / _BLOCKS
    if stood < _STANDSTILL or len(values) < _LONG or middles[-1] > best[-1] + 4 * spread + bar:
        return []
    if middles[-1] < _LOST_SHARE * max(begin, float(np.median(values[:_FIRST]))):
        return []  # it fell to less than half and is done: that is convergence
    at = int(steps[since * size])
    details = {"metric": window.name, "loss": float(middles[-1]), "since": at, "share": stood}
    return [Finding(LOSS_PLATEAU, "low", at, details, int(steps[-1]))]


def overfitting(window: Window, *, share: float = _RISE_SHARE) -> list[Finding]:
    """Find a validation loss that rises from its best while the training loss goes on falling.

    Args:
        window: A validation loss with the partner `training`.
        share: Its rise must be this share of what it had gained.

    Returns:
        At most one finding `overfitting`, from the best step, with `loss`, `best`, `best_step`, `training`.
    """
    known = np.isfinite(window.values)
    steps, values = window.steps[known], window.values[known]
    training = window.partners["training"]
    if len(values) <= 2 * _LAST:
        return []
    smooth = _smoothed(values)
    best = max(int(np.argmin(smooth)) - 1, 0)
    best += int(np.argmin(values[best : best + _LAST]))  # the median of three moves a sharp turn by one
    level, end = float(smooth[best]), float(np.median(values[-_LAST:]))
    gained = float(np.median(values[:_LAST])) - level
    rise = end - level
    bar = max(share * max(gained, 0.0), _RISE_SIGMAS * noise_scale(values), share * abs(level))
    if best >= len(values) - _LAST or rise <= bar or not _fell(training, int(steps[best]), int(steps[-1])):
        return []
    details = {
        "metric": window.name, "training": training.name, "loss": end, "best": level, "best_step": int(steps[best]),
    }  # fmt: skip
    severity = "high" if rise > max(gained, abs(level)) else "medium"
    return [Finding(OVERFITTING, severity, int(steps[best]), details, int(steps[-1]))]


def overtraining(window: Window, *, share: float = _NO_PROGRESS) -> list[Finding]:
    """Find a validation loss that has not improved for most of the training.

    Args:
        window: A validation loss with the partner `training`.
        share: The share of the evaluations without progress from which it is a finding.

    Returns:
        At most one finding `overtraining`, from the best step, with `loss`, `best`, `best_step`, `share`.
    """
    known = np.isfinite(window.values)
    steps, values = window.steps[known], window.values[known]
    if len(values) < _NO_PROGRESS_POINTS:
        return []
    noise = noise_scale(values)
    least = np.minimum.accumulate(values)
    better = np.flatnonzero(least <= values.min() + noise)
    best = int(better[0])
    without = 1 - (best + 1) / len(values)
    if without < share or len(values) - best <= _NO_PROGRESS_POINTS:
        return []
    details = {
        "metric": window.name, "loss": float(values[-1]), "best": float(values[best]), "best_step": int(steps[best]),
        "share": without,
    }  # fmt: skip
    return [Finding(OVERTRAINING, "low", int(steps[best]), details, int(steps[-1]))]


def _smoothed(values: Values) -> Values:
    """Return the median of each value and its neighbours."""
    padded = np.concatenate([values[:1], values, values[-1:]])
    smooth: Values = np.median(np.stack([padded[:-2], padded[1:-1], padded[2:]]), axis=0)
    return smooth


def _fell(training: Window, first: int, last: int) -> bool:
    """Tell whether the training loss fell between two steps."""
    known = np.isfinite(training.values) & (training.steps >= first) & (training.steps <= last)
    values = training.values[known]
    quarter = len(values) // 4
    if not quarter:
        return False
    return bool(np.median(values[-quarter:]) < np.median(values[:quarter]))


__all__ = ["divergence", "overfitting", "overtraining", "plateau"]
