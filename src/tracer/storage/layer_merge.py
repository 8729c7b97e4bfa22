"""Files of layer values merged: many files with some steps of all layers become some with all steps of a few layers.

So one layer over the whole run lies in one or two files. However large the run is, only the layers of one new file are
in memory. The new files count together: each names the others as its siblings.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from tracer.storage import layer_parts, layer_points, segments
from tracer.storage.folder import sync_folder
from tracer.storage.layer_points import TIMES, Key, LayerPart

if TYPE_CHECKING:
    from tracer.storage.catalog import Catalog, Row
    from tracer.storage.layer_parts import Asked, StoredPart
    from tracer.storage.segments import Footer, Written
    from tracer.storage.snapshot import File
    from tracer.storage.values import Integers

#: Values of one new file: 16 bytes each while it is written.
_VALUES = 3_000_000

#: Of each key the layers that go into one new file.
Chunk = dict[Key, set[str]]


def write(
    catalog: Catalog, run: int, folder: str, group: Sequence[File], footer: Footer
) -> list[tuple[Written, list[Row]]]:
    """Write merged layer values, and put the files in place.

    Args:
        catalog: The catalog.
        run: The run.
        folder: Its folder.
        group: The files to be merged, in the order of their folds.
        footer: What the new files say of themselves.

    Returns:
        The files, each with the rows that the catalog keeps of its parts.

    Raises:
        StoreError: One of the files is damaged, or the disk does not take the new ones.
    """
    sources = [(file, part) for file in group for part in layer_parts.parts_of_file(catalog, file.id)]
    known = layer_parts.extents(catalog, run)
    where = os.path.join(folder, footer.family)
    if not os.path.isdir(where):
        os.makedirs(where, exist_ok=True)
        sync_folder(folder)
    chunks = list(_chunks(sources))
    names = [segments.new_name() for _ in chunks]
    siblings = [f"{footer.family}/{name}" for name in names]
    pending: list[tuple[str, str, Footer, list[Row], Integers]] = []
    times: list[Integers] = []
    with ExitStack() as unless_whole:  # half a merge is of no use
        for name, chunk in zip(names, chunks, strict=True):
            parts = _merged(sources, chunk)
            steps, of_chunk = layer_points.extent(parts)
            times.append(of_chunk)
            hidden, of_file = segments.hidden_path(where, name), replace(footer, siblings=siblings)
            pending.append((hidden, os.path.join(where, name), of_file, layer_parts.rows(parts, known), steps))
            unless_whole.callback(segments.remove, hidden)
            segments.write_layers(hidden, parts, of_file)
        unless_whole.pop_all()
    for hidden, path, *_ in pending:
        segments.publish(hidden, path)
    # The times stand in the first of the files and are those of all.
    every = np.concatenate(times)
    return [(segments.written(path, of_file, steps, every), rows) for _, path, of_file, rows, steps in pending]


def _chunks(sources: Sequence[tuple[File, StoredPart]]) -> Iterator[Chunk]:
    """Yield which layers go into which new file, in the order of the rows."""
    keys: dict[Key, dict[str, int]] = {}
    for _, part in sources:
        layers = keys.setdefault(part.key, {})
        for name in part.layers:
            # Layers of a part have about as many values each; the exact count stands in the file only.
            layers[name] = layers.get(name, 0) + -(-part.n // len(part.layers))
    chunk: Chunk = {}
    values = 0
    for key in sorted(keys, key=lambda key: (key[1] != TIMES, key)):
        for name in sorted(keys[key]):
            if values and values + keys[key][name] > _VALUES:
                yield chunk
                chunk, values = {}, 0
            chunk.setdefault(key, set()).add(name)
            values += keys[key][name]
    if chunk:
        yield chunk


def _merged(sources: Sequence[tuple[File, StoredPart]], chunk: Chunk) -> list[LayerPart]:
    """Read the layers of one new file from all old ones."""
    asked: list[Asked] = []
    for file, part in sources:
        places = layer_parts.places_in(part, list(chunk.get(part.key, ())))
        if places:
            asked.append((file, part, places))
    found: dict[Key, list[LayerPart]] = {}
    for read in layer_parts.fetch(asked):
        found.setdefault(read.key, []).append(read)
    return sorted((layer_points.merge(parts) for parts in found.values()), key=lambda part: part.order)


__all__ = ["write"]
