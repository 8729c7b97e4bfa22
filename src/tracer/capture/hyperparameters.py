"""Hyper-parameters as a run keeps them: what JSON holds, without secrets."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from tracer.capture.redaction import Redactor


def plain(values: Mapping[str, object], described: Callable[[Any], object] = str) -> dict[str, Any]:
    """Return hyper-parameters as JSON holds them; what it does not hold becomes text, and secrets are cut.

    Args:
        values: What a framework or a program calls its configuration.
        described: Makes something that JSON holds of what it does not.

    Example:
        >>> plain({"lr": 0.1, "sizes": (2, 3), "hub_token": "abc"})
        {'lr': 0.1, 'sizes': [2, 3], 'hub_token': '[redacted, 1 to 8 characters]'}
    """
    clean = Redactor().value(json.loads(json.dumps(dict(values), default=described, skipkeys=True)), "config")
    return clean if isinstance(clean, dict) else {}


__all__ = ["plain"]
