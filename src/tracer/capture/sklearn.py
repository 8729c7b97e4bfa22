"""scikit-learn: every `fit` of every estimator, scores and cross-validations, as events with a place in each other.

There is no `BaseEstimator.fit` to wrap: each class has its own. So the methods of each class below `BaseEstimator` are
wrapped: those that are there when capture begins, and those of later classes as they are made, the program's own and
other packages' among them. What each call tells is in `sklearn_fits.py`, what a fitted estimator offers in
`sklearn_results.py`.
"""

# ruff: noqa: ANN401 -- scikit-learn's objects and signatures

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import FunctionType, ModuleType
from typing import Any

from tracer.capture.bindings import rebind
from tracer.capture.patching import Hook, Patch, SignatureChanged
from tracer.capture.sklearn_fits import fits, heard, scored, scores, validated, validations

_FITTING = ("fit", "partial_fit", "fit_transform", "fit_predict")
_SCORING = ("score",)
#: Functions that fit an estimator several times; what they do inside is theirs, and no training of its own.
_VALIDATING = ("cross_validate", "cross_val_predict", "learning_curve", "validation_curve", "permutation_test_score")
_MARK = "_is_heard_by_tracer"


class Methods:
    """The methods of classes that one hook has wrapped.

    Args:
        hook: What listens there.
        names: The methods.
        hear: Makes the wrapper of one.
    """

    def __init__(self, hook: Hook, names: tuple[str, ...], hear: Callable[[Any], Any]) -> None:
        self.hook, self._names, self._hear = hook, names, hear
        self._wrapped: weakref.WeakKeyDictionary[type, dict[str, tuple[Any, Any]]] = weakref.WeakKeyDictionary()

    def wrap(self, kind: type) -> None:
        """Wrap what a class defines itself."""
        for name in self._names:
            held = vars(kind).get(name)
            original = getattr(held, "fn", held)  # `available_if` keeps the method in an object of its own
            if not isinstance(original, FunctionType) or getattr(original, _MARK, False):
                continue
            wrapper = functools.wraps(original)(self._hear(original))
            setattr(wrapper, _MARK, True)
            _put(kind, name, held, wrapper)
            self._wrapped.setdefault(kind, {})[name] = original, wrapper

    def take_out(self) -> None:
        """Give each class its own methods back, where ours is still the one that is called."""
        self.hook.is_on = False
        for kind, methods in list(self._wrapped.items()):
            for name, (original, wrapper) in methods.items():
                held = vars(kind).get(name)
                if getattr(held, "fn", held) is wrapper:
                    _put(kind, name, held, original)
        self._wrapped.clear()


def _put(kind: type, name: str, held: Any, method: Any) -> None:
    """Put a method into a class."""
    if hasattr(held, "fn"):
        held.fn = method
    else:
        setattr(kind, name, method)


def _hear_fit(original: Any) -> Any:
    """Return the wrapper of a method that fits; it holds only the original, see `sklearn_fits`."""

    def method(estimator: Any, /, *args: Any, **kwargs: Any) -> Any:
        return heard(original, estimator, args, kwargs)

    return method


def _hear_score(original: Any) -> Any:
    """Return the wrapper of `score`."""

    def method(estimator: Any, /, *args: Any, **kwargs: Any) -> Any:
        return scored(original, estimator, args, kwargs)

    return method


_fitting = Methods(fits, _FITTING, _hear_fit)
_scoring = Methods(scores, _SCORING, _hear_score)


def _below(kind: type) -> Iterator[type]:
    """Yield a class and all that are made from it, each once."""
    seen: set[type] = set()
    waiting = [kind]
    while waiting:
        here = waiting.pop()
        if here not in seen:
            seen.add(here)
            waiting += type.__subclasses__(here)
            yield here


def _listen(module: ModuleType, methods: Methods, others: tuple[type, ...]) -> Callable[[], None]:
    """Wrap the methods of all estimators there are, and those of later ones as their classes are made."""
    estimator = module.BaseEstimator
    made_by = next((kind for kind in estimator.__mro__[:-1] if "__init_subclass__" in vars(kind)), None)
    if made_by is None:
        message = "BaseEstimator has no __init_subclass__ to hear new classes by"
        raise SignatureChanged(message)

    def make(original: Any) -> Any:
        def init_subclass(cls: Any, **kwargs: Any) -> None:
            original(cls, **kwargs)
            if methods.hook.is_on and issubclass(cls, estimator):
                with methods.hook:
                    methods.wrap(cls)

        return init_subclass

    undo = methods.hook.wrap(made_by, "__init_subclass__", make, parameters=("cls",))
    for kind in (*_below(estimator), *others):
        methods.wrap(kind)

    def take_out() -> None:
        methods.take_out()
        undo()

    return take_out


def _listen_to_fits(module: ModuleType) -> Callable[[], None]:
    """Hear every fit."""
    return _listen(module, _fitting, ())


def _listen_to_scores(module: ModuleType) -> Callable[[], None]:
    """Hear every score; most estimators have theirs from a class beside `BaseEstimator`."""
    mixins = tuple(kind for kind in vars(module).values() if inspect.isclass(kind) and "score" in vars(kind))
    return _listen(module, _scoring, mixins)


def _listen_to_validations(module: ModuleType) -> Callable[[], None]:
    """Hear the functions that fit an estimator several times, wherever a module holds them."""

    def make(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            return validated(original, args, kwargs) if validations.is_on else original(*args, **kwargs)

        return call

    originals = [getattr(module, name) for name in _VALIDATING]
    with ExitStack() as undone:  # one that is not as we know it takes the others out again
        for name in _VALIDATING:
            undone.callback(validations.wrap(module, name, make, parameters=("estimator", "X", "y")))
        placed = undone.pop_all()
    wrappers = [getattr(module, name) for name in _VALIDATING]
    rebind(zip(originals, wrappers, strict=True))

    def take_out() -> None:
        placed.close()
        rows = zip(_VALIDATING, wrappers, originals, strict=True)
        rebind([(wrapper, original) for name, wrapper, original in rows if getattr(module, name) is original])

    return take_out


_TESTED = ("1.9", "1.9")
PATCHES = (
    Patch(
        fits,
        module="sklearn.base",
        attribute="BaseEstimator.*.fit",
        package="scikit-learn",
        tested=_TESTED,
        install=_listen_to_fits,
    ),
    Patch(
        scores,
        module="sklearn.base",
        attribute="BaseEstimator.*.score",
        package="scikit-learn",
        tested=_TESTED,
        install=_listen_to_scores,
    ),
    Patch(
        validations,
        module="sklearn.model_selection._validation",
        attribute="cross_validate",
        package="scikit-learn",
        tested=_TESTED,
        install=_listen_to_validations,
    ),
)

__all__ = ["PATCHES"]
