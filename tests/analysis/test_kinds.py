"""The names of anomalies: kinds, aliases, and names that make no sense here."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.analysis.kinds import KINDS, NOT_SERVED, aliases, resolved

SAGEMAKER = (
    "vanishing_gradient", "exploding_tensor", "weight_update_ratio", "all_zero", "unchanged_tensor",
    "loss_not_decreasing", "check_input_images", "dead_relu", "confusion", "tree_depth", "class_imbalance", "overfit",
    "tensor_variance", "overtraining", "poor_weight_initialization", "saturated_activation", "nlp_sequence_ratio",
    "stalled_training_rule", "similar_across_runs", "feature_importance_overweight", "create_xgboost_report",
)  # fmt: skip


@pytest.mark.parametrize("name", SAGEMAKER)
def test_every_rule_of_sagemaker_debugger_is_served_or_answered_with_a_reason(name: str) -> None:
    if name in NOT_SERVED:
        with pytest.raises(ValueError, match=f"no anomaly type '{name}': "):
            resolved(name)
    else:
        assert set(resolved(name)) <= set(KINDS)


def test_spelling_does_not_matter() -> None:
    assert resolved("LossNotDecreasing") == ("loss_plateau", "loss_divergence")
    assert resolved("exploding-tensor") == ("gradient_explosion", "nan_or_inf")


def test_no_alias_is_a_kind_or_refused() -> None:
    assert not set(aliases()) & (set(KINDS) | set(NOT_SERVED))


def test_a_mistyped_name_is_met_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'dead_relu'"):
        resolved("dead_rely")


def test_every_kind_says_what_it_means_and_what_to_do() -> None:
    assert [
        kind.name for kind in KINDS.values() if not (kind.meaning.endswith(".") and kind.remedy and kind.evidence)
    ] == []


def test_every_kind_alias_and_refusal_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "anomalies.md").read_text(encoding="utf-8")
    told = [text for kind in KINDS.values() for text in (f"### {kind.name}\n", kind.meaning, kind.remedy)]
    named = [f"`{name}`" for kind in KINDS.values() for name in (*kind.evidence, *kind.aliases)]

    assert [text for text in (*told, *named, *NOT_SERVED.values()) if text not in page] == []
