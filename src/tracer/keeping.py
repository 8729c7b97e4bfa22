"""What a program keeps with its run beside numbers: artifacts, media, samples, the rows of a batch.

The part of `Run` that takes such things; `Intake` says what becomes of them.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from concurrent.futures import Future
    from typing import Any, Literal, overload

    from tracer.capture.redaction import Redactor
    from tracer.config import Config
    from tracer.intake import Intake
    from tracer.record.recorder import Recorder
    from tracer.record.writer import Steps
    from tracer.storage.artifact_calls import What
    from tracer.storage.artifact_contents import Progress
    from tracer.storage.artifacts import Artifact

from tracer.errors import UsageError
from tracer.surroundings import cleaned


class Keeping:
    """Takes what is kept; completed by `Run`."""

    if TYPE_CHECKING:
        config: Config
        redactor: Redactor
        _facts: dict[str, Any]
        _finished: bool
        _intake: Intake
        _recorder: Recorder
        _steps: Steps

        @property
        def run_id(self) -> str:
            """The id of the run."""

        @property
        def name(self) -> str:
            """The name of the run."""

        def take(self, event: object) -> None:
            """Record an event."""

    def log_samples(
        self,
        *,
        inputs: object = None,
        targets: object = None,
        predictions: object = None,
        loss: object = None,
        indices: object = None,
        step: int | None = None,
    ) -> None:
        """Keep rows of a batch: those with the highest loss, at most `capture_samples` of them.

        Args:
            inputs: A batch: tensor, array, list, or a dictionary of them.
            targets: What was expected, one per row.
            predictions: What came out, one per row.
            loss: One number per row.
            indices: The rows' places in the data set.
            step: The step; the run's own counter when absent.

        Raises:
            TypeError: Something given is no batch of rows.
            ValueError: The rows differ in number.

        Example:
            >>> with tracer.init(project="docs", quiet=True) as run:
            ...     run.log_samples(inputs=[[1.0], [2.0]], targets=[0, 1], loss=[0.1, 2.3])
        """
        from tracer.capture.samples import chosen_samples

        step = self._steps.step if step is None else step
        rows = {"inputs": inputs, "targets": targets, "predictions": predictions, "loss": loss, "indices": indices}
        chosen = chosen_samples(limit=self.config.capture_samples, step=step, **rows)
        if chosen is not None:
            self.take(chosen)

    if TYPE_CHECKING:

        @overload
        def log_artifact(
            self,
            what: What,
            name: str | None = ...,
            type: str | None = ...,
            *,
            metadata: Mapping[str, object] | None = ...,
            aliases: str | Sequence[str] = ...,
            description: str | None = ...,
            copy: bool = ...,
            wait: Literal[True] = ...,
            progress: Progress | None = ...,
        ) -> Artifact: ...

        @overload
        def log_artifact(
            self,
            what: What,
            name: str | None = ...,
            type: str | None = ...,
            *,
            metadata: Mapping[str, object] | None = ...,
            aliases: str | Sequence[str] = ...,
            description: str | None = ...,
            copy: bool = ...,
            wait: Literal[False],
            progress: Progress | None = ...,
        ) -> Future[Artifact]: ...

    def log_artifact(  # noqa: PLR0913 -- a keyword for each thing that can be said of an artifact
        self,
        what: What,
        name: str | None = None,
        type: str | None = None,  # noqa: A002 -- what users call it
        *,
        metadata: Mapping[str, object] | None = None,
        aliases: str | Sequence[str] = (),
        description: str | None = None,
        copy: bool = True,
        wait: bool = True,
        progress: Progress | None = None,
    ) -> Artifact | Future[Artifact]:
        """Keep a file, a folder, bytes or tensors with the run, as the next version of a name.

        Equal content is stored once; what is logged again unchanged stays the same version. Tensors and arrays are
        written as safetensors, never as a pickle.

        Args:
            what: A path, bytes, or a dictionary of tensors or arrays.
            name: Its name; that of the file or folder when absent. Versions are counted per project and name.
            type: What it is, such as `checkpoint`, `model` or `dataset`; told from the file's name when absent.
            metadata: What is to be known of it.
            aliases: Further names of this version, such as `best`; they move here from other versions.
            description: A sentence about it.
            copy: Copy it into the run; otherwise path, size and SHA-256 are noted and the file stays where it is.
            wait: Return when it is kept; otherwise at once, with a future of it.
            progress: Called on another thread, with bytes done and bytes in all.

        Returns:
            The artifact: its `version`, `digest`, `path`.

        Raises:
            TypeError: It is nothing that can be kept.
            ValueError: A name, an alias or the path cannot be meant, or a folder holds what cannot be kept.
            StoreError: The disk does not take it.
            UsageError: The run is finished.

        Example:
            >>> with tracer.init(project="docs", quiet=True) as run:
            ...     run.log_artifact(b"hello", name="greeting.txt").reference
            'greeting.txt:v0'
        """
        from tracer.storage import artifact_calls

        if self._finished:
            raise UsageError(self._recorder.finished_message())
        wanted = artifact_calls.wanted_of(
            what, project=str(self._facts["project"]), name=name, type=type, step=self._steps.step, aliases=aliases,
            metadata=cleaned(self.redactor, metadata or {}), description=description, copy=copy,
        )  # fmt: skip
        kept = artifact_calls.log_artifact(self._intake.contents, (self.run_id, self.name), wanted, progress)
        return kept.result() if wait else kept

    def use_artifact(self, reference: str) -> Artifact:
        """Find a version of an artifact, and note that this run uses it.

        Args:
            reference: `name`, `name:v3`, `name:latest` or another alias; with `project/` or `run/` before it where
                several have the name; or a SHA-256.

        Returns:
            The artifact; its `path` and `files()` are verified when asked for, `download(to)` copies them.

        Raises:
            StoreError: None answers to that, or several do.
            ValueError: The reference cannot be read.

        Example:
            >>> with tracer.init(project="docs", quiet=True) as run:
            ...     _ = run.log_artifact(b"hello", name="greeting.txt")
            ...     run.use_artifact("greeting.txt:latest").path.read_bytes()
            b'hello'
        """
        from tracer.storage import artifact_calls

        if self._finished:
            raise UsageError(self._recorder.finished_message())
        return artifact_calls.use_artifact(self._intake.contents, str(self._facts["project"]), reference)

    def log_media(
        self,
        name: str,
        value: object,
        *,
        kind: str | None = None,
        step: int | None = None,
        caption: str | None = None,
        fields: Mapping[str, object] | None = None,
    ) -> None:
        """Keep something to look at or to listen to: a picture, a figure, a sound, a text, a table; never waits for it.

        Args:
            name: What it is called; the same name at other steps makes a sequence.
            value: A path, encoded bytes, text, a dictionary or list, an array or tensor of pixels (height by width, or
                with 1, 3 or 4 channels), a figure of matplotlib, or a picture of Pillow.
            kind: `image`, `video`, `audio`, `text`, `html`, `table` …; found out where possible.
            step: The step; the run's own counter when absent.
            caption: A sentence below it.
            fields: What is small and belongs to it.

        Raises:
            TypeError: Nothing is known of such a value.
            ValueError: The kind is not known, or cannot be found out.
            UsageError: The run is finished.

        Example:
            >>> with tracer.init(project="docs", quiet=True) as run:
            ...     run.log_media("sample", [[0.0, 1.0], [1.0, 0.0]], kind="table")
        """
        from tracer.render.encoding import media_event

        if self._finished:
            raise UsageError(self._recorder.finished_message())
        step = self._steps.step if step is None else step
        self.take(media_event(name, value, kind=kind, step=step, caption=caption, fields=fields))

    def rows(self, ids: object = None, loss: object = None, *, step: int | None = None) -> None:
        """Say which rows of the data set the present batch holds, and what the loss of each is.

        Kept by reference and read later, on another thread: nothing is copied, and no device is waited for. A spike of
        the loss then names its rows, and rows that are bad again and again are found. With `tracer.with_rows(loader)`
        the ids come by themselves.

        Args:
            ids: A list, array or tensor: places in the data set, or names. May be left out behind `with_rows`.
            loss: One number per row, as `reduction="none"` gives it.
            step: The step; the run's own counter when absent.

        Raises:
            TypeError: The loss is a single number, or the ids are none.
            ValueError: There is not one loss for each row.

        Example:
            >>> with tracer.init(project="docs", quiet=True) as run:
            ...     run.rows([4, 17, 23], loss=[0.1, 0.2, 9.5])
        """
        from tracer.capture.rows import Rows

        self.take(Rows(ids, loss, step))


__all__ = ["Keeping"]
