"""What can be found: every kind of anomaly with its meaning, its evidence and its remedy. Standard library only.

The names are what findings bear, what `tracer anomalies -t` takes and what the documentation lists. Rule names of
Amazon SageMaker Debugger are understood as aliases; those that say nothing about training a network are answered with
the reason.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

GRADIENT_EXPLOSION, VANISHING_GRADIENT = "gradient_explosion", "vanishing_gradient"
LOSS_SPIKE, LOSS_DROP = "loss_spike", "loss_drop"
LOSS_PLATEAU, LOSS_DIVERGENCE = "loss_plateau", "loss_divergence"
NAN_OR_INF = "nan_or_inf"
DEAD_RELU, SATURATED_ACTIVATION = "dead_relu", "saturated_activation"
UPDATE_RATIO = "update_ratio"
UNCHANGED_TENSOR, ALL_ZERO = "unchanged_tensor", "all_zero"
TENSOR_VARIANCE, POOR_WEIGHT_INITIALIZATION = "tensor_variance", "poor_weight_initialization"
OVERFITTING, OVERTRAINING = "overfitting", "overtraining"
MEMORY_SPIKE, MEMORY_GROWTH = "memory_spike", "memory_growth"
THROUGHPUT_DROP, DATA_LOADER_STALL, STALLED_TRAINING = "throughput_drop", "data_loader_stall", "stalled_training"
RANK_DIVERGENCE, STRAGGLER = "rank_divergence", "straggler"
SIMILAR_ACROSS_RUNS = "similar_across_runs"
BAD_ROWS = "bad_rows"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of anomaly: what it means, what its findings carry, what to do, what else it is called."""

    name: str
    meaning: str
    evidence: tuple[str, ...]
    remedy: str
    aliases: tuple[str, ...] = ()


