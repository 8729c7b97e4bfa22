"""The mark that a framework sets while it feeds a writer."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from tracer.capture.origins import fed_by, feeding


def test_the_mark_lasts_as_long_as_its_block() -> None:
    assert fed_by() is None
    with feeding("lightning"):
        assert fed_by() == "lightning"
        with feeding("accelerate"):
            assert fed_by() == "accelerate"
        assert fed_by() == "lightning"
    assert fed_by() is None


def test_an_exception_passes_through_and_ends_it() -> None:
    with pytest.raises(KeyError), feeding("lightning"):
        raise KeyError

    assert fed_by() is None


def test_other_threads_are_not_marked() -> None:
    seen: list[str | None] = []

    with feeding("lightning"):
        thread = threading.Thread(target=lambda: seen.append(fed_by()))
        thread.start()
        thread.join()

    assert seen == [None]


def test_it_loads_nothing_of_others() -> None:
    """Every framework's room reads it."""
    source = (
        "import sys; import tracer.capture.origins; print(sorted({'numpy', 'torch', 'tensorboard'} & set(sys.modules)))"
    )

    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
