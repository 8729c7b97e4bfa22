"""Artifacts as the Tracelet documents speak of them: values that say what belongs together, kept by `run.log_artifact`.

A `TraceletArtifact` gathers files, objects, models and references; nothing is written until the experiment logs it.
Objects are written into a folder of the run's own while that happens, so what is kept is what they were then.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

import os
from enum import Enum

from tracer import clock
from tracer.errors import UsageError

#: From this size on a file counts as large.
LARGE_FILE_THRESHOLD = 100 * 1024 * 1024


class ArtifactType(Enum):
    """What an artifact is."""

    MODEL = "model"
    CHECKPOINT = "checkpoint"
    WEIGHTS = "weights"
    DATASET = "dataset"
    SAMPLE = "sample"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    VISUALIZATION = "viz"
    REPORT = "report"
    CONFIG = "config"
    CODE = "code"
    CUSTOM = "custom"


class ArtifactFile:
    """A file or folder of an artifact."""

    __slots__ = ("artifact_path", "local_path", "metadata")

    def __init__(
        self, local_path: str, artifact_path: str | None = None, metadata: Mapping[str, object] | None = None
    ) -> None:
        self.local_path = os.fspath(local_path)
        self.artifact_path = artifact_path or os.path.basename(os.path.normpath(self.local_path))
        self.metadata = dict(metadata or {})

    @property
    def size_bytes(self) -> int:
        """How large it is now; a folder with everything in it."""
        if not os.path.isdir(self.local_path):
            return os.path.getsize(self.local_path)
        return sum(
            os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(self.local_path) for name in names
        )


class ArtifactReference:
    """Something that lies elsewhere and is not copied."""

    __slots__ = ("metadata", "name", "size_bytes", "uri")

    def __init__(
        self,
        uri: str,
        name: str | None = None,
        size_bytes: int | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        self.uri, self.size_bytes, self.metadata = uri, size_bytes, dict(metadata or {})
        self.name = name or uri.rstrip("/").rpartition("/")[2]


class ArtifactObject:
    """An object of the program, written when the artifact is logged."""

    __slots__ = ("name", "obj", "serializer")

    def __init__(self, obj: object, name: str, serializer: str = "pickle") -> None:
        if serializer not in _SERIALIZERS:
            message = f"serializer={serializer!r} is not known. Choose one of: {', '.join(_SERIALIZERS)}."
            raise ValueError(message)
        self.obj, self.name, self.serializer = obj, name, serializer


class ModelInfo:
    """A model of an artifact, and what is known of it."""

    __slots__ = ("description", "framework", "input_example", "model", "signature")

    def __init__(
        self,
        model: object,
        framework: str | None = None,
        input_example: object = None,
        signature: object = None,
        description: str | None = None,
    ) -> None:
        self.model, self.framework = model, framework or framework_of(model)
        self.input_example, self.signature, self.description = input_example, signature, description


class ArtifactResult:
    """What became of an artifact in one place."""

    __slots__ = ("backend", "metadata", "size_bytes", "uri", "version")

    def __init__(
        self, version: str, uri: str, size_bytes: int, backend: str, metadata: Mapping[str, object] | None = None
    ) -> None:
        self.version, self.uri, self.size_bytes, self.backend = version, uri, size_bytes, backend
        self.metadata = dict(metadata or {})

    def __repr__(self) -> str:
        """Say where it is."""
        return f"ArtifactResult(version={self.version!r}, uri={self.uri!r}, backend={self.backend!r})"


class TraceletArtifact:
    """Files, objects, models and references that belong together under one name.

    Args:
        name: The name; the same name again is the next version.
        artifact_type: What it is.
        description: A sentence about it.
        metadata: What else is known.

    Example:
        >>> artifact = TraceletArtifact("scores", ArtifactType.REPORT).add_object({"f1": 0.9}, "scores.json", "json")
        >>> artifact.to_dict()["objects"]
        ['scores.json']
    """

    def __init__(
        self,
        name: str,
        artifact_type: ArtifactType | str,
        description: str | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        if not name:
            message = "An artifact needs a name: it is found by it, and the same name again is its next version."
            raise ValueError(message)
        self.name, self.type = name, ArtifactType(artifact_type)
        self.description, self.metadata = description, dict(metadata or {})
        self.files: list[ArtifactFile] = []
        self.references: list[ArtifactReference] = []
        self.objects: list[ArtifactObject] = []
        self.model: ModelInfo | None = None
        self.version: str | None = None  # these two once it is kept
        self.aliases: list[str] = []
        self.created_at = clock.now()

    @property
    def artifact_type(self) -> ArtifactType:
        """What it is."""
        return self.type

    def add_file(
        self, local_path: str, artifact_path: str | None = None, metadata: Mapping[str, object] | None = None
    ) -> TraceletArtifact:
        """Add a file or folder.

        Args:
            local_path: Where it lies.
            artifact_path: Where it lies within the artifact; under its own name when absent.
            metadata: What else is known of it.

        Raises:
            FileNotFoundError: There is no such file.
        """
        if not os.path.exists(local_path):
            message = f"There is no file {os.fspath(local_path)!r}; write it before it is added."
            raise FileNotFoundError(message)
        self.files.append(ArtifactFile(local_path, artifact_path, metadata))
        return self

    def add_reference(
        self, uri: str, size_bytes: int | None = None, metadata: Mapping[str, object] | None = None
    ) -> TraceletArtifact:
        """Add the address of something that is not copied."""
        self.references.append(ArtifactReference(uri, None, size_bytes, metadata))
        return self

    def add_object(self, obj: object, name: str, serializer: str = "pickle") -> TraceletArtifact:
        """Add an object; `serializer` is `pickle`, `json` or `yaml`."""
        self.objects.append(ArtifactObject(obj, name, serializer))
        return self

    def add_model(
        self,
        model: object,
        framework: str | None = None,
        input_example: object = None,
        signature: object = None,
        description: str | None = None,
    ) -> TraceletArtifact:
        """Add a model: the weights of a PyTorch module, any other object as a pickle."""
        self.model = ModelInfo(model, framework, input_example, signature, description)
        return self

    def serialize_object(self, obj: ArtifactObject) -> bytes:
        """Return an object as the bytes that are kept."""
        return _SERIALIZERS[obj.serializer](obj.obj)

    def to_dict(self) -> dict[str, Any]:
        """Return what it is made of, ready for JSON."""
        return {
            "name": self.name,
            "type": self.type.value,
            "description": self.description,
            "metadata": dict(self.metadata),
            "created_at": self.created_at,
            "files": [file.artifact_path for file in self.files],
            "references": [{"uri": one.uri, "size_bytes": one.size_bytes} for one in self.references],
            "objects": [one.name for one in self.objects],
            "model": self.model.framework if self.model is not None else None,
        }

    def write_into(self, folder: str) -> None:
        """Write everything but the references into a folder."""
        import shutil

        for file in self.files:
            path = inside(folder, file.artifact_path)
            if os.path.isdir(file.local_path):
                shutil.copytree(file.local_path, path, dirs_exist_ok=True)
            else:
                shutil.copyfile(file.local_path, path)
        for one in self.objects:
            with open(inside(folder, one.name), "wb") as out:
                out.write(self.serialize_object(one))
        if self.model is not None:
            _write_model(self.model, folder)

    def facts(self) -> dict[str, object]:
        """Return the metadata under which it is kept."""
        facts = dict(self.metadata)
        if self.references:
            facts["references"] = [
                {"uri": one.uri, "size_bytes": one.size_bytes, **one.metadata} for one in self.references
            ]
        of_files = {file.artifact_path: file.metadata for file in self.files if file.metadata}
        if of_files:
            facts["files"] = of_files
        if self.model is not None:
            told = {"framework": self.model.framework, "description": self.model.description}
            facts["model"] = {name: value for name, value in told.items() if value is not None}
        return facts


class ArtifactHandler:
    """Where artifacts go besides our own store; a back end's handler derives from it."""

    def log_artifact(self, artifact: TraceletArtifact) -> ArtifactResult:
        """Keep an artifact."""
        raise NotImplementedError

    def get_artifact(self, name: str, version: str = "latest") -> TraceletArtifact:
        """Return an artifact that was kept."""
        raise NotImplementedError

    def list_artifacts(self, type_filter: ArtifactType | None = None) -> list[TraceletArtifact]:
        """Return the artifacts that were kept."""
        raise NotImplementedError

    def should_handle_type(self, artifact_type: ArtifactType) -> bool:  # noqa: ARG002 -- all, unless it says so
        """Tell whether artifacts of a type are kept."""
        return True

    def get_large_file_score(self, size_bytes: int) -> int:
        """Say how well large files are kept: the higher the better."""
        return 0 if size_bytes >= LARGE_FILE_THRESHOLD else 50


