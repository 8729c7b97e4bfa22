"""`tracer layers`: the statistics of a model's layers as a heat map, as one layer's chart, as histograms."""

# ruff: noqa: FBT001, PLR0913, PLR0917 -- click hands over one argument for each option, by name

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from tracer.cli import completion
from tracer.cli.options import one_run, reading
from tracer.cli.output import Rows, Show
from tracer.errors import CommandError
from tracer.render.formats import clean, number, size, to_csv, to_json
from tracer.render.tables import Block, Lines, Pairs, Styled

if TYPE_CHECKING:
    from tracer.render.heatmaps import Heat
    from tracer.storage.store import Store
    from tracer.storage.values import Integers, LayerAxis, LayerHistograms, LayerMatrix, LayerOverview, RunRow

_SECOND = 1_000_000
_ENDINGS = ("csv", "json")
_HEIGHT, _AROUND = 20, 5
_CHART_HEIGHT = 15
_NAMED_BAD = 3
_BUCKETS = 256
_RARE = 1000


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What of a run is asked for."""

    run: RunRow
    axis: str
    statistic: str
    layers: tuple[str, ...]
    rank: int
    start: int | None
    stop: int | None


@click.command("layers")
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@click.option(
    "--axis", default="gradients", show_default=True, help="gradients, weights, updates, optimizer, activations."
)
@click.option(
    "--stat", default="norm", show_default=True, help="Which statistic, such as norm, mean, std, max or zeros."
)
@click.option("--layer", "patterns", metavar="PATTERN", multiple=True, help="Only layers with this text, glob or re:….")
@click.option("--from", "start", metavar="STEP", type=int, help="From this step on.")
@click.option("--to", "last", metavar="STEP", type=int, help="Up to this step.")
@click.option("--histogram", metavar="LAYER", help="Show how one layer's values are spread over the powers of two.")
@click.option("--linear", is_flag=True, help="Never make the scale logarithmic.")
@click.option("--rank", type=int, default=0, show_default=True, help="Whose values, in a run of several processes.")
@click.option(
    "--export", "-e", "path", metavar="FILE", type=click.Path(dir_okay=False),
    help="Write to a file; its ending chooses csv or json.",
)  # fmt: skip
@click.option("--width", type=click.IntRange(min=30), help="Cells.")
@click.option("--height", type=click.IntRange(min=8), help="Lines.")
@reading(rows=True)
def show_layers(
    run: str,
    axis: str,
    stat: str,
    patterns: tuple[str, ...],
    start: int | None,
    last: int | None,
    histogram: str | None,
    linear: bool,
    rank: int,
    path: str | None,
    width: int | None,
    height: int | None,
    store: Store,
    show: Show,
) -> None:
    """Show how a statistic of all layers went: a row for each layer, steps to the right.

    Norms are on a logarithmic scale. A cell that held NaN or an infinity is a `!`. One layer alone is drawn as a chart.
    """
    ending = _ending(path)
    found = one_run(store, run, show)
    known = _axis(store, found, axis)
    room = (
        width or show.terminal.width,
        height or (show.terminal.height if show.terminal.is_seen else _HEIGHT + _AROUND),
    )
    stop = None if last is None else last + 1
    if histogram is not None:
        layer = _one_layer(known, histogram)
        wanted = _Wanted(found, axis, "", (layer,), rank, start, stop)
        answer: _Answer = _Histogram(
            wanted, store.histograms(found.uid, layer, axis=axis, rank=rank, start=start, stop=stop)
        )
    else:
        _check_statistic(known, stat)
        wanted = _Wanted(found, axis, stat, _chosen(known, patterns), rank, start, stop)
        answer = _answer(store, wanted, linear=linear)
    if path is not None:
        _export(answer, path, ending)
        show.done(f"{clean(path)}: {size(os.path.getsize(path))}")
        return
    show(answer.document(), blocks=lambda: answer.blocks(room, show), rows=answer.rows)


class _Map:
    """Many layers: a heat map."""

    def __init__(self, wanted: _Wanted, grid: LayerOverview, *, linear: bool) -> None:
        self.wanted, self.grid, self.linear = wanted, grid, linear

    def document(self) -> dict[str, object]:
        """Return what `--json` prints."""
        grid = self.grid
        buckets = [list(pair) for pair in zip(grid.first_step.tolist(), grid.last_step.tolist(), strict=True)]
        tables = {name: getattr(grid, name).tolist() for name in ("n", "bad", "min", "max", "mean")}
        return {**_said(self.wanted), "layers": list(grid.layers), "buckets": buckets, **tables}

    def rows(self) -> Rows:
        """Return what `--csv` prints: a row for each layer and bucket that holds something."""
        grid = self.grid
        header = ("layer", "first_step", "last_step", "n", "bad", "min", "max", "mean")
        rows: list[Sequence[object]] = []
        for row, layer in enumerate(grid.layers):
            for column in grid.n[row].nonzero()[0].tolist():
                figures = [getattr(grid, name)[row, column].item() for name in ("n", "bad", "min", "max", "mean")]
                rows.append((layer, int(grid.first_step[column]), int(grid.last_step[column]), *figures))
        return Rows(header, rows)

    def blocks(self, room: tuple[int, int], show: Show) -> list[Block]:
        """Return the heat map with its title and what was put together or stands out."""
        from tracer.analysis import layers as analysis
        from tracer.render.charts import Style
        from tracer.render.heatmaps import Heat, heat_map

        wanted = self.wanted
        title = Lines((Styled(clean(f"{wanted.run.name}: {wanted.statistic} of {wanted.axis}"), "bold"),))
        if not self.grid.n.any():
            return [title, Lines((f"No {wanted.statistic} of {wanted.axis} was recorded there.",))]
        grid, said = analysis.fold_rows(self.grid, max(room[1] - _AROUND, 4))
        heat = Heat(
            grid.layers, grid.mean.tolist(), (grid.bad > 0).tolist(), grid.first_step.tolist(),
            int(grid.last_step[-1]), log=not self.linear and analysis.is_logarithmic(grid, wanted.statistic),
        )  # fmt: skip
        style = Style(show.terminal.colours, ascii_only=not show.terminal.unicode)
        notes = [said] if said else []
        bad = analysis.bad_layers(self.grid)
        if bad:
            names = ", ".join(f"{clean(name)} (from step {step})" for name, step in bad[:_NAMED_BAD])
            more = f" and {len(bad) - _NAMED_BAD} more" if len(bad) > _NAMED_BAD else ""
            notes.append(f"NaN or Inf in {names}{more}.")
        drawn = Lines(tuple(heat_map(heat, room[0], style)), coloured=True)
        return [title, drawn, *([Lines(tuple(notes))] if notes else [])]


class _One:
    """One layer: a chart."""

    def __init__(self, wanted: _Wanted, matrix: LayerMatrix, *, linear: bool) -> None:
        self.wanted, self.linear = wanted, linear
        self.steps, self.times, self.values = matrix.steps, matrix.times, matrix.values[:, 0].astype(float)

    def document(self) -> dict[str, object]:
        """Return what `--json` prints."""
        times = (self.times / _SECOND).tolist()
        said = {**_said(self.wanted), "layer": self.wanted.layers[0]}
        return {**said, "steps": self.steps.tolist(), "timestamps": times, "values": self.values.tolist()}

    def rows(self) -> Rows:
        """Return what `--csv` prints."""
        columns = (self.steps.tolist(), (self.times / _SECOND).tolist(), self.values.tolist())
        return Rows(("step", "timestamp", "value"), list(zip(*columns, strict=True)))

    def blocks(self, room: tuple[int, int], show: Show) -> list[Block]:
        """Return the chart and a summary."""
        import numpy as np

        from tracer.analysis.layers import COUNTS
        from tracer.analysis.reduction import reduce_series
        from tracer.render.charts import Curve, Style, line_chart

        wanted, values = self.wanted, self.values
        title = f"{wanted.run.name}: {wanted.statistic} of {wanted.axis}, {wanted.layers[0]}"
        if not len(values):
            return [Lines((Styled(clean(title), "bold"), "Nothing was recorded there."))]
        known = values[np.isfinite(values)]
        log = not self.linear and wanted.statistic not in COUNTS and bool(len(known)) and bool((known > 0).all())
        curve = Curve(wanted.layers[0], reduce_series(self.steps.astype(np.float64), values, 2 * room[0]))
        style = Style(show.terminal.colours, ascii_only=not show.terminal.unicode)
        drawn = line_chart([curve], room[0], min(_CHART_HEIGHT, max(room[1] - _AROUND, 8)), log=log, style=style)
        figures = [("values", f"{len(values):,}, steps {self.steps[0]} to {self.steps[-1]}")]
        if len(known):
            finite = np.where(np.isfinite(values), values, np.nan)
            least, most = int(np.nanargmin(finite)), int(np.nanargmax(finite))
            figures += [
                ("min", f"{number(values[least].item(), 4)} at step {self.steps[least]}"),
                ("max", f"{number(values[most].item(), 4)} at step {self.steps[most]}"),
                ("mean", number(float(known.mean()), 4)),
                ("last", number(values[-1].item(), 4)),
            ]
        odd = len(values) - len(known)
        if odd:
            first = int(self.steps[np.argmax(~np.isfinite(values))])
            figures.append(("NaN or Inf", f"{odd:,}, the first at step {first}"))
        chart = Lines(tuple(drawn[1:]), coloured=True)  # its first line is the name of the curve, which the title says
        return [Lines((Styled(clean(title), "bold"),)), chart, Pairs(tuple(figures))]


class _Histogram:
    """The histograms of one layer."""

    def __init__(self, wanted: _Wanted, found: LayerHistograms) -> None:
        self.wanted, self.found = wanted, found

    def document(self) -> dict[str, object]:
        """Return what `--json` prints."""
        found = self.found
        said = {name: value for name, value in _said(self.wanted).items() if name != "statistic"}
        tables = {"negative": found.negative.tolist(), "positive": found.positive.tolist()}
        times = (found.times / _SECOND).tolist()
        steps = {"steps": found.steps.tolist(), "timestamps": times, "lowest_exponent": found.lowest}
        return {**said, "layer": found.layer, **steps, **tables}

    def rows(self) -> Rows:
        """Return what `--csv` prints: a row for each step, sign and power of two that holds something."""
        rows: list[Sequence[object]] = []
        for at, step in enumerate(self.found.steps.tolist()):
            for sign, table in (("negative", self.found.negative), ("positive", self.found.positive)):
                places = table[at].nonzero()[0].tolist()
                rows += [(step, sign, self.found.lowest + place, int(table[at, place])) for place in places]
        return Rows(("step", "sign", "exponent", "count"), rows)

    def blocks(self, room: tuple[int, int], show: Show) -> list[Block]:
        """Return counts by power of two over time, and the last histogram as bars."""
        from tracer.render.charts import Style
        from tracer.render.heatmaps import heat_map

        found = self.found
        title = Lines((Styled(clean(f"{self.wanted.run.name}: {found.axis}, {found.layer}"), "bold"),))
        if not len(found.steps):
            return [title, Lines(("No histograms of this layer were recorded there.",))]
        style = Style(show.terminal.colours, ascii_only=not show.terminal.unicode)
        powers, rare = self._powers()
        blocks: list[Block] = [title]
        if len(found.steps) > 1 and powers:
            blocks.append(Lines(tuple(heat_map(self._heat(powers), room[0], style)), coloured=True))
        last = [(name, int(counts[-1])) for name, counts in powers if counts[-1]]
        margin = max((len(name) for name, _ in last), default=0)
        most = max((count for _, count in last), default=1)
        bar, wide = "█" if style.ascii_only is False else "#", max(room[0] - margin - len(f"{most:,}") - 4, 1)
        lines = [f"{name:>{margin}}  {bar * -(-wide * count // most)}  {count:,}" for name, count in last]
        if rare:
            lines.append(f"{rare} powers of two with less than a thousandth of the values are left out.")
        return [*blocks, Lines((Styled(f"step {found.steps[-1]}", "bold"), *lines))]

    def _powers(self) -> tuple[list[tuple[str, Integers]], int]:
        """Return name and counts of each power of two, from the largest number to the smallest; and how many are rare.

        The tails of a histogram are long and nearly empty: what never holds a thousandth of the values is left out.
        """
        found = self.found
        powers = range(found.positive.shape[1])
        rows = [(f"2^{found.lowest + one}", found.positive[:, one]) for one in reversed(powers)]
        rows += [(f"-2^{found.lowest + one}", found.negative[:, one]) for one in powers]
        most = found.positive.sum(axis=1) + found.negative.sum(axis=1)
        filled = [(name, counts) for name, counts in rows if counts.any()]
        kept = [(name, counts) for name, counts in filled if (counts * _RARE > most).any()]
        return kept, len(filled) - len(kept)

    def _heat(self, rows: Sequence[tuple[str, Integers]]) -> Heat:
        """Return all histograms as a heat map of counts."""
        from tracer.render.heatmaps import Heat

        steps = self.found.steps
        values = [[float(count) or float("nan") for count in counts.tolist()] for _, counts in rows]
        bad = [[False] * len(steps) for _ in rows]
        return Heat([name for name, _ in rows], values, bad, steps.tolist(), int(steps[-1]), log=True, unit="values")


_Answer = _Map | _One | _Histogram


def _answer(store: Store, wanted: _Wanted, *, linear: bool) -> _Answer:
    """Read what is asked for."""
    from tracer.analysis.layers import chosen_rows

    uid, rank, axis = wanted.run.uid, wanted.rank, wanted.axis
    if len(wanted.layers) == 1:
        matrix = store.layers(
            uid, wanted.statistic, axis=axis, layers=wanted.layers, rank=rank, start=wanted.start, stop=wanted.stop
        )
        return _One(wanted, matrix, linear=linear)
    grid = store.layer_overview(uid, wanted.statistic, axis, rank, _BUCKETS, start=wanted.start, stop=wanted.stop)
    return _Map(wanted, chosen_rows(grid, wanted.layers), linear=linear)


def _said(wanted: _Wanted) -> dict[str, object]:
    """Return what every document says of the question."""
    run = {"run": wanted.run.uid, "name": wanted.run.name}
    return {**run, "axis": wanted.axis, "statistic": wanted.statistic, "rank": wanted.rank}


def _axis(store: Store, run: RunRow, axis: str) -> LayerAxis:
    """Return an axis of a run, or say which ones there are."""
    known = {one.axis: one for one in store.layer_axes(run.uid)}
    if axis in known:
        return known[axis]
    if not known:
        message = f"Run {run.name!r} has no statistics of layers. Record them with `tracer.watch(model)`."
        raise CommandError(message)
    message = f"Run {run.name!r} has no axis {axis!r}. It has: {', '.join(sorted(known))}."
    raise CommandError(message)


def _check_statistic(axis: LayerAxis, statistic: str) -> None:
    """Say which statistics there are where one is not."""
    if statistic not in axis.statistics:
        known = ", ".join(axis.statistics) or "histograms only, see --histogram"
        message = f"Of {axis.axis} no statistic {statistic!r} was recorded. There is: {known}."
        raise CommandError(message)


def _chosen(axis: LayerAxis, patterns: Sequence[str]) -> tuple[str, ...]:
    """Return the layers that fit a pattern; a whole name means that layer alone."""
    from tracer.capture.layers import layer_filter

    if not patterns:
        return axis.layers
    try:
        fits = layer_filter([pattern for pattern in patterns if pattern not in axis.layers] or ["re:$^"])
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    found = tuple(name for name in axis.layers if name in patterns or fits(name))
    if not found:
        message = f"No layer of {axis.axis} fits {' or '.join(map(repr, patterns))}. {_near(axis, patterns[0])}"
        raise CommandError(message)
    return found


def _one_layer(axis: LayerAxis, pattern: str) -> str:
    """Return the one layer that a pattern names."""
    found = _chosen(axis, (pattern,))
    if len(found) > 1:
        message = f"{pattern!r} fits {len(found)} layers; name one, such as {found[0]!r}."
        raise CommandError(message)
    return found[0]


def _near(axis: LayerAxis, name: str) -> str:
    """Return which layer may have been meant."""
    near = difflib.get_close_matches(name, axis.layers, n=1)
    return f"Did you mean {near[0]!r}?" if near else f"The first of {len(axis.layers)} is {axis.layers[0]!r}."


def _ending(path: str | None) -> str:
    """Return the format that a path's ending names, or say which ones there are."""
    if path is None:
        return ""
    ending = os.path.splitext(path)[1].lstrip(".").lower()
    if ending not in _ENDINGS:
        message = f"The ending of {path!r} names no format. Choose one of: {', '.join(_ENDINGS)}."
        raise click.UsageError(message)
    return ending


def _export(answer: _Answer, path: str, ending: str) -> None:
    """Write an answer to a file, which appears whole or not at all."""
    rows = answer.rows()
    text = to_csv(rows.header, rows.rows) if ending == "csv" else to_json(answer.document()) + "\n"
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        os.replace(part, path)
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}."
        raise CommandError(message) from None
    finally:
        if os.path.exists(part):
            os.unlink(part)


__all__ = ["show_layers"]
