"""The active run of this process: `init log step watch finish`, as `import tracer` gives them.

`log` is the whole public hot path: this thread's writer is found, and does one `pack_into`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Protocol

    from tracer.config import Config
    from tracer.record.recorder import Here, Recorder
    from tracer.run import Run
    from tracer.storage.artifact_calls import What
    from tracer.storage.artifacts import Artifact

    class Automatic(Protocol):
        """What `tracer.activation` does where capture was turned on from outside."""

        def adopt(self, config: Config, hyperparameters: Mapping[str, object]) -> Run | None:
            """Give the run that was begun for the program, as the program names it; None where it begins its own."""

        def begun(self, run: Run) -> None:
            """Take note of a run that has become the active one."""

        def recorder(self) -> Recorder | None:
            """Begin or join the run that was meant for this process, and give what writes it."""


import os
import sys
import threading

from tracer.errors import RunNotFound, StoreError, UsageError
from tracer.state import _state

_NOT_BEGUN = "Tracer not initialized. Call tracer.init() first, or write `with tracer.init(project=...):`."
#: Through these a spawned worker finds the run of its parent.
_WORKER_FOLDER, _WORKER_ID, _WORKER_PARENT = "_TRACER_RUN_FOLDER", "_TRACER_RUN_ID", "_TRACER_RUN_PID"

_here: Here | threading.local = threading.local()


def init(
    project: str | None = None,
    run_name: str | None = None,
    *,
    config: Mapping[str, object] | Config | None = None,
    resume: str | bool | None = None,
    **settings: object,
) -> Run:
    """Begin a run and make it the active one.

    Args:
        project: Project of the run; `TRACER_PROJECT`, else `default`, when absent.
        run_name: Name of the run; made from date and host when absent.
        config: Hyper-parameters of the run, kept with it and compared by `tracer compare`; or a whole `Config`.
        resume: Name or id of a run to continue; True continues the newest run named `run_name`, if there is one.
        **settings: Any field of `Config`: tags, notes, group, storage_path, checkpoint_interval …

    Returns:
        The run; also a context manager that finishes it.

    Raises:
        ConfigError: A setting is not known or cannot be meant.
        StoreError: The store cannot be written, or there is no such run to continue.

    Example:
        >>> with tracer.init(project="gpt", config={"lr": 3e-4}) as run:
        ...     tracer.log({"loss": 2.5})
    """
    # Loaded here and not at the head: `import tracer` alone opens none of the rooms.
    from tracer import sink
    from tracer.config import Config
    from tracer.run import Run

    if isinstance(config, Config):
        chosen, hyperparameters = config, None
    else:
        named = {"project_name": project, "run_name": run_name}
        chosen = Config.load({**{key: value for key, value in named.items() if value is not None}, **settings})
        hyperparameters = config
    if automatic is not None and not resume:
        begun = automatic.adopt(chosen, hyperparameters or {})
        if begun is not None:
            return begun
    found = _resumed(chosen, resume) if resume else None
    if _state.tracer is not None:
        before = _state.tracer
        sink.say(f"tracer: {before.name!r} was still running; it is finished before the new run begins")
        before.finish()
    run = Run(chosen, hyperparameters, resume=found)
    activate(run)
    return run


def log(metrics: Mapping[str, object], step: int | None = None) -> None:
    """Record values of metrics in the active run; see `Run.log`.

    Args:
        metrics: Name → value.
        step: The step they belong to; the run's own counter when absent.

    Raises:
        UsageError: No run is active.

    Example:
        >>> with tracer.init(project="docs", quiet=True):
        ...     tracer.log({"loss": 0.5})
    """
    try:
        writer = _here.writer
    except AttributeError:
        writer = _active().writer()
    writer.log(metrics, step)


def step() -> None:
    """End a step of the active run; see `Run.step`.

    Raises:
        UsageError: No run is active.
    """
    run = _state.tracer
    if run is None:
        raise UsageError(_NOT_BEGUN)
    run.step()


def watch(  # noqa: PLR0913 -- a keyword for each family that can be left out
    model: object,
    optimizer: object = None,
    *,
    gradients: bool = True,
    weights: bool = True,
    updates: bool = True,
    activations: str | bool = "sampled",
    histograms: bool = True,
    layers: Sequence[str] | None = None,
    flight: bool = True,
) -> None:
    """Record what happens inside a model in the active run; see `Run.watch`, also for the arguments.

    Raises:
        UsageError: No run is active.

    Example:
        >>> with tracer.init(project="docs", quiet=True):
        ...     tracer.watch(torch.nn.Linear(4, 2))
    """
    _run().watch(
        model,
        optimizer,
        gradients=gradients,
        weights=weights,
        updates=updates,
        activations=activations,
        histograms=histograms,
        layers=layers,
        flight=flight,
    )


def unwatch(model: object) -> None:
    """Watch a model no more in the active run; see `Run.unwatch`.

    Raises:
        UsageError: No run is active.
    """
    _run().unwatch(model)


def rows(ids: object = None, loss: object = None, *, step: int | None = None) -> None:
    """Say which rows of the data set the present batch of the active run holds; see `Run.rows`.

    Args:
        ids: A list, array or tensor; may be left out behind `tracer.with_rows`.
        loss: One number per row.
        step: The step; the run's own counter when absent.

    Raises:
        UsageError: No run is active.

    Example:
        >>> with tracer.init(project="docs", quiet=True):
        ...     tracer.rows([4, 17, 23], loss=[0.1, 0.2, 9.5])
    """
    _run().rows(ids, loss, step=step)


def log_artifact(what: What, name: str | None = None, type: str | None = None, **options: Any) -> Artifact:  # noqa: A002, ANN401 -- see `Run.log_artifact`
    """Keep a file, a folder, bytes or tensors with the active run; see `Run.log_artifact`, also for the options.

    Args:
        what: A path, bytes, or a dictionary of tensors or arrays.
        name: Its name; that of the file or folder when absent.
        type: What it is, such as `checkpoint`, `model` or `dataset`; told from the file's name when absent.
        **options: `metadata aliases description copy wait progress`.

    Raises:
        UsageError: No run is active.

    Example:
        >>> with tracer.init(project="docs", quiet=True):
        ...     _ = tracer.log_artifact(b"hello", name="greeting.txt")
    """
    found: Artifact = _run().log_artifact(what, name, type, **options)
    return found


def use_artifact(reference: str) -> Artifact:
    """Find a version of an artifact, and note that the active run uses it; see `Run.use_artifact`.

    Args:
        reference: `name`, `name:v3`, `name:latest` or another alias; or a SHA-256.

    Raises:
        UsageError: No run is active.
        StoreError: None answers to that, or several do.

    Example:
        >>> with tracer.init(project="docs", quiet=True):
        ...     _ = tracer.log_artifact(b"hello", name="greeting.txt")
        ...     data = tracer.use_artifact("greeting.txt:latest").path.read_bytes()
    """
    return _run().use_artifact(reference)


def log_media(name: str, value: object, **options: Any) -> None:  # noqa: ANN401 -- see `Run.log_media`
    """Keep something to look at or to listen to with the active run; see `Run.log_media`, also for the options.

    Args:
        name: What it is called.
        value: A path, encoded bytes, text, a dictionary or list, an array or tensor of pixels, a figure, a picture.
        **options: `kind step caption fields`.

    Raises:
        UsageError: No run is active.

    Example:
        >>> with tracer.init(project="docs", quiet=True):
        ...     tracer.log_media("answer", "forty-two", caption="of the model")
    """
    _run().log_media(name, value, **options)


def finish() -> None:
    """End the active run; see `Run.finish`.

    Raises:
        UsageError: No run is active.
    """
    run = _run()
    run.finish()
    _deactivate(run)  # also a run that a program made the active one by hand


def get_run_id() -> str:
    """Return the id of the active run.

    Raises:
        UsageError: No run is active.
    """
    return _run().run_id


def get_step() -> int:
    """Return the step of the active run; 0 without one."""
    return _state.step_count


def _run() -> Run:
    """Return the active run, or say that there is none."""
    if _state.tracer is None:
        raise UsageError(_NOT_BEGUN)
    run: Run = _state.tracer
    return run


def activate(run: Run) -> None:
    """Make a run the active one, and let spawned workers find it."""
    global _here  # noqa: PLW0603 -- the hot path finds its writer by one look-up
    _state.tracer, _state.config = run, run.config
    _here = run.recorder.here
    os.environ[_WORKER_FOLDER], os.environ[_WORKER_ID] = run.folder, run.run_id
    os.environ[_WORKER_PARENT] = str(os.getpid())
    run.when_finished.append(lambda: _deactivate(run))
    if automatic is not None:
        automatic.begun(run)


def join(recorder: Recorder) -> None:
    """Write with this recorder from now on: the run is that of another process."""
    global _worker, _here
    _worker, _here = recorder, recorder.here


def _deactivate(run: Run) -> None:
    """Forget a run that was finished, if it is the active one."""
    global _here  # noqa: PLW0603 -- the hot path finds its writer by one look-up
    if _state.tracer is not run:
        return
    _state.reset()
    _here = threading.local()
    for name in (_WORKER_FOLDER, _WORKER_ID, _WORKER_PARENT):
        os.environ.pop(name, None)


_worker: Recorder | None = None
#: Set where `tracer run` or the environment turned capture on.
automatic: Automatic | None = None


def _active() -> Recorder:
    """Return the active run's recorder; a spawned worker joins the run of its parent."""
    global _worker, _here  # noqa: PLW0603 -- as above; a worker joins once
    if _state.tracer is not None:
        return _run().recorder
    if _worker is None and automatic is not None:
        found = automatic.recorder()
        if found is not None:
            return found
    if _worker is None and _is_worker():
        _worker = _join_parent()
        _here = _worker.here
    if _worker is None:
        raise UsageError(_NOT_BEGUN)
    return _worker


