"""Findings in words: a sentence with figures that a person understands, and what to do. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from tracer.analysis import kinds
from tracer.events import Finding

Details = Mapping[str, object]

_THOUSAND = 1000.0
_PER_CENT = 100.0
_MINUTE, _HOUR = 60.0, 3600.0
_FEW = 3


def explanation(found: Finding) -> str:
    """Return what was found as a sentence or two.

    Args:
        found: A finding with the details of its detector.

    Returns:
        A text without line breaks; for a kind that is not known, one that names it.

    Example:
        >>> evidence = {"layer": "mlp", "norm": 812.0, "usual": 20.3, "ratio": 40.0}
        >>> explanation(Finding("gradient_explosion", "high", 4209, evidence))
        'The gradient norm of mlp rose to 812 at step 4,209, 40 times what was usual (20.3).'
    """
    sentence = _SENTENCES.get(found.kind)
    text = (
        sentence(found, found.details) if sentence else f"{found.kind.replace('_', ' ').capitalize()} at {_at(found)}."
    )
    return text + _others(found) + _reached(found.details)


def remedy(found: Finding) -> str:
    """Return what to do about a finding; empty for a kind that is not known."""
    kind = kinds.KINDS.get(found.kind)
    return kind.remedy if kind else ""


def said(value: object, digits: int = 3) -> str:
    """Return a number as it is said in a sentence.

    Example:
        >>> [said(value) for value in (0.00123456, 1234.5, 40, 1e9, float("nan"), None)]
        ['0.00123', '1,234', '40', '1e+09', 'NaN', 'unknown']
    """
    if not isinstance(value, (int, float)):
        return "unknown" if value is None else str(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "infinity" if value > 0 else "minus infinity"
    if _THOUSAND <= abs(value) < _THOUSAND**2:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def times(value: object) -> str:
    """Return a factor in words; how many millions it is tells nothing more."""
    if isinstance(value, (int, float)) and value > _THOUSAND**2:
        return "more than a million times"
    return f"{said(value)} times"


def step_name(step: int) -> str:
    """Return a step as text."""
    return f"step {step:,}"


def _at(found: Finding) -> str:
    """Return where a finding lies."""
    if found.last_step is None or found.last_step <= found.step:
        return step_name(found.step)
    return f"steps {found.step:,} to {found.last_step:,}"


def _percent(value: object) -> str:
    """Return a share in per cent; what is not all is never said to be."""
    if not isinstance(value, (int, float)):
        return said(value)
    return f"{min(value * _PER_CENT, 100.0 if value >= 1 else 99.9):.3g} %"


def _seconds(value: object) -> str:
    """Return a duration."""
    if not isinstance(value, (int, float)):
        return said(value)
    if value >= _HOUR:
        return f"{value / _HOUR:.3g} h"
    if value >= 2 * _MINUTE:
        return f"{value / _MINUTE:.3g} min"
    return f"{value:.3g} s" if value >= 1 else f"{value * _THOUSAND:.3g} ms"


def _others(found: Finding) -> str:
    """Return how many more layers are in the same trouble."""
    details = found.details
    layers = details.get("layers")
    if isinstance(layers, (list, tuple)) and len(layers) > 1:
        count = details.get("layer_count")
        more = (count if isinstance(count, int) else len(layers)) - 1
        return f" {more:,} more {'layers are' if more > 1 else 'layer is'} affected{_named(layers[1:], more)}"
    return ""


def _named(names: list[object] | tuple[object, ...], more: int) -> str:
    """Return the first of some names."""
    shown = ", ".join(map(str, names[:_FEW]))
    return f": {shown}, …" if more > min(_FEW, len(names)) else f": {shown}."


def _unheard_of(found: Finding, _: Details) -> str:
    return f"{found.kind.replace('_', ' ').capitalize()} at {_at(found)}."


def _explosion(found: Finding, details: Details) -> str:
    where = f"The gradient norm of {details.get('layer')}" if details.get("layer") else "The gradient norm"
    infinite = math.isinf(_float(details.get("norm")))
    text = f"{where} {'became infinite' if infinite else 'rose to ' + said(details.get('norm'))} at {_at(found)}"
    if infinite and details.get("usual") is not None:
        return f"{text}; {said(details['usual'])} was usual."
    if details.get("ratio") is not None:
        usual = f" ({said(details['usual'])})" if details.get("usual") is not None else ""
        return f"{text}, {times(details['ratio'])} what was usual{usual}."
    return f"{text}, above {said(details.get('threshold'))}."


def _vanishing(found: Finding, details: Details) -> str:
    text = f"The gradient norm of {details.get('layer')} was as small as {said(details.get('norm'))} at {_at(found)}"
    if details.get("beside"):
        return f"{text}, while the largest layers had {said(details.get('usual'))}."
    if details.get("usual") is not None:
        return f"{text}; {said(details['usual'])} was usual."
    return f"{text}, below {said(details.get('threshold'))}."


def _spike(found: Finding, details: Details) -> str:
    text = (
        f"{details.get('metric', 'The loss')} jumped from {said(details.get('window_mean'))} to "
        f"{said(details.get('loss'))} at {_at(found)}, {times(details.get('z_score'))} its noise"
    )
    recovered = details.get("recovered")
    return (
        text
        + ("." if recovered is None else " and came back." if recovered else " and did not come back.")
        + rows(details)
    )


def rows(details: Details) -> str:
    """Return which rows of the batch carry the loss, as a sentence; empty where nobody measured it."""
    found = details.get("rows")
    if not isinstance(found, (list, tuple)) or not found:
        return ""
    named = [one for one in found if isinstance(one, Mapping)]
    names = [str(one.get("row")) for one in named[:_FEW]]
    share = sum(float(one.get("share") or 0.0) for one in named)
    listed = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1] if names else ""
    more = f" and {len(named) - _FEW} more" if len(named) > _FEW else ""
    if not listed:
        return ""
    if len(named) == 1:
        return f" Row {listed} carries {_percent(share)} of the loss of its batch."
    return f" Rows {listed}{more} carry {_percent(share)} of the loss of their batch."


def _drop(found: Finding, details: Details) -> str:
    far = times(abs(_float(details.get("z_score"))))
    return (
        f"{details.get('metric', 'The loss')} fell from {said(details.get('window_mean'))} to "
        f"{said(details.get('loss'))} at {step_name(found.step)}, {far} its noise."
    )


def _plateau(found: Finding, details: Details) -> str:
    metric, loss = details.get("metric"), said(details.get("loss"))
    if _float(details.get("share")) >= 1:
        return f"{metric} never fell: it is {loss} at {step_name(found.last_step or found.step)}, as in the beginning."
    share = _percent(details.get("share"))
    return f"{metric} stands at {loss} since {step_name(found.step)}, for {share} of the run."


def _divergence(found: Finding, details: Details) -> str:
    best = details.get("best_step")
    where = f" at {step_name(best)}" if isinstance(best, int) else ""
    return (
        f"{details.get('metric')} rises since {step_name(found.step)} and ends at {said(details.get('loss'))}; its "
        f"best was {said(details.get('best'))}{where}."
    )


def _not_finite(found: Finding, details: Details) -> str:
    nans, infs = details.get("num_nans"), details.get("num_infs")
    counts = [f"{said(count)} {name}" for count, name in ((nans, "NaN"), (infs, "infinite")) if count]
    what = " and ".join(counts) or "not finite"
    if details.get("placeholder"):
        return f"{details.get('metric')} is NaN wherever it was not measured ({what}); that looks meant."
    if details.get("metric"):
        last = "" if found.last_step in (None, found.step) else f" to {found.last_step:,}"
        steps = "" if not last else f" ({what})"
        sort = "NaN" if nans and not infs else "infinite" if infs and not nans else "NaN or infinite"
        return (
            f"{details['metric']} is {sort} from {step_name(found.step)}{last}{steps}."
            if last
            else (f"{details['metric']} is {sort} at {step_name(found.step)}.")
        )
    if details.get("layer") is None:
        return f"The gradients are not finite at {_at(found)}."
    name = _tensors(details.get("what"))
    verb = "holds" if name == "gradient" else "hold"
    last = "" if found.last_step in (None, found.step) else f", and it lasts until {step_name(found.last_step or 0)}"
    return f"The {name} of {details.get('layer')} {verb} {what} values at {step_name(found.step)}{last}."


def _tensors(what: object) -> str:
    """Return what the tensors of an axis are called."""
    return {"weights": "weights", "activations": "outputs"}.get(str(what), "gradient")


def _reached(details: Details) -> str:
    """Return how far NaN spread from where it was first."""
    found = details.get("reached")
    if not isinstance(found, (list, tuple)):
        return ""
    parts = []
    for one in found:
        count = one["layers"]
        many = f" of {count} layers" if count > 1 else ""
        what = {"weights": "the weights", "activations": "the outputs", "gradients": "the gradients"}.get(one["what"])
        parts.append(f"{what + many if what else one['what']} at {step_name(one['step'])}")
    return f" It reached {', '.join(parts)}." if parts else ""


def _dead(found: Finding, details: Details) -> str:
    share = _percent(details.get("share"))
    return f"{share} of the units of {details.get('layer')} are zero for every row, at {_at(found)}."


def _saturated(found: Finding, details: Details) -> str:
    share = _percent(details.get("share"))
    return f"{share} of the outputs of {details.get('layer')} lie at the flat ends of its function, at {_at(found)}."


def _update(found: Finding, details: Details) -> str:
    text = f"A step changes {details.get('layer')} by {said(details.get('ratio'))} of its size at {_at(found)}"
    if details.get("usual") is not None:
        return f"{text}; {said(details['usual'])} was usual."
    small = _float(details.get("ratio")) < _float(details.get("threshold"))
    return f"{text}, {'below' if small else 'above'} {said(details.get('threshold'))}; about 0.001 is healthy."


def _unchanged(found: Finding, details: Details) -> str:
    layer, count = details.get("layer"), said(details.get("rows"))
    return f"{layer} did not change in {count} recorded steps, {_at(found)}, although it receives a gradient."


def _zero(found: Finding, details: Details) -> str:
    what = "The gradient" if details.get("what") == "gradients" else "The tensor"
    return f"{what} of {details.get('layer')} is nothing but zeros at {_at(found)}."


def _variance(found: Finding, details: Details) -> str:
    return (
        f"The weights of {details.get('layer')} spread by {said(details.get('std'))} at {_at(found)}, "
        f"{times(details.get('ratio'))} what they did in the beginning ({said(details.get('usual'))})."
    )


def _initialization(_: Finding, details: Details) -> str:
    if details.get("ratio") is not None:
        grow = "grows" if _float(details["ratio"]) > 1 else "fades"
        far = times(details["ratio"])
        return f"The signal {grow} through the network: at {details.get('layer')} it spreads {far} as far."
    value = said(details.get("mean"))
    return f"All weights of {details.get('layer')} begin at {value}, so that all its units learn the same."


def _overfitting(found: Finding, details: Details) -> str:
    return (
        f"{details.get('metric')} rose from {said(details.get('best'))} at {step_name(found.step)} to "
        f"{said(details.get('loss'))} while {details.get('training')} fell."
    )


def _overtraining(found: Finding, details: Details) -> str:
    return (
        f"{details.get('metric')} was best ({said(details.get('best'))}) at {step_name(found.step)}; "
        f"{_percent(details.get('share'))} of the evaluations came after it."
    )


def _memory_spike(found: Finding, details: Details) -> str:
    return f"{_memory_name(details)} was {said(details.get('memory_util'))} % full at {_at(found)}."


def _memory_growth(found: Finding, details: Details) -> str:
    rate = f", {said(details['per_hour'])} GB an hour" if details.get("per_hour") is not None else ""
    return (
        f"{details.get('metric')} grew from {said(details.get('first'))} to {said(details.get('last'))} GB between "
        f"{step_name(found.step)} and {step_name(found.last_step or found.step)}{rate}, and did not level off."
    )


def _throughput(found: Finding, details: Details) -> str:
    lost = f"; that cost {_seconds(details['lost_s'])}" if details.get("lost_s") is not None else ""
    return (
        f"Steps take {_seconds(details.get('seconds'))} at {_at(found)}, {times(details.get('ratio'))} the usual "
        f"{_seconds(details.get('usual'))}{lost}."
    )


def _data(found: Finding, details: Details) -> str:
    if details.get("share") is not None:
        share = _percent(details["share"])
        return (
            f"{share} of the time of {_at(found)} went by waiting for data, {_seconds(details.get('seconds'))} a step."
        )
    return (
        f"The batch of {step_name(found.step)} was {_seconds(details.get('seconds'))} late; "
        f"{_seconds(details.get('usual'))} is usual."
    )


def _stalled(found: Finding, details: Details) -> str:
    return (
        f"After {step_name(found.step)} nothing was recorded for {_seconds(details.get('seconds'))}; "
        f"{_seconds(details.get('usual'))} is usual."
    )


def _rank_divergence(found: Finding, details: Details) -> str:
    return (
        f"{details.get('metric')} of rank {details.get('rank')} is {said(details.get('value'))} at {_at(found)}, while "
        f"the other ranks have {said(details.get('others'))}."
    )


def _straggler(found: Finding, details: Details) -> str:
    return (
        f"Rank {details.get('rank')} takes {_seconds(details.get('seconds'))} a step at {_at(found)}, "
        f"{times(details.get('ratio'))} the {_seconds(details.get('others'))} of the others."
    )


def _similar(_: Finding, details: Details) -> str:
    values, run = said(details.get("values")), details.get("run")
    return f"{details.get('metric')} has exactly the {values} values that run {run} has, though their settings differ."


def _bad_rows(found: Finding, details: Details) -> str:
    return rows(details).strip() or f"A few rows carry most of the loss at {_at(found)}."


def _memory_name(details: Details) -> str:
    """Return whose memory it is."""
    return f"The memory of GPU {details['gpu']}" if details.get("gpu") is not None else "The machine's memory"


def _float(value: object) -> float:
    """Return a number of the details; NaN where there is none."""
    return float(value) if isinstance(value, (int, float)) else math.nan


_SENTENCES: dict[str, Callable[[Finding, Details], str]] = {
    kinds.GRADIENT_EXPLOSION: _explosion,
    kinds.VANISHING_GRADIENT: _vanishing,
    kinds.LOSS_SPIKE: _spike,
    kinds.LOSS_DROP: _drop,
    kinds.LOSS_PLATEAU: _plateau,
    kinds.LOSS_DIVERGENCE: _divergence,
    kinds.NAN_OR_INF: _not_finite,
    kinds.DEAD_RELU: _dead,
    kinds.SATURATED_ACTIVATION: _saturated,
    kinds.UPDATE_RATIO: _update,
    kinds.UNCHANGED_TENSOR: _unchanged,
    kinds.ALL_ZERO: _zero,
    kinds.TENSOR_VARIANCE: _variance,
    kinds.POOR_WEIGHT_INITIALIZATION: _initialization,
    kinds.OVERFITTING: _overfitting,
    kinds.OVERTRAINING: _overtraining,
    kinds.MEMORY_SPIKE: _memory_spike,
    kinds.MEMORY_GROWTH: _memory_growth,
    kinds.THROUGHPUT_DROP: _throughput,
    kinds.DATA_LOADER_STALL: _data,
    kinds.STALLED_TRAINING: _stalled,
    kinds.RANK_DIVERGENCE: _rank_divergence,
    kinds.STRAGGLER: _straggler,
    kinds.SIMILAR_ACROSS_RUNS: _similar,
    kinds.BAD_ROWS: _bad_rows,
}

__all__ = ["explanation", "remedy", "rows", "said", "step_name", "times"]
