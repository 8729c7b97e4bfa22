"""Programs as the documentation of XGBoost and LightGBM writes them, run unchanged under `tracer run`."""

from __future__ import annotations

import json

from classic_runs import recorded

XGBOOST_TRAIN = """
import json
import numpy as np
import xgboost as xgb

data = np.random.default_rng(7).random((200, 10))
label = (data[:, 0] + data[:, 1] > 1).astype(int)
dtrain = xgb.DMatrix(data[:150], label=label[:150])
dtest = xgb.DMatrix(data[150:], label=label[150:])
param = {"max_depth": 2, "eta": 1, "objective": "binary:logistic", "nthread": 2, "eval_metric": "auc"}
evallist = [(dtrain, "train"), (dtest, "eval")]
evals_result = {}
num_round = 10
bst = xgb.train(param, dtrain, num_round, evallist, evals_result=evals_result, verbose_eval=False)
ypred = bst.predict(dtest)
print(json.dumps(evals_result))
"""

XGBOOST_CLASSIFIER = """
import json
import xgboost as xgb
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

X, y = load_breast_cancer(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, stratify=y, random_state=94)
clf = xgb.XGBClassifier(tree_method="hist", early_stopping_rounds=3)
clf.fit(X_train, y_train, eval_set=[(X_test, y_test)], verbose=False)
print(json.dumps([clf.evals_result(), clf.best_iteration, clf.score(X_test, y_test)]))
"""

LIGHTGBM_TRAIN = """
import json
import lightgbm as lgb
import numpy as np
from lightgbm import early_stopping, record_evaluation, train

rng = np.random.default_rng(1)
data = rng.uniform(size=(500, 10))
label = (data[:, 0] + rng.normal(0, 0.4, 500) > 0.5).astype(int)
train_data = lgb.Dataset(data[:400], label=label[:400])
validation_data = train_data.create_valid(data[400:], label=label[400:])
param = {"num_leaves": 31, "objective": "binary", "metric": "auc", "verbose": -1}
eval_result = {}
bst = train(
    param,
    train_data,
    100,
    valid_sets=[validation_data],
    callbacks=[early_stopping(stopping_rounds=5, verbose=False), record_evaluation(eval_result)],
)
print(json.dumps([eval_result, bst.best_iteration]))
"""

LIGHTGBM_REGRESSOR = """
import json
import lightgbm as lgb
from sklearn.datasets import make_regression
from sklearn.model_selection import train_test_split

X, y = make_regression(n_samples=300, n_features=5, random_state=0)
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=42)
gbm = lgb.LGBMRegressor(num_leaves=31, learning_rate=0.05, n_estimators=20, verbose=-1)
gbm.fit(X_train, y_train, eval_X=(X_test,), eval_y=(y_test,), eval_metric="l1")
print(json.dumps(gbm.evals_result_))
"""


def test_the_program_of_xgboosts_introduction() -> None:
    run, printed = recorded(XGBOOST_TRAIN)

    result = json.loads(printed)
    assert run.series("train/auc") == dict(enumerate(result["train"]["auc"]))
    assert run.series("eval/auc") == dict(enumerate(result["eval"]["auc"]))
    assert (run.row.status, run.row.steps) == ("completed", 10)
    facts = run.facts()
    assert (facts["config"]["max_depth"], facts["config"]["eta"]) == (2, 1)
    assert facts["summary"]["rounds"] == 10


def test_xgboosts_classifier_with_early_stopping() -> None:
    run, printed = recorded(XGBOOST_CLASSIFIER)

    result, best, score = json.loads(printed)
    assert run.series("validation_0/logloss") == dict(enumerate(result["validation_0"]["logloss"]))
    summary = run.facts()["summary"]
    assert summary["best_iteration"] == best
    assert summary["XGBClassifier/score"] == score
    assert [fit["class"] for fit in run.events("sklearn.fit")] == ["LabelEncoder", "XGBClassifier"][-1:]


def test_lightgbms_train_with_early_stopping() -> None:
    run, printed = recorded(LIGHTGBM_TRAIN)

    result, best = json.loads(printed)
    assert run.series("valid_0/auc") == dict(enumerate(result["valid_0"]["auc"]))
    facts = run.facts()
    assert facts["summary"]["best_iteration"] == best
    assert (facts["config"]["num_leaves"], facts["config"]["num_boost_round"]) == (31, 100)


def test_lightgbms_regressor() -> None:
    run, printed = recorded(LIGHTGBM_REGRESSOR)

    result = json.loads(printed)
    (dataset,) = result
    for metric in ("l1", "l2"):
        assert run.series(f"{dataset}/{metric}") == dict(enumerate(result[dataset][metric]))
    assert run.events("sklearn.fit")[-1]["class"] == "LGBMRegressor"
