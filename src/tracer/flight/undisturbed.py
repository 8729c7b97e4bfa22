"""Running a model again without a trace: what a rerun may touch is put aside and comes back, whatever happens.

Gradients are taken off the parameters, so that a rerun starts without any, and the same tensors are put back. Buffers
are written back byte for byte without moving their version counters: to autograd, a graph of the user's that still
waits for its backward pass has seen no change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext

import torch
from torch import Tensor
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.nn.parallel import DistributedDataParallel

from tracer.capture import randomness

# Of the whole process and not of a thread: backward passes on a device run on threads of torch's own.
_depth = 0


def replaying() -> bool:
    """Tell whether a recorded step is being run again just now.

    Code in a model's `forward` that reaches outside, such as a counter or a print, can ask this and stay silent.

    Returns:
        True inside a replay or a diagnosis, False in training.

    Example:
        >>> replaying()
        False
    """
    return _depth > 0


@contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[None]:
    """Put aside what running a model changes, and bring it back at the end of the block, also after an exception.

    That is: gradients (the block begins without any), buffers, the states of random generators, training flags,
    `requires_grad`, what hangs behind a parameter's gradient, autocast, and torch's switches.

    Args:
        model: The model that will run.

    Yields:
        Nothing; inside the block `replaying()` is True.

    Example:
        >>> model = torch.nn.BatchNorm1d(2)
        >>> with undisturbed(model):
        ...     _ = model(torch.full((4, 2), 7.0))
        >>> model.running_mean.tolist()
        [0.0, 0.0]
    """
    global _depth  # noqa: PLW0603 -- one flag for the whole process, see above
    inner = unwrapped(model)
    with ExitStack() as stack:
        for put_aside in (_switches, _autocast, _generators, _flags, _buffers, _gradients):
            stack.callback(put_aside(inner))
        stack.enter_context(torch.inference_mode(mode=False))
        _depth += 1
        try:
            yield
        finally:
            _depth -= 1


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """Return the module below `torch.compile` and `DistributedDataParallel`; its names are those of a `Step`."""
    while True:
        if isinstance(model, DistributedDataParallel):
            model = model.module
        elif (original := compiled_from(model)) is not None:
            model = original
        else:
            return model


def compiled_from(model: torch.nn.Module) -> torch.nn.Module | None:
    """Return the module that `torch.compile` was given, None for one that is not compiled."""
    # Not by its class: importing torch._dynamo costs seconds, and a model that is not compiled does not need it.
    original = (
        model.__dict__.get("_modules", {}).get("_orig_mod") if type(model).__name__ == "OptimizedModule" else None
    )
    return original if isinstance(original, torch.nn.Module) else None


def overwrite(tensor: Tensor, value: Tensor) -> None:
    """Give a tensor other bytes, unseen by autograd's version counter."""
    unseen = nullcontext() if tensor.is_inference() else _unsafe_preserve_version_counter(tensor)
    with torch.no_grad(), unseen:
        tensor.copy_(value)


def _gradients(model: torch.nn.Module) -> Callable[[], None]:
    """Take gradients off the parameters, and what runs when one is accumulated (it may step an optimizer)."""
    aside = []
    for parameter in model.parameters():
        hooks = parameter._post_accumulate_grad_hooks  # noqa: SLF001 -- torch has no other door to them
        aside.append((parameter, parameter.grad, parameter.requires_grad, hooks, dict(hooks or {})))
        parameter.grad = None
        if hooks:
            hooks.clear()

    def restore() -> None:
        for parameter, gradient, requires_grad, hooks, held in aside:
            parameter.requires_grad_(requires_grad)
            parameter.grad = gradient
            if held:
                hooks.update(held)

    return restore


def _buffers(model: torch.nn.Module) -> Callable[[], None]:
    """Keep every buffer: which tensor it is, and its bytes."""
    aside = [
        (module, name, buffer, buffer.detach().clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()  # noqa: SLF001 -- `named_buffers` leaves out what is None or met before
        if buffer is not None
    ]

    versions = ExitStack()
    for _, _, buffer, _ in aside:
        if not buffer.is_inference():
            versions.enter_context(_unsafe_preserve_version_counter(buffer))

    def restore() -> None:
        for module, name, buffer, value in aside:
            module._buffers[name] = buffer  # noqa: SLF001 -- as above
            overwrite(buffer, value)
        versions.close()

    return restore


def _flags(model: torch.nn.Module) -> Callable[[], None]:
    """Keep which modules train."""
    aside = [(module, module.training) for module in model.modules()]

    def restore() -> None:
        for module, training in aside:
            module.training = training

    return restore


def _generators(model: torch.nn.Module) -> Callable[[], None]:
    """Keep the states of the global generators and of those that modules hold as attributes."""
    states, private = randomness.capture(), randomness.private(model)

    def restore() -> None:
        randomness.restore(states)
        randomness.restore_private(model, private)

    return restore


def _autocast(model: torch.nn.Module) -> Callable[[], None]:
    """Keep autocast's state, and forget its casts: those of the user belong to a graph that is gone."""
    kinds = {"cpu"} | {parameter.device.type for parameter in model.parameters() if parameter.device.type != "meta"}
    aside = [(kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in sorted(kinds)]
    cached = torch.is_autocast_cache_enabled()

    def restore() -> None:
        for kind, enabled, dtype in aside:
            torch.set_autocast_enabled(kind, enabled)
            torch.set_autocast_dtype(kind, dtype)
        torch.set_autocast_cache_enabled(cached)
        torch.clear_autocast_cache()

    torch.clear_autocast_cache()
    return restore


def _switches(model: torch.nn.Module) -> Callable[[], None]:  # noqa: ARG001 -- has the signature of the others
    """Keep torch's switches that decide which bits come out."""
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn
    flags = (cudnn.enabled, cudnn.benchmark, cudnn.deterministic)
    dtype, grad = torch.get_default_dtype(), torch.is_grad_enabled()

    def restore() -> None:
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        now = (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
        if now != (deterministic, warn_only):  # setting it loads the compiler, which takes a second
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        cudnn.enabled, cudnn.benchmark, cudnn.deterministic = flags
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(grad)

    return restore


__all__ = ["compiled_from", "overwrite", "replaying", "undisturbed", "unwrapped"]
