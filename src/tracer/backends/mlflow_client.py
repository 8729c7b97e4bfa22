"""MLflow's client as this room uses it: patient for seconds instead of minutes, silent, and with our errors.

Its patience, its token and its telemetry are steered by the environment alone. So every call stands inside `calls`,
which sets the variables, and puts them back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tracer.backends.base import Rejected, Throttled, Unreachable
from tracer.backends.mlflow_errors import SERVER, foreign, said, seconds, status, translated, without_credentials
from tracer.plugins import needs

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: A server that does not say that it lives within so many seconds is not asked anything else.
_PROBE_S = 3
#: An answer may take so long: a batch of a thousand points takes a small server more than a second.
_TIMEOUT_S = 30
#: So often a living server may fail on a batch with an error of its own before the batch is held to be the reason.
_PATIENCE = 5

_VARIABLES = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": str(_TIMEOUT_S),
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",  # an answer means that the peer has it
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_LOGGERS = ("mlflow", "alembic")
# The environment is the whole process's, so one call goes on at a time.
_one_at_a_time = threading.RLock()
_MANY, _BUSY = 429, 503


class Connection:
    """One MLflow: a server, or a database that it keeps.

    Args:
        uri: As MLflow's `tracking_uri`.
        token: A bearer token; empty for what MLflow finds itself.
    """

    def __init__(self, uri: str, token: str = "") -> None:
        self.uri, self.shown = uri, without_credentials(uri)
        self.is_server = uri.startswith(("http://", "https://"))
        self._variables = _VARIABLES | ({"MLFLOW_TRACKING_TOKEN": token} if token else {})
        self._failures = 0
        with self._silent(), needs("mlflow", extra="mlflow", purpose="The back end MLflow"):
            from mlflow import MlflowClient

            self._make = MlflowClient
        self._client: MlflowClient | None = None

    @property
    def client(self) -> MlflowClient:
        """MLflow's client; to be used inside `calls`."""
        if self._client is None:
            self._see_database()
            self._client = self._make(self.uri)  # makes the tables of a new database
        return self._client

    @contextlib.contextmanager
    def calls(self) -> Iterator[None]:
        """Make calls inside of this.

        Raises:
            Unreachable: The server does not answer, or the database is locked.
            Throttled: It asks to wait.
            Refused: It does not accept the credentials.
            Rejected: It will never take what was sent.
        """
        with self._silent():
            if self.is_server:
                self._probe()
            try:
                yield
            except foreign() as error:
                self._failures += status(error) == SERVER
                if self._failures < _PATIENCE:
                    raise translated(error, self.uri) from error
                self._failures = 0
                message = f"MLflow at {self.shown} failed {_PATIENCE} times on the same: {said(error, self.uri)}"
                raise Rejected(message) from error
            self._failures = 0

    def _see_database(self) -> None:
        """See that a SQLite file can be opened: MLflow tries for two minutes.

        Raises:
            Unreachable: It cannot.
        """
        kind, _, path = self.uri.partition(":///")
        if kind == "sqlite" and path:
            try:
                with contextlib.closing(sqlite3.connect(path.partition("?")[0], timeout=_PROBE_S)) as database:
                    database.execute("PRAGMA schema_version")
            except sqlite3.Error as error:
                message = f"MLflow at {self.shown} is not reachable: the database cannot be opened ({error})."
                raise Unreachable(message) from error

    def _probe(self) -> None:
        """See that the server is alive, before MLflow's client waits for it."""
        from mlflow.exceptions import MlflowException
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request

        try:
            credentials = get_default_host_creds(self.uri)  # type: ignore[no-untyped-call]
            answer = http_request(  # type: ignore[no-untyped-call]
                credentials, "/health", "GET", timeout=_PROBE_S, raise_on_status=False
            )
        except MlflowException as error:
            raise translated(error, self.uri) from error
        code = int(answer.status_code)
        if code == _MANY or (code == _BUSY and "Retry-After" in answer.headers):
            message = f"MLflow at {self.shown} asks to wait (HTTP {code})."
            raise Throttled(message, seconds(answer.headers.get("Retry-After")))
        if code > SERVER:
            message = f"MLflow at {self.shown} is not there (HTTP {code}). What is owed is sent when it is back."
            raise Unreachable(message)

    @contextlib.contextmanager
    def _silent(self) -> Iterator[None]:
        """Set MLflow's variables, and keep what it says in this thread out of the terminal; then put all back."""
        with _one_at_a_time:
            before = {name: os.environ.get(name) for name in self._variables}
            os.environ.update(self._variables)
            muted = _OtherThreads()
            handlers = [handler for name in _LOGGERS for handler in logging.getLogger(name).handlers]
            for handler in handlers:
                handler.addFilter(muted)
            try:
                yield
            finally:
                for handler in handlers:
                    handler.removeFilter(muted)
                _put_back(before)


class _OtherThreads(logging.Filter):
    """Lets through what other threads say."""

    def __init__(self) -> None:
        super().__init__()
        self._thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether a record is another thread's."""
        return record.thread != self._thread


def _put_back(before: Mapping[str, str | None]) -> None:
    """Restore variables of the environment."""
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