_ALL = (
    Kind(
        GRADIENT_EXPLOSION,
        "A layer's gradient norm leapt far above its own past.",
        ("layer", "norm", "threshold", "ratio", "usual"),
        "Clip the gradient norm (1.0 is usual), lower the learning rate or lengthen its warm-up; look at the batch.",
        ("exploding_tensor", "exploding_gradient"),
    ),
    Kind(
        VANISHING_GRADIENT,
        "A layer's gradient is next to nothing beside its own past or beside the layers after it.",
        ("layer", "norm", "threshold", "ratio", "usual"),
        "Use ReLU-like activations, residual connections or normalisation; check that the layer is reached at all.",
    ),
    Kind(
        LOSS_SPIKE,
        "A loss jumped above its own course, by many times its noise.",
        ("metric", "loss", "window_mean", "z_score", "recovered", "rows"),
        "Look at the rows of that step, clip the gradient, or lower the learning rate; `tracer replay` runs it again.",
    ),
    Kind(
        LOSS_DROP,
        "A loss fell below its own course, by many times its noise.",
        ("metric", "loss", "window_mean", "z_score"),
        "Make sure that it is progress: a repeated batch, a leaked target or a changed scale look like this too.",
    ),
    Kind(
        LOSS_PLATEAU,
        "A loss has stopped falling although it had hardly begun, or never fell.",
        ("metric", "loss", "since", "share"),
        "Raise or schedule the learning rate, check that gradients reach all layers and that labels match inputs.",
        ("loss_not_decreasing",),
    ),
    Kind(
        LOSS_DIVERGENCE,
        "A loss rises and does not come back.",
        ("metric", "loss", "best", "best_step", "z_score"),
        "Lower the learning rate, clip gradients, and continue from the checkpoint before the rise.",
        ("loss_not_decreasing", "divergence"),
    ),
    Kind(
        NAN_OR_INF,
        "A metric, gradient, weight or activation is not a number or infinite.",
        ("metric", "layer", "num_nans", "num_infs"),
        "Find the operation with `tracer replay`; logarithms, divisions and half precision are the usual places.",
        ("exploding_tensor",),
    ),
    Kind(
        DEAD_RELU,
        "Most units of a layer give zero for every input, so that they no longer learn.",
        ("layer", "share", "threshold"),
        "Lower the learning rate, check biases and input scale, or use a leaky activation (LeakyReLU, GELU).",
    ),
    Kind(
        SATURATED_ACTIVATION,
        "Most outputs of a sigmoid or tanh lie at its ends, where hardly any gradient passes.",
        ("layer", "share", "threshold"),
        "Scale the inputs, initialise smaller weights (Xavier), or normalise before the activation.",
    ),
    Kind(
        UPDATE_RATIO,
        "A step changes a layer's weights far more, or far less, than training needs (about a thousandth).",
        ("layer", "ratio", "usual", "threshold"),
        "Too large: lower the learning rate or clip. Too small: raise it, or give this layer a rate of its own.",
        ("weight_update_ratio",),
    ),
    Kind(
        UNCHANGED_TENSOR,
        "A weight does not change although it receives a gradient.",
        ("layer", "rows"),
        "Hand the parameter to the optimizer, and check its learning rate; freeze it if it is meant to stay.",
    ),
    Kind(
        ALL_ZERO,
        "A tensor holds nothing but zeros.",
        ("layer", "what"),
        "Check that the layer is used in the forward pass and that no mask or ReLU closes its way.",
    ),
    Kind(
        TENSOR_VARIANCE,
        "The spread of a layer's weights collapsed or grew far beyond what it was.",
        ("layer", "std", "usual", "ratio"),
        "Check weight decay and learning rate of the layer; normalise its inputs.",
    ),
    Kind(
        POOR_WEIGHT_INITIALIZATION,
        "A layer begins with equal weights, or signals shrink or grow without bound from layer to layer.",
        ("layer", "std", "ratio"),
        "Initialise with Kaiming (ReLU) or Xavier (tanh, sigmoid), or put normalisation between the layers.",
    ),
    Kind(
        OVERFITTING,
        "The validation loss rises while the training loss falls.",
        ("metric", "training", "loss", "best", "best_step"),
        "Stop at the best step, or add regularisation, augmentation or data.",
        ("overfit",),
    ),
    Kind(
        OVERTRAINING,
        "The validation loss has not improved for most of the training.",
        ("metric", "loss", "best", "best_step", "share"),
        "Use early stopping and keep the checkpoint of the best step.",
    ),
    Kind(
        MEMORY_SPIKE,
        "Memory was nearly full.",
        ("gpu", "memory_util", "threshold", "metric"),
        "Use smaller batches, gradient accumulation, checkpointed activations or a lower precision.",
    ),
    Kind(
        MEMORY_GROWTH,
        "Memory grows steadily, as it does when something is kept from every step.",
        ("metric", "gpu", "first", "last", "per_hour", "steps_per_gb"),
        "Look for losses or outputs kept with their graph (use `.item()` or `.detach()`), and for growing lists.",
        ("memory_leak",),
    ),
    Kind(
        THROUGHPUT_DROP,
        "Steps take much longer than they did.",
        ("metric", "seconds", "usual", "ratio"),
        "Look for other load, thermal throttling, longer inputs or growing work per step; `tracer plot` shows when.",
        ("slow_steps",),
    ),
    Kind(
        DATA_LOADER_STALL,
        "Training waits for data.",
        ("metric", "seconds", "usual", "share"),
        "Raise `num_workers`, pin memory, move decoding out of the loop, or store the data nearer.",
        ("data_loading_stall", "input_stall"),
    ),
    Kind(
        STALLED_TRAINING,
        "For a long while no step was finished.",
        ("seconds", "usual", "ratio"),
        "Look for an evaluation, a checkpoint being written, a hung worker or a rank that waits for another.",
        ("stalled_training_rule",),
    ),
    Kind(
        RANK_DIVERGENCE,
        "One rank's values leave those of the other ranks.",
        ("metric", "rank", "value", "others", "z_score"),
        "Check that every rank starts from the same weights, sees its own shard and joins every all-reduce.",
    ),
    Kind(
        STRAGGLER,
        "One rank is steadily slower than the others, and all wait for it.",
        ("metric", "rank", "seconds", "others", "ratio"),
        "Check that machine's load, clock and disk, and whether its shard holds longer inputs.",
        ("slow_rank",),
    ),
    Kind(
        SIMILAR_ACROSS_RUNS,
        "Two runs logged exactly the same curve.",
        ("metric", "run", "values"),
        "Check that the setting you changed is used, and that the seed or the data differ as they should.",
    ),
    Kind(
        BAD_ROWS,
        "A few rows of a batch carry most of its loss.",
        ("rows", "share", "metric"),
        "Look at these rows of the data set: wrong labels, broken files or outliers.",
    ),
)

