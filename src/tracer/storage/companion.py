"""The companion of a run: folds its journal while the trainer lives, then the rest, and goes.

    python -m tracer.storage.companion STORE RUN

Standard input is a pipe that the trainer holds open: its end means that the trainer is gone. The companion folds
every five seconds, less often when that costs more than one per cent of a core; live views read the journal anyway.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import sys
from typing import TYPE_CHECKING

from tracer import clock
from tracer.errors import StoreError
from tracer.storage.maintainer import Busy
from tracer.storage.store import Store

if TYPE_CHECKING:
    from typing import IO

_INTERVAL_S, _LONGEST_S = 5.0, 60.0
_SHARE = 0.01
_NICE = 10
_LAST_S = 5.0
#: How often another maintainer is waited for at the end.
_PATIENCE_S = 0.5

logger = logging.getLogger("tracer")


def accompany(store: Store, uid: str, pipe: IO[bytes], *, interval_s: float = _INTERVAL_S) -> None:
    """Fold a run until the pipe ends, then once more.

    Args:
        store: The store.
        uid: The run.
        pipe: What the trainer holds open.
        interval_s: The shortest time between two folds.
    """
    pause = interval_s
    while not _has_ended(pipe, pause):
        began = clock.process_time()
        _fold(store, uid)
        cost = clock.process_time() - began
        pause = min(pause * 2, _LONGEST_S) if cost > _SHARE * pause else max(pause / 2, interval_s)
    finish(store, uid)


def finish(store: Store, uid: str) -> None:
    """Fold what the trainer left, say how it ended, merge its files; begin nothing new after five seconds."""
    from tracer.storage.compact import compact_run, sweep
    from tracer.storage.fold import checkpoint_log, fold_run, settle

    until = clock.monotonic() + _LAST_S
    while True:
        try:
            store.refresh()
            with store.writing(wait_s=_PATIENCE_S) as catalog:
                fold_run(store, uid, until=until)
                settle(store, [uid])
                if clock.monotonic() < until:
                    compact_run(store, catalog, uid)
                    sweep(store, catalog)
                checkpoint_log(store)
        except Busy:
            if clock.monotonic() < until:
                continue
        except StoreError as error:
            logger.debug("Run %s cannot be folded: %s", uid, error)
        return


def main() -> int:
    """Accompany the run that the command line names; return the exit code."""
    if len(sys.argv) != 3:  # noqa: PLR2004 -- the program, the store, the run
        sys.stderr.write("usage: python -m tracer.storage.companion STORE RUN\n")
        return 2
    with contextlib.suppress(OSError):
        os.nice(_NICE)  # the training comes first
    try:
        with Store.open(sys.argv[1]) as store:
            accompany(store, sys.argv[2], sys.stdin.buffer)
    except StoreError as error:
        sys.stderr.write(f"tracer: {error}\n")
        return 1
    return 0


def _fold(store: Store, uid: str) -> None:
    """Fold once; a store that is busy or full is tried again later."""
    from tracer.storage.compact import compact_run
    from tracer.storage.fold import try_fold

    try:
        store.refresh()
        if try_fold(store, uid, wait_s=_PATIENCE_S):
            with store.writing(wait_s=_PATIENCE_S) as catalog:
                compact_run(store, catalog, uid)
    except (StoreError, OSError) as error:
        logger.debug("Run %s cannot be folded now: %s", uid, error)


def _has_ended(pipe: IO[bytes], seconds: float) -> bool:
    """Wait for the end of the pipe; tell whether it came."""
    ready, _, _ = select.select([pipe], [], [], seconds)
    return bool(ready) and not pipe.read(1)


if __name__ == "__main__":
    sys.exit(main())
