"""Programs as scikit-learn's documentation writes them, run unchanged under `tracer run`."""

from __future__ import annotations

import json

from classic_runs import recorded

GETTING_STARTED = """
from sklearn.preprocessing import StandardScaler
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from sklearn.metrics import accuracy_score

pipe = make_pipeline(StandardScaler(), LogisticRegression())
X, y = load_iris(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=0)
pipe.fit(X_train, y_train)
accuracy_score(pipe.predict(X_test), y_test)
print(pipe.score(X_test, y_test))
"""

SEARCH = """
import json
from sklearn.datasets import load_digits
from sklearn.model_selection import RandomizedSearchCV
from sklearn.ensemble import RandomForestClassifier
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.pipeline import make_pipeline
from scipy.stats import randint

class Halve(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        return self

    def transform(self, X):
        return X / 2

X, y = load_digits(return_X_y=True)
param_distributions = {
    "randomforestclassifier__n_estimators": randint(1, 5),
    "randomforestclassifier__max_depth": randint(5, 10),
}
search = RandomizedSearchCV(
    estimator=make_pipeline(Halve(), RandomForestClassifier(random_state=0)),
    n_iter=3, cv=3, param_distributions=param_distributions, random_state=0, n_jobs=2,
)
search.fit(X, y)
print(json.dumps([search.best_params_, search.best_score_]))
"""


def test_the_program_of_getting_started() -> None:
    run, printed = recorded(GETTING_STARTED)

    assert run.row.status == "completed"
    told = {fit["class"]: fit.get("parent") for fit in run.events("sklearn.fit")}
    assert (told["StandardScaler"], told["LogisticRegression"]) == ("Pipeline.fit", "Pipeline.fit")
    assert told["Pipeline"] is None
    assert run.events("sklearn.score")[0]["value"] == float(printed)
    assert run.facts()["summary"]["Pipeline/score"] == float(printed)
    assert run.facts()["config"]["Pipeline"]["steps"][1][1]["class"] == "LogisticRegression"


def test_a_random_search_on_two_processes_with_an_estimator_of_its_own() -> None:
    run, printed = recorded(SEARCH)

    best, score = json.loads(printed)
    summary = run.facts()["summary"]
    assert summary["RandomizedSearchCV/best_params"] == best
    assert summary["RandomizedSearchCV/best_score"] == score
    distributions = run.facts()["config"]["RandomizedSearchCV"]["param_distributions"]
    assert distributions["randomforestclassifier__max_depth"] == "randint(5, 10)"
    assert len(run.store.runs()) == 1
    (table,) = [row for row in run.store.media(run.row.uid) if row.name == "RandomizedSearchCV/cv_results"]
    assert len(json.loads(run.store.media_bytes(run.row.uid, table))["rows"]) == 3