class ArtifactManager:
    """Keeps an artifact in several places, one after the other; one that fails never stops the others.

    Args:
        backend_instances: Name → handler, or an object with `log_artifact get_artifact list_artifacts`.
    """

    def __init__(self, backend_instances: Mapping[str, Any] | None = None) -> None:
        self.handlers = dict(backend_instances or {})
        self.errors: dict[str, str] = {}
        self._results: dict[str, dict[str, ArtifactResult]] = {}

    def log_artifact(self, artifact: TraceletArtifact) -> dict[str, ArtifactResult]:
        """Keep an artifact everywhere; `errors` says where that failed."""
        from tracer.routing import Attempt

        results: dict[str, ArtifactResult] = {}
        for name, handler in self.handlers.items():
            if not getattr(handler, "should_handle_type", lambda _: True)(artifact.type):
                continue
            with Attempt() as attempt:
                results[name] = handler.log_artifact(artifact)
            if attempt.error is not None:
                self.errors[name] = attempt.said
        self._results[artifact.name] = results
        return results

    def get_artifact(self, name: str, version: str = "latest", backend: str | None = None) -> Any:  # noqa: ANN401
        """Return an artifact from one place, or from the first that has it."""
        return self._handler(backend).get_artifact(name, version)

    def list_artifacts(self, type_filter: ArtifactType | None = None, backend: str | None = None) -> list[Any]:
        """Return the artifacts in one place."""
        found: list[Any] = self._handler(backend).list_artifacts(type_filter)
        return found

    def get_stats(self) -> dict[str, object]:
        """Return how many artifacts were kept, where, and what failed."""
        return {
            "backends": list(self.handlers),
            "artifacts_logged": len(self._results),
            "errors": dict(self.errors),
        }

    def clear_cache(self) -> None:
        """Forget what was kept where."""
        self._results.clear()
        self.errors.clear()

    def _handler(self, backend: str | None) -> Any:  # noqa: ANN401 -- whatever was given
        """Return one of the handlers."""
        if backend is None and self.handlers:
            return next(iter(self.handlers.values()))
        if backend not in self.handlers:
            message = f"There is no back end {backend!r} here. There are: {', '.join(self.handlers) or 'none'}."
            raise UsageError(message)
        return self.handlers[backend]


