"""What `analysis.goals` finds."""

from __future__ import annotations

import pytest

from tracer.analysis.goals import goal, is_gradient_norm, is_loss


@pytest.mark.parametrize(
    "metric",
    [
        "loss", "train/loss", "val_loss", "evalLoss", "masked_lm_loss", "nll", "perplexity", "error_rate", "WER",
        "rmse", "cross_entropy", "neg_log_likelihood", "step_time", "reward_loss", "epoch_seconds",
    ],
)  # fmt: skip
def test_lower_is_better(metric: str) -> None:
    assert goal(metric) == "min"


@pytest.mark.parametrize(
    "metric",
    [
        "accuracy", "val/top5_accuracy", "valAcc", "F1", "macro_f1", "roc_auc", "BLEU", "mAP", "mean_reward", "R2",
        "tokens_per_second", "error_recall", "log_likelihood",
    ],
)  # fmt: skip
def test_higher_is_better(metric: str) -> None:
    assert goal(metric) == "max"


@pytest.mark.parametrize("metric", ["lr", "epoch", "grad_norm", "weight_decay", "neg_accuracy", "x", "", "损失"])
def test_a_name_that_does_not_tell_is_not_judged(metric: str) -> None:
    assert goal(metric) is None


def test_what_the_run_declared_wins_over_the_name() -> None:
    declared = {"loss": "max", "weird": "min", "accuracy": "nonsense"}

    assert [goal(name, declared) for name in ("loss", "weird", "accuracy")] == ["max", "min", "max"]


def test_losses_and_gradient_norms_are_known_by_their_names() -> None:
    names = ("loss", "train/cls_loss", "cross_entropy", "accuracy", "loss_scale", "grad_norm", "gradients/norm", "norm")

    assert [name for name in names if is_loss(name)] == ["loss", "train/cls_loss", "cross_entropy"]
    assert [name for name in names if is_gradient_norm(name)] == ["grad_norm", "gradients/norm"]
