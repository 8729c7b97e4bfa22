"""A back end of one's own: a plugin that gets every value of an experiment, in order, on a thread of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tracelet
from tracelet.core.plugins import BackendPlugin, PluginMetadata, PluginType


class JsonLines(BackendPlugin):
    """Writes one line of JSON per value."""

    @classmethod
    def get_metadata(cls) -> PluginMetadata:
        """Say what this is, and which setting it needs."""
        schema = {"required": ["path"], "properties": {"path": {"type": "string"}}}
        return PluginMetadata("json_lines", "1.0.0", PluginType.BACKEND, config_schema=schema)

    def initialize(self, config: dict[str, Any]) -> None:
        """Open the file."""
        self.file = Path(config["path"]).open("a", encoding="utf-8")  # noqa: SIM115 -- closed in `stop`

    def log_metric(self, name: str, value: float, iteration: int) -> None:
        """Write a value."""
        self.file.write(json.dumps({"name": name, "value": value, "step": iteration}) + "\n")

    def stop(self) -> None:
        """Close the file; called once everything was delivered."""
        self.file.close()


def main() -> None:
    """Record a curve, here and there."""
    options = {"backend_options": {"json_lines": {"path": "values.jsonl"}}, "track_system": False}
    with tracelet.start_logging("two-places", project="examples", backend=[JsonLines], config=options) as experiment:
        for step in range(100):
            experiment.log_metric("loss", 1 / (step + 1), step)
    lines = Path("values.jsonl").read_text(encoding="utf-8").splitlines()
    print(f"{len(lines)} values in values.jsonl, and all of them in .tracer")


if __name__ == "__main__":
    main()
