"""Stores, and peers that the table of back ends does not have."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))

from moving import PeerBackend, PeerSource

from tracer.backends import table
from tracer.storage import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with Store.open(tmp_path / "store", create=True) as opened:
        yield opened


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Store]:
    """Another empty store."""
    with Store.open(tmp_path / "other", create=True) as opened:
        yield opened


@pytest.fixture
def peer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[type[PeerBackend]]:
    """Enter a peer in memory into the table, under the name `peer`."""
    (tmp_path / "peer").mkdir()
    monkeypatch.setattr(PeerBackend, "folder", tmp_path / "peer", raising=False)
    monkeypatch.setattr(PeerBackend, "runs", {})  # not those of every back end in memory
    module = ModuleType("tracer.backends.peer_in_memory")
    module.PeerBackend, module.PeerSource = PeerBackend, PeerSource  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    entry = table.Entry(
        "the peer",
        backend="peer_in_memory:PeerBackend",
        source="peer_in_memory:PeerSource",
        options=("token",),
        url_option="url",
    )
    monkeypatch.setitem(table.ENTRIES, "peer", entry)  # type: ignore[misc]
    yield PeerBackend
    for kept in (PeerBackend.runs, PeerBackend.failures, PeerBackend.opened, PeerBackend.written):
        kept.clear()
