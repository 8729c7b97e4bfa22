"""scikit-learn: fits, their place in each other, their results; and estimators that are as if nobody listened."""

# ruff: noqa: ANN401, D102 -- scikit-learn's objects and methods

from __future__ import annotations

import json
import pickle
import warnings
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn
from classic_runs import curve, entries, listening, of, summary
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.cluster import DBSCAN
from sklearn.datasets import load_iris, make_classification
from sklearn.decomposition import PCA
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from tracer import events
from tracer.capture import sklearn_fits
from tracer.capture.patching import patches

X, Y = load_iris(return_X_y=True)


class Shift(TransformerMixin, BaseEstimator):
    """A transformer as programs write them, without any decorator."""

    def __init__(self, by: float = 1.0) -> None:
        self.by = by

    def fit(self, x: Any, y: Any = None) -> Shift:  # noqa: ARG002 -- scikit-learn's signature
        self.n_features_in_ = x.shape[1]
        return self

    def transform(self, x: Any) -> Any:
        return x + self.by


class Shift2(Shift):
    """One that has its base class do the work."""

    def fit(self, x: Any, y: Any = None) -> Shift2:
        return super().fit(x, y)  # type: ignore[return-value]


def test_a_fit_is_told_with_its_class_parameters_and_size() -> None:
    with listening("sklearn") as heard:
        SVC(C=2, kernel="linear").fit(X, Y)

    (fit,) = entries(heard, "sklearn.fit")
    assert (fit["class"], fit["rows"], fit["features"]) == ("SVC", 150, 4)
    assert fit["parameters"] == {"C": 2, "kernel": "linear"}
    assert fit["seconds"] > 0
    (training,) = of(heard, events.Training)
    assert training.parameters["SVC"]["gamma"] == "scale"


def test_nothing_of_the_data_is_told() -> None:
    marked = np.full((12, 3), 0.123456789)
    marked[6:] = 0.987654321
    with listening("sklearn") as heard:
        make_pipeline(StandardScaler(), LogisticRegression()).fit(marked, ["secret-class"] * 6 + ["other"] * 6)

    said = json.dumps([vars_of(event) for event in heard], default=str)
    assert "0.123456789" not in said
    assert "secret-class" not in said


def vars_of(event: Any) -> dict[str, Any]:
    """Return all that an event holds."""
    return {name: getattr(event, name) for name in type(event).__slots__}


def test_fits_inside_a_fit_name_the_one_they_lie_in() -> None:
    with listening("sklearn") as heard:
        make_pipeline(StandardScaler(), PCA(2), SVC()).fit(X, Y)

    whole = entries(heard, "sklearn.fit")[-1]
    told = entries(heard, "sklearn.fit")[:-1] + entries(heard, "sklearn.fit_transform")
    assert [fit["class"] for fit in told] == ["StandardScaler", "SVC", "PCA"]
    assert all((fit["parent"], fit["parent_call"]) == ("Pipeline.fit", whole["call"]) for fit in told)
    assert whole["inner"]["PCA.fit_transform"]["count"] == 1
    assert len(of(heard, events.Training)) == 1


def test_an_estimator_of_the_program_is_heard_and_once_though_its_base_class_fits_too() -> None:
    with listening("sklearn") as heard:

        class Later(Shift2):
            """A class that is made while we listen."""

            def fit(self, x: Any, y: Any = None) -> Later:
                return super().fit(x, y)  # type: ignore[return-value]

        make_pipeline(Shift2(by=2.0), Later(), SVC()).fit(X, Y)

    assert [fit["class"] for fit in entries(heard, "sklearn.fit")] == ["Shift2", "Later", "SVC", "Pipeline"]


