"""Which direction is better for a metric: what the run declared, else what the name says, else nobody knows.

A name is split into words at anything that is no letter or digit and at changes of case, so `val/topK_accuracy` has the
words `val`, `top`, `k` and `accuracy`. Standard library only.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

import itertools
import re

MINIMISE, MAXIMISE = "min", "max"

_LOSS = frozenset({"loss", "losses", "nll", "bce", "mse", "rmse", "mae", "perplexity", "ppl", "xent", "crossentropy"})
_LOWER = _LOSS | frozenset({
    "error", "errors", "err", "wer", "cer", "fid", "kid", "bpb", "bpc", "regret", "cost", "divergence", "kl", "mape",
    "smape", "latency", "time", "seconds", "duration", "memory", "violations", "eer", "ece", "brier", "distance",
})  # fmt: skip
_HIGHER = frozenset({
    "accuracy", "acc", "f1", "f2", "fbeta", "auc", "auroc", "auprc", "map", "ap", "precision", "recall", "bleu",
    "rouge", "rougel", "meteor", "iou", "miou", "dice", "jaccard", "psnr", "ssim", "r2", "reward", "return",
    "returns", "score", "success", "wins", "throughput", "mfu", "kappa", "mcc", "ndcg", "mrr", "hits", "similarity",
    "correlation", "pearson", "spearman", "likelihood", "top1", "top5", "specificity", "sensitivity", "spice",
    "cider", "em",
})  # fmt: skip
#: A setting that is named after what it acts on: `loss_scale` is no loss.
_SETTINGS = frozenset({"scale", "weight", "coef", "coefficient", "factor", "threshold"})
_NEGATED = frozenset({"neg", "negative", "minus"})
_WORDS = re.compile(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+")


def words(metric: str) -> list[str]:
    """Return the words of a metric's name in lower case."""
    return [word.lower() for word in _WORDS.findall(metric)]


def is_loss(metric: str) -> bool:
    """Tell whether a name is that of a training loss, whose spikes are worth a finding.

    Args:
        metric: The name as it was logged.

    Returns:
        True for `loss`, `train/loss`, `val_nll`, `masked_lm_loss` and their like.

    Example:
        >>> is_loss("train/cls_loss"), is_loss("accuracy")
        (True, False)
    """
    found = words(metric)
    if found and found[-1] in _SETTINGS:
        return False
    return bool(_LOSS.intersection(found)) or _has_pair(found, "cross", "entropy")


def is_gradient_norm(metric: str) -> bool:
    """Tell whether a name is that of a gradient norm someone logged as a plain metric."""
    found = words(metric)
    return bool({"norm", "norms"}.intersection(found)) and bool(
        {"grad", "grads", "gradient", "gradients"}.intersection(found)
    )


def goal(metric: str, declared: Mapping[str, str] | None = None) -> str | None:
    """Return whether smaller or larger values of a metric are better.

    Args:
        metric: The name as it was logged.
        declared: What the run said itself, `{metric: "min" | "max"}`; it wins over the name.

    Returns:
        `"min"`, `"max"`, or None when neither the run nor the name tells.

    Example:
        >>> goal("val/loss"), goal("top5_accuracy"), goal("lr"), goal("lr", {"lr": "max"})
        ('min', 'max', None, 'max')
    """
    if declared and declared.get(metric) in (MINIMISE, MAXIMISE):
        return declared[metric]
    found = words(metric)
    if found and found[-1] in _SETTINGS:
        return None
    if _NEGATED.intersection(found):
        # The sense turns round, and names are not careful enough to trust; but the negative log-likelihood is a loss.
        return MINIMISE if "likelihood" in found else None
    if _has_pair(found, "cross", "entropy"):
        return MINIMISE
    if any(_has_pair(found, "per", unit) for unit in ("second", "sec", "s")):
        return MAXIMISE
    # The last word that says anything is the noun: `error_recall` is a recall, `score_loss` a loss.
    judged = (MINIMISE if word in _LOWER else MAXIMISE for word in reversed(found) if word in _LOWER | _HIGHER)
    return next(judged, None)


def _has_pair(found: list[str], first: str, second: str) -> bool:
    """Tell whether two words stand next to each other."""
    return any(pair == (first, second) for pair in itertools.pairwise(found))
