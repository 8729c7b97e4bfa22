"""What can be learned of hyper-parameters, models and data sets by looking at them; nothing is called or changed."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import FrameType
    from typing import Any, TypeGuard

import os
import sys

from tracer.errors import ConfigError
from tracer.routing import Attempt

_PLAIN = (bool, int, float, str)
#: Longer ones are data.
_LONGEST_TEXT, _LONGEST_LIST = 200, 16
_MANY_LAYERS = 500
#: Frames of these packages are not the program's.
_OURS = ("tracer", "tracelet")


def calling_frame() -> FrameType:
    """Return the innermost frame of the program: the first that is not ours."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 -- there is no other way to the caller's values
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _OURS:
        frame = frame.f_back
    return frame or sys._getframe(1)  # noqa: SLF001 -- as above


class HyperparameterDetector:
    """Finds values that look like hyper-parameters: numbers, texts and flags, and short lists of them.

    Args:
        detect_class_attributes: Look at the attributes of `self` too.

    Example:
        >>> def train(lr=0.1, layers=(64, 64), data=object()):
        ...     return HyperparameterDetector().extract_from_frame(sys._getframe())
        >>> train()
        {'lr': 0.1, 'layers': [64, 64]}
    """

    def __init__(self, detect_class_attributes: bool = True) -> None:  # noqa: FBT001, FBT002 -- one switch
        self._looks_at_self = detect_class_attributes

    def extract_from_frame(self, frame: FrameType) -> dict[str, object]:
        """Return the values of a function that runs: its arguments and variables, and the attributes of `self`."""
        is_module = frame.f_code.co_name == "<module>"
        found = _plain(frame.f_locals)
        if is_module:
            found = {name: value for name, value in found.items() if not isinstance(value, str) or not name.isupper()}
        owner = frame.f_locals.get("self")
        if self._looks_at_self and owner is not None:
            attributes = getattr(owner, "__dict__", {})
            found.update(_plain({name: value for name, value in attributes.items() if name not in found}))
        return found

    def extract_from_argparse(self, args: object) -> dict[str, object]:
        """Return the values of a `Namespace`, or of whatever `vars` reads."""
        return _plain(vars(args))

    def extract_from_config_file(self, config_path: str) -> dict[str, object]:
        """Return the values of a YAML or JSON file, nested ones as `outer/inner`.

        Raises:
            ConfigError: It cannot be read.
        """
        import yaml  # a base dependency, loaded only where there is a file to read; it reads JSON too

        try:
            with open(config_path, encoding="utf-8") as file:
                content = yaml.safe_load(file) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            message = f"The file {os.fspath(config_path)!r} cannot be read ({error}). YAML and JSON can be."
            raise ConfigError(message) from error
        return dict(_flat(content)) if isinstance(content, dict) else {}


class ModelDetector:
    """Says what a model is made of."""

    def analyze_model(self, model: object) -> dict[str, object]:
        """Return what is known of a model.

        Args:
            model: A PyTorch module, a Keras model, an estimator, or anything.

        Returns:
            `class`, `framework`; of a PyTorch module `parameters trainable_parameters size_mb layers`, where `layers`
            counts modules by class; of an estimator its parameters.
        """
        from tracer.experiment.artifacts import framework_of

        found: dict[str, object] = {"class": type(model).__name__, "framework": framework_of(model)}
        if callable(getattr(model, "named_modules", None)) and callable(getattr(model, "parameters", None)):
            with Attempt():  # a lazy module has no shapes yet
                found.update(_of_module(model))
        elif callable(getattr(model, "get_params", None)):
            with Attempt():
                found["params"] = _plain(model.get_params(deep=False))  # type: ignore[attr-defined]  # seen above
        elif callable(getattr(model, "count_params", None)):
            with Attempt():
                found["parameters"] = int(model.count_params())  # type: ignore[attr-defined]  # seen above
        return found


class DatasetDetector:
    """Says what a data set or a loader holds."""

    def analyze_dataset(self, dataset: object) -> dict[str, object]:
        """Return what is known of a data set; none of its rows is read.

        Args:
            dataset: A data set, a `DataLoader`, an array, a data frame, or anything with a length.

        Returns:
            `class`, and where there are such: `length`, `shape`, `dtype`, `columns`; of a loader `batch_size
            num_workers drop_last` and `dataset`, the same of what it loads.
        """
        found: dict[str, object] = {"class": type(dataset).__name__}
        with Attempt():
            found["length"] = len(dataset)  # type: ignore[arg-type]  # an iterable has none, and says so
        for name in ("batch_size", "num_workers", "drop_last"):
            value = getattr(dataset, name, None)
            if isinstance(value, _PLAIN):
                found[name] = value
        shape = getattr(dataset, "shape", None)
        if shape is not None:
            with Attempt():
                found["shape"] = [int(size) for size in shape]
            found["dtype"] = str(getattr(dataset, "dtype", "")) or None
        columns = getattr(dataset, "columns", None) or getattr(dataset, "column_names", None)
        if isinstance(columns, (list, tuple)):
            found["columns"] = [str(name) for name in columns]
        inner = getattr(dataset, "dataset", None)
        if inner is not None and inner is not dataset:
            found["dataset"] = self.analyze_dataset(inner)
        return {name: value for name, value in found.items() if value is not None}


def _of_module(model: Any) -> dict[str, object]:  # noqa: ANN401 -- a PyTorch module, which is not imported here
    """Return what a PyTorch module is made of."""
    parameters = list(model.parameters())
    layers: dict[str, int] = {}
    for _, module in list(model.named_modules())[:_MANY_LAYERS]:
        if not list(module.children()):
            layers[type(module).__name__] = layers.get(type(module).__name__, 0) + 1
    size = sum(one.numel() * one.element_size() for one in parameters)
    return {
        "parameters": sum(one.numel() for one in parameters),
        "trainable_parameters": sum(one.numel() for one in parameters if one.requires_grad),
        "size_mb": round(size / (1 << 20), 3),
        "layers": layers,
    }


def _plain(values: Mapping[str, object]) -> dict[str, object]:
    """Return what looks like a hyper-parameter."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if name.startswith("_"):
            continue
        if isinstance(value, _PLAIN) and (not isinstance(value, str) or len(value) <= _LONGEST_TEXT):
            found[name] = value
        elif _is_short_list(value):
            found[name] = list(value)
    return found


def _is_short_list(value: object) -> TypeGuard[Sequence[object]]:
    """Tell whether something is a short list of plain values."""
    if not isinstance(value, (list, tuple)) or not 0 < len(value) <= _LONGEST_LIST:
        return False
    return all(isinstance(one, _PLAIN) for one in value)


def _flat(values: Mapping[str, object], before: str = "") -> Iterable[tuple[str, object]]:
    """Yield nested values under joined names."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{name}/")
        else:
            yield f"{before}{name}", value


__all__ = ["DatasetDetector", "HyperparameterDetector", "ModelDetector", "calling_frame"]
