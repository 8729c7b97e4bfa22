"""Rows of a batch that are kept."""

from tracer.capture.samples import chosen_samples

__all__ = ["chosen_samples"]
