"""What a back end, a collector and a framework can be asked for: the Tracelet documents' interfaces."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping


class FrameworkInterface:
    """A framework that is listened to for an experiment."""

    def initialize(self, experiment: object) -> None:
        """Get to know the experiment."""
        raise NotImplementedError

    def start_tracking(self) -> None:
        """Begin to listen."""
        raise NotImplementedError

    def stop_tracking(self) -> None:
        """Listen no more."""
        raise NotImplementedError

    def log_metric(self, name: str, value: object, iteration: int | None = None) -> None:
        """Record a value in the experiment."""
        raise NotImplementedError


class BackendInterface:
    """A service that an experiment is mirrored to."""

    def initialize(self) -> None:
        """Connect."""
        raise NotImplementedError

    def log_metric(self, name: str, value: object, iteration: int | None = None) -> None:
        """Send a value."""
        raise NotImplementedError

    def log_params(self, params: Mapping[str, object]) -> None:
        """Send parameters."""
        raise NotImplementedError

    def log_artifact(self, local_path: str, artifact_path: str | None = None) -> None:
        """Send a file."""
        raise NotImplementedError

    def save_experiment(self, experiment_data: Mapping[str, object]) -> None:
        """Send what is known of the experiment."""
        raise NotImplementedError


class CollectorInterface:
    """Something that is measured from time to time."""

    def initialize(self) -> None:
        """Prepare."""
        raise NotImplementedError

    def collect(self) -> Mapping[str, object]:
        """Return the figures of now."""
        raise NotImplementedError

    def start(self) -> None:
        """Begin."""

    def stop(self) -> None:
        """End."""


__all__ = ["BackendInterface", "CollectorInterface", "FrameworkInterface"]
