"""Which tracker wrote what stands at a path: by endings, headers and the names of tables, never by opening a client."""

from __future__ import annotations

import os
import sqlite3
import zipfile
from collections.abc import Callable, Iterator

from tracer.errors import ConfigError

_ENDINGS = {
    ".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".wandb": "wandb",
}  # fmt: skip
_EVENTS = "tfevents"
_SQLITE_HEADER = b"SQLite format 3\x00"
#: Tables that only this tracker's databases have.
_TABLES = (
    ("mlflow", {"experiments", "runs", "latest_metrics"}),
    ("layerclaw", {"runs", "checkpoints", "gradient_stats"}),
    ("trackio", {"metrics", "configs"}),
    ("trackio", {"metrics", "system_metrics"}),
)
_MOST_LOOKED_AT = 10_000


def recognised(path: str, *, writing: bool = False) -> tuple[str, str]:
    """Return which tracker's data stand at a path, and their address for its source.

    Args:
        path: A file or a folder.
        writing: Whether runs go there; only the ending counts then.

    Raises:
        ConfigError: Nothing there is known.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending in _ENDINGS and (writing or os.path.isfile(path)):
        return _ENDINGS[ending], path
    if writing:
        message = f"{path!r} does not say which tracker the runs go to. Write it as NAME:{path}, such as `aim:{path}`."
        raise ConfigError(message)
    found = _file(path) if os.path.isfile(path) else _folder(path)
    if found is None:
        message = f"Nothing at {path!r} was recognised. Say which tracker wrote it: NAME:{path}, such as `aim:{path}`."
        raise ConfigError(message)
    return found


def _file(path: str) -> tuple[str, str] | None:
    """Recognise a file."""
    if _EVENTS in os.path.basename(path):
        return "tensorboard", path
    with open(path, "rb") as file:
        head = file.read(len(_SQLITE_HEADER))
    if head == _SQLITE_HEADER:
        return _database(path)
    if head.startswith(b"PK") and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(os.path.basename(name) == "task.json" for name in archive.namelist()[:_MOST_LOOKED_AT]):
                return "clearml", path
    return None


def _database(path: str) -> tuple[str, str] | None:
    """Recognise a database of SQLite by its tables."""
    connection = sqlite3.connect(f"file:{_quoted(os.path.abspath(path))}?mode=ro", uri=True)
    try:
        tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    except sqlite3.Error:
        return None
    finally:
        connection.close()
    for name, needed in _TABLES:
        if needed <= tables:
            return name, f"sqlite:///{os.path.abspath(path)}" if name == "mlflow" else path
    return None


def _folder(path: str) -> tuple[str, str] | None:
    """Recognise a folder."""
    names = set(os.listdir(path))
    if ".aim" in names or {"meta", "seqs"} <= names:
        return "aim", path
    for lone in ("mlflow.db", "tracer.db"):  # the one file that the folder is about
        if lone in names and (found := _database(os.path.join(path, lone))) is not None:
            return found
    for name, holds in _BY_FILES:
        if holds(path, names):
            return name, path
    databases = [name for name in sorted(names) if name.endswith(".db")]
    known = [_database(os.path.join(path, name)) for name in databases]
    if any(found is not None and found[0] == "trackio" for found in known):
        return "trackio", path
    return _single_ending(names, path)


def _is_wandb(path: str, names: set[str]) -> bool:
    """Tell whether run folders of W&B are in a folder, or it is one of them."""
    if any(name.startswith(("offline-run-", "run-")) for name in names) or "wandb" in names:
        return any(name.endswith(".wandb") for name in _files_below(path, depth=3))
    return any(name.endswith(".wandb") for name in names)


def _is_mlflow(path: str, names: set[str]) -> bool:
    """Tell whether a folder is MLflow's file store: folders of experiments, each with its `meta.yaml`."""
    return any(os.path.isfile(os.path.join(path, name, "meta.yaml")) for name in sorted(names)[:_MOST_LOOKED_AT])


def _is_clearml(path: str, names: set[str]) -> bool:
    """Tell whether a folder is an offline session of ClearML, or holds packed ones."""
    packed = (os.path.join(path, name) for name in sorted(names) if name.endswith(".zip"))
    return {"task.json", "metrics.jsonl"} <= names or any((_file(one) or ("", ""))[0] == "clearml" for one in packed)


def _is_tensorboard(path: str, names: set[str]) -> bool:  # noqa: ARG001 -- one of several
    """Tell whether event files are somewhere below."""
    return any(_EVENTS in name for name in _files_below(path))


_BY_FILES: tuple[tuple[str, Callable[[str, set[str]], bool]], ...] = (
    ("wandb", _is_wandb),
    ("mlflow", _is_mlflow),
    ("clearml", _is_clearml),
    ("tensorboard", _is_tensorboard),
)


def _single_ending(names: set[str], path: str) -> tuple[str, str] | None:
    """Recognise a folder that holds files of one kind only."""
    kinds = {_ENDINGS.get(os.path.splitext(name)[1].lower()) for name in names if not name.startswith(".")}
    kind = kinds.pop() if len(kinds) == 1 else None
    return (kind, path) if kind else None


def _files_below(path: str, depth: int = 12) -> Iterator[str]:
    """Yield the names of the files below a folder, so many at most; links are not followed."""
    seen, top = 0, path.rstrip(os.sep).count(os.sep)
    for folder, folders, files in os.walk(path):
        if folder.count(os.sep) - top >= depth:
            folders.clear()
        folders.sort()
        yield from files
        seen += len(files)
        if seen > _MOST_LOOKED_AT:
            return


def _quoted(path: str) -> str:
    """Return a path as it stands in an address of SQLite."""
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


__all__ = ["recognised"]
