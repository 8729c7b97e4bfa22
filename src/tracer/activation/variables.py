"""The environment through which the processes of one command know of each other."""

from __future__ import annotations

#: Capture is on in this process and in those that it starts.
AUTO = "TRACER_AUTO"
#: The run that they take part in; made by whoever comes first.
RUN_ID = "TRACER_RUN_ID"
STORAGE, CAPTURE, OUTPUT = "TRACER_STORAGE", "TRACER_CAPTURE", "TRACER_TRACK_OUTPUT"
#: The function whose return value is the loss; whether calls of other trackers are kept from them.
RETURN, REPLACE = "TRACER_CAPTURE_RETURN", "TRACER_REPLACE"
#: The process of the command itself: it begins the run at once, if it is a program that may train.
COMMAND = "_TRACER_COMMAND"

#: What a user may set, beside the settings.
PUBLIC = (AUTO, RUN_ID, RETURN, REPLACE)
_NO = frozenset({"", "0", "false", "no", "off"})


def is_set(value: str | None) -> bool:
    """Tell whether a variable says yes."""
    return (value or "").strip().lower() not in _NO


__all__ = ["AUTO", "CAPTURE", "COMMAND", "OUTPUT", "PUBLIC", "REPLACE", "RETURN", "RUN_ID", "STORAGE", "is_set"]