def test_other_ways_to_fit_are_heard() -> None:
    with listening("sklearn") as heard:
        SGDClassifier(random_state=0).partial_fit(X, Y, classes=[0, 1, 2])
        PCA(2).fit_transform(X)
        DBSCAN().fit_predict(X)
        Pipeline([("scale", StandardScaler()), ("pca", PCA(2))]).fit_transform(X)

    assert entries(heard, "sklearn.partial_fit")[0]["class"] == "SGDClassifier"
    assert [fit["class"] for fit in entries(heard, "sklearn.fit_transform")] == ["PCA", "PCA", "Pipeline"]
    assert entries(heard, "sklearn.fit_predict")[0]["class"] == "DBSCAN"


def test_a_search_tells_its_best_and_its_table() -> None:
    search = GridSearchCV(SVC(), {"C": [1, 10], "kernel": ["linear", "rbf"]}, cv=3)
    with listening("sklearn") as heard:
        search.fit(X, Y)

    assert summary(heard)["GridSearchCV/best_score"] == search.best_score_
    assert summary(heard)["GridSearchCV/best_params"] == search.best_params_
    (media,) = of(heard, events.Media)
    table = json.loads(media.data)
    column = table["columns"].index("mean_test_score")
    assert (media.name, media.kind) == ("GridSearchCV/cv_results", "table")
    assert [row[column] for row in table["rows"]] == search.cv_results_["mean_test_score"].tolist()
    assert entries(heard, "sklearn.fit")[-1]["inner"]["SVC.fit"]["count"] == 4 * 3 + 1


def test_curves_become_series_even_inside_a_pipeline() -> None:
    network = MLPClassifier(max_iter=4, random_state=0, warm_start=True)
    with listening("sklearn") as heard, warnings.catch_warnings(action="ignore"):  # so few iterations do not converge
        make_pipeline(StandardScaler(), network).fit(X, Y)
        network.set_params(max_iter=2).fit(StandardScaler().fit_transform(X), Y)

    assert list(curve(heard, "MLPClassifier/loss").items()) == list(enumerate(network.loss_curve_))
    assert len(network.loss_curve_) == 6


def test_the_curve_of_gradient_boosting_is_its_train_score() -> None:
    with listening("sklearn") as heard:
        booster = GradientBoostingClassifier(n_estimators=4).fit(X, Y)

    assert curve(heard, "GradientBoostingClassifier/train_score") == dict(enumerate(booster.train_score_))


def test_scores_that_the_program_asks_for_are_told() -> None:
    with listening("sklearn") as heard:
        model = make_pipeline(StandardScaler(), SVC()).fit(X, Y)
        score = model.score(X, Y)

    (told,) = entries(heard, "sklearn.score")
    assert (told["class"], told["value"], told["rows"]) == ("Pipeline", score, 150)
    assert summary(heard)["Pipeline/score"] == score


def test_a_cross_validation_is_one_training_with_a_score_per_fold() -> None:
    with listening("sklearn") as heard:
        scores = cross_val_score(SVC(), X, Y, cv=4)
        found = cross_validate(SVC(), X, Y, cv=3, return_train_score=True)

    first, second = entries(heard, "sklearn.cross_validate")
    assert first["test_score"] == scores.tolist()
    assert second["train_score"] == found["train_score"].tolist()
    assert [fit["parent"] for fit in entries(heard, "sklearn.fit")] == ["cross_validate"] * 7
    assert summary(heard)["SVC/test_score"] == pytest.approx(found["test_score"].mean())
    assert len(of(heard, events.Training)) == 1


def test_beyond_a_thousand_inner_fits_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sklearn_fits, "MAX_CALLS", 10)
    with listening("sklearn") as heard:
        GradientBoostingClassifier(n_estimators=8).fit(X, Y)
        for _ in range(25):
            StandardScaler().partial_fit(X)

    trees = [fit for fit in entries(heard, "sklearn.fit") if fit["class"] == "DecisionTreeRegressor"]
    whole = entries(heard, "sklearn.fit")[-1]
    assert len(trees) == 10
    assert whole["inner"]["DecisionTreeRegressor.fit"]["count"] == 24
    assert [fit.get("count") for fit in entries(heard, "sklearn.partial_fit")] == [None] * 10 + [20]


