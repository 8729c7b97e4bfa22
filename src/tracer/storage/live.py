"""The recent records of a run as columns: what `recent.py` summarises, `live.py` keeps whole; with numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracer import clock
from tracer.errors import JournalCorrupt
from tracer.storage import tails
from tracer.storage.columns import Columns, Decoder, Loose, Rows, void
from tracer.storage.points import Points, arrange
from tracer.storage.tails import Place

if TYPE_CHECKING:
    from tracer.storage.snapshot import Snapshot

Rewind = tuple[int, str]


def live_columns(snapshot: Snapshot) -> tuple[Columns, list[Rewind]]:
    """Return what a run's journal holds beyond its files, and the rewinds among it: step and pattern."""
    decoder = Decoder()
    rewinds: list[Rewind] = []
    if snapshot.is_settled:
        return decoder.columns, rewinds
    boot = clock.boot_id()
    for first in tails.read_tails(snapshot.journal, snapshot.places, boot):
        tail = first
        decoder.add(tail)
        while decoder.is_stopped:
            stone = decoder.columns.logs[-1]
            rewinds.append((stone.step, stone.name or "*"))
            void(decoder.columns, *rewinds[-1])
            place = Place(tail.number, tail.end, tails.pack_offsets(tail.declared))
            try:
                tail = tails.load(tail.path, place, tails.sealed_blocks(snapshot.journal, tail.writer), boot)
            except (FileNotFoundError, JournalCorrupt):
                break  # folded meanwhile: the positions tell, and a new snapshot is taken
            decoder.add(tail)
    return decoder.columns, rewinds


def live_series(columns: Columns, metric: str, rank: int) -> Points | None:
    """Return one series of what was decoded, or None where it has nothing."""
    chosen = Columns()
    for one in columns.rows:
        if one.rank == rank and metric in one.keys:
            at = one.keys.index(metric)
            values = one.values[:, at : at + 1]
            chosen.rows.append(Rows((metric,), rank, one.ordinal, one.step, one.time, values, one.arrival))
            chosen.points += len(one.step)
    loose = columns.loose
    there = [at for at, key in enumerate(zip(loose.names, loose.ranks, strict=True)) if key == (metric, rank)]
    if there:
        chosen.loose = Loose(*([getattr(loose, part)[at] for at in there] for part in Loose.__slots__))
        chosen.points += len(there)
    return arrange(chosen) if chosen.points else None


__all__ = ["Rewind", "live_columns", "live_series"]