def _join_parent() -> Recorder:
    """Return a recorder for the run of the process that started this worker."""
    from tracer import places, sink
    from tracer.config import Config
    from tracer.record.identity import Place
    from tracer.record.recorder import Recorder

    config, folder, uid = Config.load({}), os.environ[_WORKER_FOLDER], os.environ[_WORKER_ID]
    guard, mode = sink.Guard(strict=config.strict, quiet=config.quiet), places.kind(folder, config.journal)
    return Recorder(
        folder, uid, Place.here(), mode=mode, durability=config.durability, guard=guard, name=uid, role="worker"
    )


def _is_worker() -> bool:
    """Tell whether this process was started by `multiprocessing` out of the process that owns the run."""
    multiprocessing = sys.modules.get("multiprocessing.process")
    parent = multiprocessing.parent_process() if multiprocessing is not None else None
    return parent is not None and str(parent.pid) == os.environ.get(_WORKER_PARENT)


def _resumed(config: Config, resume: object) -> tuple[str, dict[str, Any]] | None:
    """Find the run to continue."""
    from tracer import events, runfile
    from tracer.storage import Store

    name = _given_name(config) if resume is True else str(resume)
    if not name:
        message = "resume=True needs run_name=...: it continues the newest run of that name."
        raise UsageError(message)
    try:
        with Store.open(config.storage_path) as store:
            row = store.run(name)
            folder = os.path.join(config.storage_path, "runs", row.folder)
    except (RunNotFound, StoreError):
        if resume is True:
            return None
        raise
    if row.status == events.RUNNING:
        message = (
            f"Run {name!r} is still running (process {runfile.read(folder).get('pid')}). Wait for it, or stop it first."
        )
        raise UsageError(message)
    facts = runfile.read(folder)
    facts.update(steps=row.steps, checkpoints=row.checkpoints)
    return folder, facts


def _given_name(config: Config) -> str:
    """Return the run's name if somebody chose it."""
    return config.run_name if "run_name" in config.given else ""
