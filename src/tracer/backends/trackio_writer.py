"""The program that holds trackio for one run: requests come as lines of JSON, and each is answered by one.

It is a process of its own because trackio reads its folder from the environment when it is imported, starts threads
and changes loggers of others. It writes through trackio's own storage and not through `trackio.log`: that hands
batches to a thread which drops them when it fails. Here a batch is committed, and looked for, before it is answered.
"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

#: step, time as trackio writes it, name → value
Row = tuple[int, str, dict[str, object]]
_MEDIA = {"image": "Image", "video": "Video", "audio": "Audio", "html": "Html", "mesh": "Object3D"}


class Writer:
    """One run in trackio's storage."""

    def __init__(self, project: str, name: str, run: str) -> None:
        from trackio.sqlite_storage import SQLiteStorage

        SQLiteStorage.validate_project_name(project)
        self._storage: Any = SQLiteStorage
        self._project, self._name, self._run = project, name, run
        self._path = SQLiteStorage.init_db(project)

    def config(self, started: str, config: dict[str, object]) -> None:
        """Keep the configuration, beside one empty row: trackio lists the runs that have rows."""
        told = {"steps": [0], "timestamps": [started], "log_ids": [f"tracer-{self._run}"], "run_id": self._run}
        self._storage.bulk_log(self._project, self._name, [{}], config=config, **told)

    def rows(self, rows: list[Row]) -> None:
        """Keep the values that are not kept yet, and see that they are."""
        known = self._known(rows)
        missing: list[Row] = []
        for step, time, values in rows:
            new = {name: value for name, value in values.items() if (step, time, name, _text(value)) not in known}
            if new:
                missing.append((step, time, new))
        if not missing:
            return
        steps, times, new_values = ([row[at] for row in missing] for at in range(3))
        told = {"steps": steps, "timestamps": times, "run_id": self._run}
        self._storage.bulk_log(self._project, self._name, new_values, **told)
        kept = self._known(missing)
        lost = sum(
            (step, time, name, _text(value)) not in kept for step, time, new in missing for name, value in new.items()
        )
        if lost:
            message = f"trackio did not keep {lost} of {sum(len(new) for _, _, new in missing)} values"
            raise ValueError(message)

    def media(self, kind: str, local: str, step: int, caption: str | None, digest: str) -> dict[str, object]:
        """Copy a file to where trackio keeps media, under a name that repeats with it; return how a row says it."""
        import trackio
        from trackio.media.utils import get_project_media_path
        from trackio.utils import MEDIA_DIR

        made: Any = getattr(trackio, _MEDIA[kind])(local, caption=caption)
        path = (
            get_project_media_path(project=self._project, run=self._name, step=step) / f"{digest}{Path(local).suffix}"
        )
        if not path.exists():
            made._save_media(path)  # noqa: SLF001 (as `trackio.log` does)
        made._file_path = path.relative_to(MEDIA_DIR)  # noqa: SLF001 (as `trackio.log` does)
        told: dict[str, object] = made._to_dict()  # noqa: SLF001 (as `trackio.log` does)
        return told

    def alerts(self, alerts: list[dict[str, Any]]) -> None:
        """Keep what trackio shows as alerts; it knows those again that it has."""
        columns: dict[str, list[Any]] = {name: [alert[name] for alert in alerts] for name in alerts[0]}
        self._storage.bulk_alert(self._project, self._name, run_id=self._run, **columns)

    def artifact(
        self, name: str, kind: str, parts: list[list[str]], metadata: dict[str, Any], aliases: list[str]
    ) -> None:
        """Keep a version of an artifact; the same files again are the same version."""
        from trackio.artifact import Artifact

        made = Artifact(name, kind, metadata=metadata)
        for logical, local in parts:
            made.add_file(local, logical)
        manifest = made._build_manifest(self._project)  # noqa: SLF001 (as `trackio.log` does)
        told = {"run_name": self._name, "run_id": self._run, "aliases": aliases, "metadata": metadata}
        self._storage.commit_artifact_version(self._project, name, kind, None, manifest, **told)

    def _known(self, rows: list[Row]) -> set[tuple[int, str, str, str]]:
        """Return which values stand at these steps: (step, time, name, value as JSON)."""
        steps, times = json.dumps(sorted({row[0] for row in rows})), sorted({row[1] for row in rows})
        query = (
            "SELECT step, timestamp, metrics FROM metrics"
            " WHERE run_id = ? AND step IN (SELECT value FROM json_each(?)) AND timestamp BETWEEN ? AND ?"
        )
        with closing(sqlite3.connect(self._path, timeout=30)) as database:
            found = database.execute(query, (self._run, steps, times[0], times[-1])).fetchall()
        return {
            (step, time, name, _text(value)) for step, time, row in found for name, value in json.loads(row).items()
        }


def _text(value: object) -> str:
    """Return a value as JSON, the same before trackio keeps it and after."""
    return json.dumps(value, sort_keys=True)


def serve(requests: Iterable[str], answer: Callable[[dict[str, object]], None]) -> None:
    """Answer requests until there are no more: each names a method and its arguments."""
    writer: Writer | None = None
    for line in requests:
        asked = json.loads(line)
        try:
            if asked["do"] == "open":
                writer = Writer(**asked["with"])
                found = None
            else:
                found = getattr(writer, asked["do"])(**asked["with"])
        except (ValueError, TypeError, KeyError, sqlite3.IntegrityError, OverflowError) as error:
            answer({"rejected": f"{type(error).__name__}: {error}"})
        except (ImportError, AttributeError) as error:
            answer({"broken": f"{type(error).__name__}: {error}"})
        except (OSError, sqlite3.Error, RuntimeError) as error:
            answer({"failed": f"{type(error).__name__}: {error}"})
        else:
            answer({"done": found})


def main() -> None:
    """Serve the process that started this one; what trackio prints goes nowhere."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the training; the end of our input ends us
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(told: dict[str, object]) -> None:
        answers.write(json.dumps(told) + "\n")
        answers.flush()

    serve(sys.stdin, answer)


if __name__ == "__main__":
    main()
