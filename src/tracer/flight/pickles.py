"""The model as a pickle without its tensors, and back; run only when the reader trusts the capsule.

Parameters and buffers are named, not pickled: the capsule has them already, and tied ones stay tied. Hooks of Tracer
are left out, because they hold the recorder and with it the whole program.
"""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tracer.errors import CapsuleError, MissingDependency

#: The dictionaries of hooks that a module has, each with those that hold flags for the same ids.
_HOOKS = {
    "_forward_hooks": ("_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    "_forward_pre_hooks": ("_forward_pre_hooks_with_kwargs",),
    "_backward_hooks": (),
    "_backward_pre_hooks": (),
}
#: What a program's own classes raise when they cannot be pickled.
UNPICKLABLE = (
    pickle.PicklingError, TypeError, AttributeError, ValueError, RuntimeError, NotImplementedError, RecursionError,
    ImportError, KeyError, OSError,
)  # fmt: skip


def dumped_model(model: nn.Module, named: Mapping[int, str]) -> bytes:
    """Return a model's pickle; `named` says which tensors, by id, are left out under which name.

    Raises:
        MissingDependency: cloudpickle is not installed.
    """
    try:
        import cloudpickle
    except ImportError:
        message = "A model in a capsule needs the cloudpickle package. pip install 'ml-tracer[replay]'"
        raise MissingDependency(message) from None
    ours = _our_hooks(model)

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # ships no types
        """Leaves tensors and our hooks out."""

        def persistent_id(self, value: object) -> str | None:
            """Return the name under which the capsule holds a tensor."""
            return named.get(id(value)) if isinstance(value, Tensor) else None

        def reducer_override(self, value: object) -> Any:  # noqa: ANN401 -- a pickle's recipe
            """Write dictionaries of hooks without ours."""
            if id(value) in ours:
                return OrderedDict, (), None, None, iter(ours[id(value)])
            return super().reducer_override(value)

    buffer = io.BytesIO()
    Pickler(buffer).dump(model)
    return buffer.getvalue()


def loaded_model(data: bytes, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return a model from its pickle. This runs what the pickle says: call it for trusted capsules only.

    Raises:
        CapsuleError: It cannot be built here.
    """

    class Unpickler(pickle.Unpickler):
        """Puts the capsule's tensors in their places."""

        def persistent_load(self, name: str) -> Tensor:
            """Return the tensor of a name."""
            return tensors[name]

    try:
        model = Unpickler(io.BytesIO(data)).load()
    except (*UNPICKLABLE, EOFError, IndexError) as error:
        message = (
            f"The model in the entry model.pkl cannot be built here ({type(error).__name__}: {error}). "
            "Name what builds it: --entry file.py:build"
        )
        raise CapsuleError(message) from error
    if not isinstance(model, nn.Module):
        message = f"The entry model.pkl holds a {type(model).__name__}, no model."
        raise CapsuleError(message)
    ids = [key for module in model.modules() for name in _HOOKS for key in getattr(module, name, ()) or ()]
    # A new hook must not take the number of one that came with the pickle.
    RemovableHandle.next_id = max([RemovableHandle.next_id, *(key + 1 for key in ids if isinstance(key, int))])
    return model


def dumped_objects(objects: Sequence[object], stand_in: Callable[[object], object]) -> tuple[bytes, list[str]]:
    """Return the pickle of arguments that are not plain, and the names of the classes that cannot be pickled."""
    try:
        from cloudpickle import dumps
    except ImportError:
        from pickle import dumps
    kept: list[object] = []
    lost: list[str] = []
    for value in objects:
        try:
            dumps(value)
        except UNPICKLABLE:
            lost.append(type(value).__name__)
            kept.append(stand_in(value))
        else:
            kept.append(value)
    return dumps(kept), lost


def loaded_objects(data: bytes) -> list[Any]:
    """Return the arguments of a trusted capsule."""
    try:
        found = pickle.loads(data)  # noqa: S301 -- trusted, or nobody may call this
    except (*UNPICKLABLE, EOFError, IndexError) as error:
        message = f"The entry objects.pkl cannot be read here ({type(error).__name__}: {error})."
        raise CapsuleError(message) from error
    if not isinstance(found, list):
        message = "The entry objects.pkl holds no list of arguments."
        raise CapsuleError(message)
    return found


def _our_hooks(model: nn.Module) -> dict[int, list[tuple[int, Any]]]:
    """Return, by the id of each dictionary of hooks with ours among them, what is left without them."""
    left: dict[int, list[tuple[int, Any]]] = {}
    for module in model.modules():
        for name, flags in _HOOKS.items():
            hooks = getattr(module, name, None)
            if not hooks:
                continue
            kept = [(key, hook) for key, hook in hooks.items() if not _is_ours(hook)]
            left[id(hooks)] = kept
            keys = {key for key, _ in kept}
            for flag in flags:
                table = getattr(module, flag, None)
                if table:
                    left[id(table)] = [(key, value) for key, value in table.items() if key in keys]
    return left


def _is_ours(hook: object) -> bool:
    """Tell whether a hook is one of Tracer's."""
    while hasattr(hook, "func"):  # functools.partial
        hook = hook.func
    owner = getattr(hook, "__self__", None)
    places = (getattr(hook, "__module__", None), type(hook).__module__, type(owner).__module__)
    return any(isinstance(place, str) and (place + ".").startswith("tracer.") for place in places)


__all__ = ["UNPICKLABLE", "dumped_model", "dumped_objects", "loaded_model", "loaded_objects"]
