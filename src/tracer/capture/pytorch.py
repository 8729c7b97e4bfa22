"""Plain PyTorch loops: the steps of the optimizers are counted, and the model they train is found and watched.

Heard through torch's own hooks around `Optimizer.step`, so also of optimizers that were made before. A loop of a
framework that tells its steps itself is left to that framework; one that calls `tracer.step()` counts for itself.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tracer import events
from tracer.capture import returns
from tracer.capture.patching import Hook, Patch

if TYPE_CHECKING:
    from torch.nn import Module
    from torch.optim import Optimizer

ORIGIN = "pytorch"
_SIMPLE = (bool, int, float, str)

steps = Hook("pytorch.step")
made = Hook("pytorch.optimizer")


class Loop:
    """Counts the steps of a loop: one each time an optimizer steps that has stepped since the last one.

    So a loop with two optimizers makes one step per round. A step is told when the next one begins: what the program
    logs after `optimizer.step()` still belongs to it, and a program that counts itself has done so by then.
    """

    def __init__(self) -> None:
        self._stepped: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._count = 0
        self._began = self._is_open = False

    def before_commit(self, optimizer: Optimizer, *, closure: bool) -> None:  # noqa: ARG002 -- as `commits` calls it
        """Begin a step, or go on with the one of another optimizer."""
        if not steps.is_on:
            return
        with steps:
            if not self._began:
                self._began = True
                returns.find()
                steps.emit(events.Training(ORIGIN, _model_of(optimizer), optimizer, parameters=_described(optimizer)))
            if optimizer in self._stepped:
                self._stepped.clear()
                self._count += 1
                steps.emit(events.Steps(self._count, ORIGIN))
            self._stepped.add(optimizer)
            self._is_open = True

    def after_commit(self, optimizer: Optimizer, *, closure: bool) -> None:
        """See that it stepped; the step ends when the next begins."""

    def end(self) -> None:
        """Tell the last step, which no other follows."""
        if self._is_open:
            with steps:
                steps.emit(events.Steps(self._count + 1, ORIGIN))


def _model_of(optimizer: Optimizer) -> Module | None:
    """Return the model whose parameters an optimizer changes: the outermost module that holds the first of them.

    Looked for once, among all objects there are: a loop passes its model to nobody we could listen at.
    """
    import torch

    first = next((one for group in optimizer.param_groups for one in group["params"]), None)
    modules = [one for one in gc.get_objects() if issubclass(type(one), torch.nn.Module)]
    inner = {id(child) for module in modules for child in module.children()}
    holding = [
        module for module in modules if id(module) not in inner and any(one is first for one in module.parameters())
    ]
    return max(holding, key=lambda module: sum(1 for _ in module.parameters()), default=None)


def _described(optimizer: Optimizer) -> Mapping[str, object]:
    """Return what is known of an optimizer as parameters of the run."""
    simple = {name: value for name, value in optimizer.defaults.items() if isinstance(value, _SIMPLE)}
    return {"optimizer": {"class": type(optimizer).__name__, **simple}}


def _install_steps(module: ModuleType) -> Callable[[], None]:  # noqa: ARG001 -- torch's hooks are global
    """Listen to the steps of all optimizers."""
    from tracer.capture import commits

    loop = Loop()
    steps.is_on = True
    end = commits.listen(loop)

    def undo() -> None:
        loop.end()
        steps.is_on = False
        end()

    return undo


def _install_made(module: ModuleType) -> Callable[[], None]:
    """Listen at the making of optimizers: what is asked for by name in the main script is defined by then."""

    def make(original: Callable[..., None]) -> Callable[..., None]:
        def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401, N807 -- torch's own
            original(self, *args, **kwargs)
            if made.is_on:
                with made:
                    returns.find()

        return __init__

    undo = made.wrap(module.Optimizer, "__init__", make, parameters=("self", "params", "defaults"))

    def all_undone() -> None:
        undo()
        returns.stop()

    return all_undone


_AT = {"module": "torch.optim.optimizer", "package": "torch", "tested": ("2.13.0", "2.13.0")}

PATCHES = (
    Patch(steps, attribute="Optimizer.step", install=_install_steps, **_AT),  # type: ignore[arg-type]  # a row in two parts
    Patch(made, attribute="Optimizer.__init__", install=_install_made, **_AT),  # type: ignore[arg-type]  # as above
)

__all__ = ["ORIGIN", "PATCHES", "Loop"]
