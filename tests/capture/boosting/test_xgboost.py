"""XGBoost: each round's evaluation is recorded, and the training is as if nobody listened."""

# ruff: noqa: ANN401, ARG002 -- XGBoost's objects and signatures

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xgboost as xgb
from classic_runs import curve, entries, listening, of, summary

from tracer import events
from tracer.capture.patching import patches

PARAMETERS = {"objective": "binary:logistic", "eta": 0.3, "max_depth": 2, "nthread": 1, "seed": 3}


def data() -> tuple[xgb.DMatrix, xgb.DMatrix]:
    """Return a set to train on and one to look at."""
    generator = np.random.default_rng(0)
    inputs = generator.random((240, 4))
    targets = (inputs.sum(axis=1) + generator.normal(0, 0.3, 240) > 2).astype(int)
    return xgb.DMatrix(inputs[:160], targets[:160]), xgb.DMatrix(inputs[160:], targets[160:])


def train(rounds: int = 6, **options: Any) -> tuple[xgb.Booster, dict[str, Any]]:
    """Train a small booster; return it with its own record of the rounds."""
    seen, unseen = data()
    result: dict[str, Any] = {}
    options = {"evals": [(seen, "seen"), (unseen, "unseen")], "evals_result": result, "verbose_eval": False, **options}
    return xgb.train({**PARAMETERS, "eval_metric": ["logloss", "auc"]}, seen, rounds, **options), result


def numbered(values: list[float], start: int = 0) -> dict[int, float]:
    """Return values by their rounds."""
    return dict(enumerate(values, start))


def test_the_series_are_those_of_evals_result() -> None:
    with listening("xgboost") as heard:
        _, result = train()

    for dataset in ("seen", "unseen"):
        for metric in ("logloss", "auc"):
            assert curve(heard, f"{dataset}/{metric}") == numbered(result[dataset][metric])


def test_early_stopping_is_unchanged_and_its_last_round_is_recorded() -> None:
    plain, expected = train(200, early_stopping_rounds=3)
    with listening("xgboost") as heard:
        booster, result = train(200, early_stopping_rounds=3)

    assert result == expected
    assert (booster.best_iteration, booster.num_boosted_rounds()) == (
        plain.best_iteration,
        plain.num_boosted_rounds(),
    )
    assert curve(heard, "unseen/auc") == numbered(result["unseen"]["auc"])
    assert summary(heard)["best_iteration"] == booster.best_iteration
    assert summary(heard)["best_score"] == booster.best_score


def test_a_training_that_continues_a_model_goes_on_counting() -> None:
    with listening("xgboost") as heard:
        booster, first = train(4)
        _, second = train(3, xgb_model=booster)

    values = first["unseen"]["logloss"] + second["unseen"]["logloss"]
    assert curve(heard, "unseen/logloss") == numbered(values)
    assert [event.step for event in of(heard, events.Steps)] == [1, 2, 3, 4, 5, 6, 7]


def test_two_trainings_of_a_run_do_not_overwrite_each_other() -> None:
    with listening("xgboost") as heard:
        _, first = train(3)
        _, second = train(3)

    assert curve(heard, "seen/auc") == numbered(first["seen"]["auc"])
    assert curve(heard, "training_2/seen/auc") == numbered(second["seen"]["auc"])


def test_cross_validation_tells_means_and_deviations() -> None:
    seen, _ = data()
    with listening("xgboost") as heard:
        table = xgb.cv(PARAMETERS, seen, 5, nfold=3, metrics="auc", seed=1, as_pandas=False)

    assert curve(heard, "test/auc-mean") == numbered(table["test-auc-mean"])
    assert curve(heard, "train/auc-std") == numbered(table["train-auc-std"])


def test_the_scikit_learn_classes_are_heard() -> None:
    generator = np.random.default_rng(0)
    inputs, targets = generator.random((100, 3)), generator.random(100)
    with listening("xgboost") as heard:
        model = xgb.XGBRegressor(n_estimators=4, learning_rate=0.2, n_jobs=1)
        model.fit(inputs, targets, eval_set=[(inputs, targets)], verbose=False)

    assert curve(heard, "validation_0/rmse") == numbered(model.evals_result()["validation_0"]["rmse"])
    assert of(heard, events.Training)[0].parameters["learning_rate"] == 0.2


def test_parameters_are_told_in_the_programs_own_words() -> None:
    with listening("xgboost") as heard:
        train(1)

    assert of(heard, events.Training)[0].parameters == {
        "booster": "gbtree",
        **PARAMETERS,
        "eval_metric": ["logloss", "auc"],
    }


def test_without_evaluation_the_rounds_are_counted() -> None:
    seen, _ = data()
    with listening("xgboost") as heard:
        xgb.train(PARAMETERS, seen, 3)

    assert of(heard, events.Scalars) == []
    assert entries(heard, "xgboost.train")[0]["rounds"] == 3


def test_what_the_programs_own_callback_adds_is_recorded() -> None:
    class Doubles(xgb.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            evals_log["seen"].setdefault("twice", []).append(2 * evals_log["seen"]["logloss"][-1])
            return epoch == 2

    with listening("xgboost") as heard:
        _, result = train(callbacks=[Doubles()])

    assert curve(heard, "seen/twice") == numbered(result["seen"]["twice"])
    assert len(result["seen"]["twice"]) == 3


def test_the_model_is_the_same_with_and_without() -> None:
    plain, _ = train()
    before = np.random.get_state()[1].tolist()  # noqa: NPY002 -- whether the global stream was touched
    with listening("xgboost"):
        heard, _ = train()

    assert heard.save_raw("json") == plain.save_raw("json")
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002 -- as above


def test_an_exception_of_a_callback_passes_through() -> None:
    class Failing(xgb.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            message = "mine"
            raise ValueError(message)

    with listening("xgboost"), pytest.raises(ValueError, match="mine"):
        train(callbacks=[Failing()])


def test_everything_is_put_back() -> None:
    before = vars(xgb.callback.CallbackContainer)["__init__"], vars(xgb.Booster)["__init__"]
    for _ in range(3):
        with listening("xgboost"):
            assert vars(xgb.callback.CallbackContainer)["__init__"].__wrapped__ is before[0]

    assert (vars(xgb.callback.CallbackContainer)["__init__"], vars(xgb.Booster)["__init__"]) == before


def test_an_unknown_signature_leaves_the_original_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Container:
        def __init__(self, hooks: Any) -> None:
            self.hooks = hooks

    original = Container.__init__
    monkeypatch.setattr(xgb.callback, "CallbackContainer", Container)

    patches.start(["xgboost"])
    patches.stop()

    assert Container.__init__ is original
    assert capsys.readouterr().err.count("CallbackContainer.__init__") == 1
