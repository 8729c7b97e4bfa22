"""What MLflow's errors mean to a lane, in our words and without credentials."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

from tracer.backends.base import BackendError, Refused, Rejected, Throttled, Unreachable

SERVER = 500
_UNAUTHORIZED, _FORBIDDEN, _MISSING, _MANY = 401, 403, 404, 429
#: How long to wait where the peer says "later" without saying when.
_LATER_S = 10.0
_STATUS = re.compile(r"too many (\d{3}) error responses|failed with error code (\d{3})")
_SAID = 300
#: By name: the classes of three packages, of which two may be absent.
_REASONS = {
    "SSLError": "its certificate is not accepted",
    "Timeout": "no answer in time",
    "ConnectTimeout": "no answer in time",
    "ReadTimeout": "no answer in time",
    "ConnectionError": "the connection failed",
    "ChunkedEncodingError": "the connection failed",
    "OperationalError": "the database is locked or cannot be opened",
}


def foreign() -> tuple[type[Exception], ...]:
    """Return the errors of MLflow and of what it speaks through; those of requests are of `OSError`."""
    from mlflow.exceptions import MlflowException

    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:  # the small distribution of MLflow, which speaks to servers only
        return MlflowException, OSError
    return MlflowException, OSError, SQLAlchemyError


def translated(error: Exception, uri: str) -> BackendError:
    """Return our error for one of MLflow's."""
    code, shown, why = status(error), without_credentials(uri), said(error, uri)
    if code in (_UNAUTHORIZED, _FORBIDDEN):
        remedy = "Set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        return Refused(f"MLflow at {shown} refuses the credentials (HTTP {code}). {remedy}")
    if code == _MANY:
        return Throttled(f"MLflow at {shown} asks to wait (HTTP {code}).", _retry_after(error))
    if "mlflow db upgrade" in str(error):
        return Refused(f"The database {shown} is of another version of MLflow: {why}")
    if isinstance(error, (FileNotFoundError, IsADirectoryError)) or (code is not None and code < SERVER):
        return Rejected(f"MLflow at {shown} does not take this: {why}")
    names = ["Timeout" if "timed out" in str(error) else "", *map(_kind, chain(error))]
    reason = next((_REASONS[name] for name in names if name in _REASONS), why)
    return Unreachable(f"MLflow at {shown} is not reachable: {reason}. What is owed is sent when it is back.")


def status(error: Exception) -> int | None:
    """Return the HTTP status that an error stands for; None where there was no answer."""
    from mlflow.exceptions import MlflowException

    for one in chain(error):
        response = getattr(one, "response", None)
        if response is not None:
            return int(response.status_code)
        found = _STATUS.search(str(one))
        if found is not None:
            return int(found[1] or found[2])
    if isinstance(error, MlflowException) and not any(_kind(one) in _REASONS for one in chain(error)):
        return int(error.get_http_status_code())  # type: ignore[no-untyped-call]
    return None


def is_missing(error: Exception) -> bool:
    """Tell whether MLflow says that something does not exist."""
    return status(error) == _MISSING


def said(error: Exception, uri: str) -> str:
    """Return the beginning of what was said, without credentials."""
    text = str(error).replace(uri, without_credentials(uri))
    return re.sub(r"//[^/@\s]+@", "//", text).partition("\n")[0][:_SAID]


def seconds(header: str | None) -> float:
    """Return what a `Retry-After` asks for; a date, which is rare, counts as a few seconds."""
    try:
        return max(0.0, float(header)) if header else _LATER_S
    except ValueError:
        return _LATER_S


def without_credentials(uri: str) -> str:
    """Return an address as it may be shown.

    Example:
        >>> without_credentials("https://me:secret@example.org/mlflow?token=x")
        'https://example.org/mlflow'
        >>> without_credentials("sqlite:////tmp/mlflow.db")
        'sqlite:////tmp/mlflow.db'
    """
    parts = urlsplit(uri)
    if not parts.netloc:
        return uri.partition("?")[0]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", "")).rstrip("/")


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what led to it; MLflow wraps what happened in its own."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _retry_after(error: Exception) -> float:
    """Return the `Retry-After` of the answer that an error carries."""
    for one in chain(error):
        response = getattr(one, "response", None)
        if response is not None:
            return seconds(response.headers.get("Retry-After"))
    return _LATER_S


def _kind(error: BaseException) -> str:
    """Return the name of the class of an error."""
    return type(error).__name__
