"""How a run's folder comes to be: made, joined by another rank of the same job, or opened again.

A run whose id was given beforehand, by `tracer run` or by `TRACER_RUN_ID`, is made by whoever comes first.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from tracer.config import Config
    from tracer.record.identity import Place

import os

from tracer import clock, events, runfile
from tracer.errors import StoreError
from tracer.record.identity import job_key

_DAY_US = 86_400_000_000
#: One launcher may run many trainings one after the other; each is a life of the same job.
_MAX_LIVES = 10_000


def open_run(
    config: Config,
    place: Place,
    hyperparameters: Mapping[str, object],
    resume: tuple[str, dict[str, Any]] | None,
    join: str | None = None,
) -> tuple[str, dict[str, Any]]:
    """Return the folder and the facts of the run that begins or goes on.

    Args:
        config: The settings.
        place: Where this process stands in its job; a resumed run raises its attempt.
        hyperparameters: What the user calls the run's config.
        resume: Folder and facts of the run to continue.
        join: The id of the run, where that was agreed on before.

    Raises:
        StoreError: The store cannot be written, or a newer Tracer wrote it.
    """
    try:
        runfile.prepare_store(config.storage_path)
        if resume is not None:
            return _open_again(*resume, place, hyperparameters)
        if join is not None:
            return _join(config, place, hyperparameters, join)
        return _make_or_join(config, place, hyperparameters)
    except OSError as error:
        message = (
            f"The store {config.storage_path!r} cannot be written ({error.strerror or error}). "
            "Choose another folder with storage_path=... or TRACER_STORAGE, or make room."
        )
        raise StoreError(message) from error


def _open_again(
    folder: str, facts: dict[str, Any], place: Place, hyperparameters: Mapping[str, object]
) -> tuple[str, dict[str, Any]]:
    """Take over a run that has ended."""
    place.attempt = int(facts.get("attempt", 1)) + 1
    runfile.merge(facts, {"config": dict(hyperparameters)})
    facts.update({**runfile.owner(), "attempt": place.attempt})
    facts.update(status=events.RUNNING, reason=None, ended=None, exit_code=None)
    runfile.replace(folder, facts)
    return folder, facts


def _join(config: Config, place: Place, hyperparameters: Mapping[str, object], uid: str) -> tuple[str, dict[str, Any]]:
    """Take part in the run of this id: the first rank owns it from now on, and opens it again if it had ended."""
    folder = os.path.join(config.storage_path, "runs", runfile.folder_name(uid))
    os.makedirs(folder, exist_ok=True)
    was_first = runfile.create(folder, _new_facts(uid, config, place, hyperparameters))
    facts = runfile.read(folder)
    if place.rank == 0 and not was_first:
        if facts.get("status") != events.RUNNING or place.attempt > 1:
            return _open_again(folder, facts, place, hyperparameters)
        runfile.merge(facts, {"config": dict(hyperparameters)})
        facts.update({**runfile.owner(), "attempt": place.attempt, "world_size": place.world_size})
        runfile.replace(folder, facts)
    return folder, facts


def _make_or_join(config: Config, place: Place, hyperparameters: Mapping[str, object]) -> tuple[str, dict[str, Any]]:
    """Make the run's folder, or join the one that another rank of the same job has made.

    Ranks agree without talking: the id follows from what they all know, and the n-th run of one rank is the n-th run
    of every other. A rank leaves its mark in the folder, so a quick rank may end a run before a slow one joins it.
    """
    job = job_key()
    given = config.run_name if "run_name" in config.given else ""
    for life in range(_MAX_LIVES):
        uid = runfile.shared_id(job, config.project_name, given, life) if job else runfile.new_id()
        folder = os.path.join(config.storage_path, "runs", runfile.folder_name(uid))
        os.makedirs(folder, exist_ok=True)
        was_first = runfile.create(folder, _new_facts(uid, config, place, hyperparameters))
        if job and not _is_first_time(folder, place):
            continue
        facts = runfile.read(folder)
        if place.rank == 0 and not was_first:  # whoever came first, the run belongs to the first rank: it ends it
            facts.update({**runfile.owner(), "attempt": place.attempt, "status": events.RUNNING})
            runfile.replace(folder, facts)
        return folder, facts
    message = f"The launcher {job!r} has begun {_MAX_LIVES} runs of this name already. Give the run a name of its own."
    raise StoreError(message)


def _is_first_time(folder: str, place: Place) -> bool:
    """Leave this rank's mark in a run's folder; tell whether it was not there yet."""
    try:
        os.close(os.open(os.path.join(folder, f".rank.{place.attempt}.{place.rank}"), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


def _new_facts(uid: str, config: Config, place: Place, hyperparameters: Mapping[str, object]) -> dict[str, Any]:
    """Return the facts of a new run."""
    declared = {name: said for name, said in config.custom_metrics.items() if isinstance(said, dict)}
    keep_for = config.retention_days if "retention_days" in config.given else 0
    return {
        **runfile.new_facts(uid, config.project_name, config.run_name, config.to_dict()),
        "config": dict(hyperparameters),
        "tags": config.tags,
        "notes": config.notes,
        "group": config.group,
        "job_type": config.job_type,
        "attempt": place.attempt,
        "world_size": place.world_size,
        "goals": {name: said["goal"] for name, said in declared.items() if "goal" in said},
        "units": {name: said["unit"] for name, said in declared.items() if "unit" in said},
        "expires": clock.now_us() + keep_for * _DAY_US if keep_for else None,
    }