def test_fits_on_threads_lie_in_the_fit_that_started_them() -> None:
    with listening("sklearn") as heard:
        search = GridSearchCV(SVC(), {"C": [1, 10]}, cv=3, n_jobs=2)
        with joblib.parallel_config(backend="threading"):
            search.fit(X, Y)

    assert [fit["parent"] for fit in entries(heard, "sklearn.fit")[:-1]] == ["GridSearchCV.fit"] * 7
    assert len(of(heard, events.Training)) == 1


def test_estimators_are_pickled_and_cloned_as_before() -> None:
    with listening("sklearn"):
        model = make_pipeline(Shift(), RandomForestClassifier(5, random_state=0)).fit(X, Y)
        sent = pickle.dumps(model)
        copy = clone(model)
    again = pickle.loads(sent)  # noqa: S301 -- our own

    assert b"tracer" not in sent
    assert (again.predict(X) == model.predict(X)).all()
    assert copy.get_params()["randomforestclassifier__n_estimators"] == 5


def test_predictions_and_random_streams_are_the_same_with_and_without() -> None:
    def outcome() -> list[Any]:
        np.random.seed(4)  # noqa: NPY002 -- the stream that scikit-learn draws from
        x, y = make_classification(120, random_state=1)
        forest = RandomForestClassifier(8).fit(x, y)
        sgd = SGDClassifier().fit(x, y)
        return [forest.predict_proba(x).tolist(), sgd.coef_.tolist(), np.random.rand()]  # noqa: NPY002 -- as above

    plain = outcome()
    with listening("sklearn"):
        heard = outcome()

    assert heard == plain


def test_a_fit_that_fails_is_told_and_its_exception_passes_through() -> None:
    with listening("sklearn") as heard, pytest.raises(ValueError, match="could not convert string"):
        SVC().fit([["a"], ["b"]], [0, 1])

    assert entries(heard, "sklearn.fit")[0]["error"] == "ValueError"


def test_everything_is_put_back() -> None:
    from sklearn.model_selection import _validation

    held = [vars(SVC.__mro__[1]).get("fit"), vars(Pipeline)["fit"], vars(Pipeline)["fit_transform"].fn]
    held += [vars(Shift)["fit"], vars(sklearn.base.ClassifierMixin)["score"], cross_validate]
    for _ in range(3):
        with listening("sklearn"):
            assert vars(Pipeline)["fit"].__wrapped__ is held[1]
            assert cross_validate is not held[-1]

    now = [vars(SVC.__mro__[1]).get("fit"), vars(Pipeline)["fit"], vars(Pipeline)["fit_transform"].fn]
    now += [vars(Shift)["fit"], vars(sklearn.base.ClassifierMixin)["score"], cross_validate]
    assert all(one is other for one, other in zip(now, held, strict=True))
    assert _validation.cross_validate is cross_validate
    assert "_is_heard_by_tracer" not in vars(vars(Pipeline)["fit"])


def test_a_class_that_was_made_while_we_listened_is_put_back_too() -> None:
    with listening("sklearn"):

        class Made(Shift):
            """Made while we listened."""

            def fit(self, x: Any, y: Any = None) -> Made:
                return super().fit(x, y)  # type: ignore[return-value]

        assert hasattr(Made.fit, "__wrapped__")

    assert not hasattr(Made.fit, "__wrapped__")


def test_an_unknown_signature_leaves_the_original_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from sklearn.model_selection import _validation

    def cross_validate(model: Any) -> None:
        """Do nothing."""

    monkeypatch.setattr(_validation, "cross_validate", cross_validate)

    patches.start(["sklearn"])
    patches.stop()

    assert _validation.cross_validate is cross_validate
    assert capsys.readouterr().err.count("cross_validate takes (model)") == 1