def framework_of(model: object) -> str:
    """Return the name of the package that a model's class comes from."""
    for base in type(model).__mro__:
        package = base.__module__.partition(".")[0]
        if package in ("torch", "sklearn", "xgboost", "lightgbm", "keras", "transformers"):
            return "pytorch" if package == "torch" else package
    return type(model).__module__.partition(".")[0]


def _write_model(model: ModelInfo, folder: str) -> None:
    """Write a model: the weights of a PyTorch module, any other object as a pickle."""
    if hasattr(model.model, "state_dict") and model.framework in ("pytorch", "torch", "lightning", "pytorch_lightning"):
        import torch

        torch.save(model.model.state_dict(), inside(folder, "model.pt"))
    else:
        with open(inside(folder, "model.pkl"), "wb") as out:
            out.write(_pickled(model.model))
    if model.input_example is not None:
        with open(inside(folder, "input_example.pkl"), "wb") as out:
            out.write(_pickled(model.input_example))


def inside(folder: str, name: str) -> str:
    """Return a path in a folder, with its parents made; one that leads out of it is refused."""
    path = os.path.normpath(os.path.join(folder, name))
    if not path.startswith(os.path.join(folder, "")) or os.path.isabs(name):
        message = f"{name!r} leads out of the artifact; a path within it is needed."
        raise ValueError(message)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path


def _pickled(value: object) -> bytes:
    """Return an object as a pickle."""
    import pickle

    return pickle.dumps(value)


def _json(value: object) -> bytes:
    """Return an object as JSON."""
    import json

    return json.dumps(value, indent=2, default=str).encode()


def _yaml(value: object) -> bytes:
    """Return an object as YAML."""
    import yaml

    text: str = yaml.safe_dump(value, sort_keys=False)
    return text.encode()


_SERIALIZERS: dict[str, Callable[[object], bytes]] = {"pickle": _pickled, "json": _json, "yaml": _yaml}

__all__ = [
    "LARGE_FILE_THRESHOLD",
    "ArtifactFile",
    "ArtifactHandler",
    "ArtifactManager",
    "ArtifactObject",
    "ArtifactReference",
    "ArtifactResult",
    "ArtifactType",
    "ModelInfo",
    "TraceletArtifact",
    "framework_of",
]
