"""The other trackers a run goes to while it lives: asked for at its beginning or later, and how each of them stands."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tracer.mirroring.starting import Mirrors, Standing, Wanted
    from tracer.record.identity import Place

from tracer import sink
from tracer.config import Config
from tracer.errors import ConfigError


class Mirrored:
    """What a run does with its back ends; one rank speaks for the job, each records its own part."""

    config: Config
    _place: Place
    _mirrors: Mirrors | None

    if TYPE_CHECKING:

        @property
        def folder(self) -> str:
            """The run's folder."""

    def add_backend(self, backend: str, options: Mapping[str, Any] | None = None) -> None:
        """Mirror the run to one more back end; it gets the run from its beginning.

        Args:
            backend: A name such as `mlflow`, or `module:Class` of a back end of your own.
            options: What it is told.

        Raises:
            ConfigError: There is none of that name, or it has no such option.
            MissingDependency: Its client is not installed; the message names the command that brings it.

        Example:
            >>> with tracer.init(project="docs", quiet=True) as run:
            ...     run.add_backend("csv", {"path": "copy"})
            ...     run.backend("csv").name
            'csv'
        """
        from tracer.mirroring.asking import choose

        self.mirror(choose([backend]).wanted({backend: options or {}}))

    def backend(self, name: str) -> Standing:
        """Return how a back end stands: state, how far it is behind, its ids and address there; waits for nothing.

        Args:
            name: The back end.

        Raises:
            ConfigError: The run does not go there.
        """
        if self._mirrors is None:
            message = f"The run is mirrored to no back end, so not to {name!r}. Pass backend={name!r} to init."
            raise ConfigError(message)
        return self._mirrors.state(name)

    @property
    def backends(self) -> list[str]:
        """The names of the back ends that the run goes to."""
        return self._mirrors.names() if self._mirrors is not None else []

    def mirror(self, wanted: list[Wanted]) -> None:
        """Serve back ends from now on; nothing is connected here."""
        if not wanted or self._place.rank != 0:
            return
        wanted = [one.at(self.config.storage_path) for one in wanted]
        if self._mirrors is None:
            from tracer.mirroring.starting import Mirrors

            config = self.config
            linger = config.linger_s if "linger_s" in config.given else None
            self._mirrors = Mirrors(
                self.folder, config.storage_path, wanted,
                rules=config.backend_rules, lane=config.lane, linger_s=linger,
            )  # fmt: skip
            self._mirrors.start()
        else:
            for one in wanted:
                self._mirrors.add(one)

    def _leave_mirrors(self, timeout_s: float) -> None:
        """Wait while back ends take what is left, and say what they still miss."""
        if self._mirrors is None:
            return
        for sentence in self._mirrors.finish(timeout_s):
            sink.say(f"tracer: {sentence}")  # even to those who want it quiet: it says what has not arrived


def asked(config: Config) -> list[Wanted]:
    """Return the back ends that the settings ask for, checked; before anything begins.

    Raises:
        ConfigError: A name, an option or a rule cannot be meant.
        MissingDependency: A client is not installed.
    """
    if not config.backend:
        return []
    from tracer.mirroring.asking import choose

    chosen = choose(config.backend)
    if chosen.plugins:
        message = (
            f"backend={chosen.plugins[0]!r} is a plugin, which needs an experiment: "
            f"tracelet.start_logging(backend={chosen.plugins[0]!r})."
        )
        raise ConfigError(message)
    return chosen.wanted(config.backend_options, url=config.backend_url)