#: Every kind by its name, in the order of the documentation.
KINDS = {kind.name: kind for kind in _ALL}

#: Rule names of SageMaker Debugger that are not served, and why.
NOT_SERVED = {
    "check_input_images": "Tracer keeps statistics of layers and rows by choice, not whole input images; look at the "
    "mean and std of the first layer's activations.",
    "class_imbalance": "the labels of all rows are needed, and Tracer keeps only the rows with the highest loss; log "
    "the count of each class as a metric.",
    "confusion": "a confusion matrix needs every label and prediction; log its entries as metrics.",
    "create_xgboost_report": "it is about XGBoost, and Tracer watches neural networks.",
    "feature_importance_overweight": "it is about boosted trees, and Tracer watches neural networks.",
    "nlp_sequence_ratio": "the tokens of every batch are needed; log the share of padding as a metric.",
    "tree_depth": "it is about boosted trees, and Tracer watches neural networks.",
}


def aliases() -> dict[str, tuple[str, ...]]:
    """Return every other name with the kinds it means.

    Example:
        >>> aliases()["loss_not_decreasing"]
        ('loss_plateau', 'loss_divergence')
    """
    found: dict[str, tuple[str, ...]] = {}
    for kind in _ALL:
        for alias in kind.aliases:
            found[alias] = (*found.get(alias, ()), kind.name)
    return found


def resolved(name: str) -> tuple[str, ...]:
    """Return the kinds that a name stands for.

    Args:
        name: A kind, or an alias such as a rule of SageMaker Debugger, in any case, with `-` or `_`.

    Returns:
        One kind, or several where an alias covers them.

    Raises:
        ValueError: There is no such kind, or none that makes sense here; the message says why.

    Example:
        >>> resolved("overfit"), resolved("DeadRelu")
        (('overfitting',), ('dead_relu',))
    """
    plain = _plain(name)
    known = {_plain(one): (one,) for one in KINDS} | {_plain(one): kinds for one, kinds in aliases().items()}
    if plain in known:
        return known[plain]
    refused = {_plain(one): one for one in NOT_SERVED}
    if plain in refused:
        message = f"There is no anomaly type {name!r}: {NOT_SERVED[refused[plain]]}"
        raise ValueError(message)
    names = [*KINDS, *aliases()]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    message = f"There is no anomaly type {name!r}.{hint} Known: {', '.join(KINDS)}."
    raise ValueError(message)


def _plain(name: str) -> str:
    """Return a name without case, `_` and `-`."""
    return name.lower().replace("_", "").replace("-", "")


__all__ = ["KINDS", "NOT_SERVED", "Kind", "aliases", "resolved"] + [  # noqa: RUF005 -- the names of kinds
    "ALL_ZERO", "BAD_ROWS", "DATA_LOADER_STALL", "DEAD_RELU", "GRADIENT_EXPLOSION", "LOSS_DIVERGENCE", "LOSS_DROP",
    "LOSS_PLATEAU", "LOSS_SPIKE", "MEMORY_GROWTH", "MEMORY_SPIKE", "NAN_OR_INF", "OVERFITTING", "OVERTRAINING",
    "POOR_WEIGHT_INITIALIZATION", "RANK_DIVERGENCE", "SATURATED_ACTIVATION", "SIMILAR_ACROSS_RUNS", "STALLED_TRAINING",
    "STRAGGLER", "TENSOR_VARIANCE", "THROUGHPUT_DROP", "UNCHANGED_TENSOR", "UPDATE_RATIO", "VANISHING_GRADIENT",
]  # fmt: skip
