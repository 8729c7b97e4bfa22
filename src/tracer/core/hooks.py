"""Gradient statistics without a run."""

from tracer.capture.hooks import GradientHook, HookManager

__all__ = ["GradientHook", "HookManager"]
