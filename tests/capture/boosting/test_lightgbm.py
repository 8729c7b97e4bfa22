"""LightGBM: each round's evaluation is recorded, whoever holds `train` and since when."""

# ruff: noqa: ANN401 -- LightGBM's objects

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import lightgbm as lgb
import lightgbm.engine
import lightgbm.sklearn
import numpy as np
import pytest
from classic_runs import curve, entries, listening, of, summary
from lightgbm import train as held_since_before

from tracer import events
from tracer.capture.patching import patches

PARAMETERS = {"objective": "binary", "metric": ["auc", "binary_logloss"], "verbose": -1, "num_threads": 1, "seed": 3}


def data() -> tuple[lgb.Dataset, lgb.Dataset]:
    """Return a set to train on and one to look at."""
    generator = np.random.default_rng(0)
    inputs = generator.random((300, 4))
    targets = (inputs.sum(axis=1) + generator.normal(0, 0.3, 300) > 2).astype(int)
    seen = lgb.Dataset(inputs[:200], targets[:200], free_raw_data=False)
    return seen, lgb.Dataset(inputs[200:], targets[200:], reference=seen, free_raw_data=False)


def train(
    rounds: int = 5, function: Any = None, callbacks: list[Any] | None = None, **options: Any
) -> tuple[lgb.Booster, dict[str, Any]]:
    """Train a small booster; return it with its own record of the rounds."""
    seen, unseen = data()
    result: dict[str, Any] = {}
    callbacks = [lgb.record_evaluation(result), *(callbacks or ())]
    booster = (function or lgb.train)(
        PARAMETERS,
        seen,
        rounds,
        valid_sets=[seen, unseen],
        valid_names=["seen", "unseen"],
        callbacks=callbacks,
        **options,
    )
    return booster, result


def numbered(values: list[float], start: int = 0) -> dict[int, float]:
    """Return values by their rounds."""
    return dict(enumerate(values, start))


def test_the_series_are_those_of_record_evaluation() -> None:
    with listening("lightgbm") as heard:
        _, result = train()

    for dataset in ("seen", "unseen"):
        for metric in ("auc", "binary_logloss"):
            assert curve(heard, f"{dataset}/{metric}") == numbered(result[dataset][metric])


def test_early_stopping_is_unchanged_and_its_last_round_is_recorded() -> None:
    stop = lgb.early_stopping(3, verbose=False)
    plain, expected = train(200, callbacks=[stop])
    with listening("lightgbm") as heard:
        booster, result = train(200, callbacks=[lgb.early_stopping(3, verbose=False)])

    assert result == expected
    assert (booster.best_iteration, booster.num_trees()) == (plain.best_iteration, plain.num_trees())
    assert curve(heard, "unseen/auc") == numbered(result["unseen"]["auc"])
    assert summary(heard)["best_iteration"] == booster.best_iteration


def test_a_training_that_continues_a_model_goes_on_counting() -> None:
    with listening("lightgbm") as heard:
        booster, first = train(4)
        _, second = train(3, init_model=booster)

    assert curve(heard, "unseen/auc") == numbered(first["unseen"]["auc"] + second["unseen"]["auc"])
    assert [event.step for event in of(heard, events.Steps)] == [1, 2, 3, 4, 5, 6, 7]


def test_cross_validation_tells_means_and_deviations() -> None:
    seen, _ = data()
    with listening("lightgbm") as heard:
        table = lgb.cv(PARAMETERS, seen, 4, nfold=3)

    assert curve(heard, "valid/auc-mean") == numbered(table["valid auc-mean"])
    assert curve(heard, "valid/auc-stdv") == numbered(table["valid auc-stdv"])
    assert entries(heard, "lightgbm.cv")[0]["rounds"] == 4


def test_the_scikit_learn_classes_are_heard() -> None:
    generator = np.random.default_rng(0)
    inputs, targets = generator.random((100, 3)), generator.random(100)
    with listening("lightgbm") as heard:
        model = lgb.LGBMRegressor(n_estimators=4, n_jobs=1, verbose=-1)
        model.fit(inputs, targets, eval_X=(inputs,), eval_y=(targets,))

    assert curve(heard, "training/l2") == numbered(model.evals_result_["training"]["l2"])
    assert of(heard, events.Training)[0].parameters["num_leaves"] == 31


def test_modules_that_held_the_function_before_are_given_the_wrapper_and_get_the_original_back() -> None:
    mine = ModuleType("a_users_module")
    vars(mine)["fit_it"] = lgb.train
    sys.modules[mine.__name__] = mine
    holders = [(lgb, "train"), (lightgbm.engine, "train"), (lightgbm.sklearn, "train"), (mine, "fit_it")]
    original = lgb.train
    assert held_since_before is original
    try:
        with listening("lightgbm") as heard:
            assert all(getattr(module, name) is lgb.train is not original for module, name in holders)
            _, result = train(3, mine.fit_it)
    finally:
        del sys.modules[mine.__name__]

    assert curve(heard, "seen/auc") == numbered(result["seen"]["auc"])
    assert all(getattr(module, name) is original for module, name in holders)
    assert globals()["held_since_before"] is original


def test_the_programs_own_list_of_callbacks_is_not_touched() -> None:
    def mine(env: Any) -> None:
        seen.append(env.iteration)

    seen: list[int] = []
    callbacks: list[Any] = [mine]
    with listening("lightgbm"):
        data_set, _ = data()
        lgb.train(PARAMETERS, data_set, 2, callbacks=callbacks)

    assert callbacks == [mine]
    assert vars(mine)["order"] == -1  # as LightGBM numbers the last of a list
    assert seen == [0, 1]


def test_the_model_is_the_same_with_and_without() -> None:
    plain, _ = train()
    with listening("lightgbm"):
        heard, _ = train()

    assert heard.model_to_string() == plain.model_to_string()


def test_a_wrong_call_fails_as_it_did() -> None:
    seen, _ = data()
    with listening("lightgbm"):
        with pytest.raises(TypeError, match="unexpected keyword argument 'rounds'"):
            lgb.train(PARAMETERS, seen, rounds=3)
        with pytest.raises(TypeError, match="only accepts Dataset"):
            lgb.train(PARAMETERS, [1, 2, 3])


def test_a_deaf_wrapper_calls_the_original() -> None:
    with listening("lightgbm") as heard:
        kept = lgb.train
    train(2, kept)

    assert heard == []


def test_another_tools_wrapper_stays_and_ours_is_deaf_inside_it() -> None:
    original = lightgbm.engine.train
    patches.start(["lightgbm"])
    ours = lightgbm.engine.train
    try:
        lightgbm.engine.train = theirs = lambda *args, **kwargs: ours(*args, **kwargs)  # noqa: PLW0108 -- one of its own
        patches.stop()
        assert lightgbm.engine.train is theirs
    finally:
        lightgbm.engine.train = original
        for module in (lgb, lightgbm.sklearn, sys.modules[__name__]):
            for name in ("train", "held_since_before"):
                if getattr(module, name, None) is ours:
                    setattr(module, name, original)
