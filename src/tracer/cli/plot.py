"""`tracer plot`: metrics as a chart in the terminal, as a picture, or as a table."""

# ruff: noqa: FBT001, PLR0913, PLR0917 -- click hands over one argument for each option, by name

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from tracer.cli import completion
from tracer.cli.options import one_run, reading
from tracer.cli.output import Rows, Show
from tracer.cli.run_page import unknown_metric
from tracer.errors import CommandError
from tracer.render.formats import clean, size, to_csv, to_json
from tracer.render.tables import Block, Lines, Styled

if TYPE_CHECKING:
    from tracer.render.charts import Curve
    from tracer.storage.store import Store
    from tracer.storage.values import RunRow, Series

_SECOND = 1_000_000
_ENDINGS = ("csv", "json", "parquet", "svg", "png")
_PICTURE_WIDTH, _PICTURE_HEIGHT = 960, 540
_HEIGHT = 20
_DOTS_PER_CELL = 2


@dataclass(frozen=True, slots=True)
class _Line:
    """One metric of one run."""

    run: RunRow
    series: Series


@click.command("plot")
@click.argument("run", metavar="RUN", shell_complete=completion.runs)
@click.argument("metrics", metavar="METRIC…", nargs=-1, required=True, shell_complete=completion.metrics)
@click.option(
    "--with",
    "others",
    metavar="RUN",
    multiple=True,
    shell_complete=completion.runs,
    help="Draw this run too; may be repeated.",
)
@click.option("--log", is_flag=True, help="Make the y axis logarithmic.")
@click.option(
    "--smooth",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    metavar="WEIGHT",
    help="Smooth by a moving average, 0 … 1.",
)
@click.option(
    "--x",
    "axis",
    type=click.Choice(("step", "time")),
    default="step",
    show_default=True,
    help="What runs to the right.",
)
@click.option("--histogram", is_flag=True, help="Show how often values occur instead of when.")
@click.option("--rank", type=int, default=0, show_default=True, help="Whose values, in a run of several processes.")
@click.option(
    "--export",
    "-e",
    "path",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Write to a file; its ending chooses csv, json, parquet, svg or png.",
)
@click.option("--width", type=click.IntRange(min=20), help="Cells, or pixels of a picture.")
@click.option("--height", type=click.IntRange(min=5), help="Lines, or pixels of a picture.")
@reading(rows=True)
def plot_metrics(
    run: str,
    metrics: tuple[str, ...],
    others: tuple[str, ...],
    log: bool,
    smooth: float,
    axis: str,
    histogram: bool,
    rank: int,
    path: str | None,
    width: int | None,
    height: int | None,
    store: Store,
    show: Show,
) -> None:
    """Draw metrics in the terminal, or save them as a picture or a table.

    Every column of the chart shows the whole range of its values, so no spike is lost. NaN and the infinities are
    marks on the border.
    """
    ending = _ending(path)
    runs = [one_run(store, name, show) for name in (run, *others)]
    lines = [_line(store, one, metric, rank) for one in runs for metric in dict.fromkeys(metrics)]
    if path is not None:
        _export(store, lines, path, ending, (log, smooth, axis, width, height))
        show.done(
            f"{clean(path)}: {sum(len(line.series.step) for line in lines)} points, {size(os.path.getsize(path))}"
        )
        return
    show(
        {"series": [_record(line) for line in lines]},
        blocks=lambda: (
            _histograms(lines, width, show) if histogram else _chart(lines, (log, smooth, axis, width, height), show)
        ),
        rows=lambda: _rows(lines),
    )


Drawing = tuple[bool, float, str, int | None, int | None]


def _ending(path: str | None) -> str:
    """Return the format that a path's ending names, or say which ones there are."""
    if path is None:
        return ""
    ending = os.path.splitext(path)[1].lstrip(".").lower()
    if ending not in _ENDINGS:
        message = f"The ending of {path!r} names no format. Choose one of: {', '.join(_ENDINGS)}."
        raise click.UsageError(message)
    return ending


def _line(store: Store, run: RunRow, metric: str, rank: int) -> _Line:
    """Return a metric of a run, or say that there is none."""
    known = {row.metric: row for row in store.metrics(run.uid) if row.rank == rank}
    if metric not in known:
        raise CommandError(unknown_metric(metric, run, list(known)))
    if known[metric].is_text:
        message = (
            f"Metric {metric!r} of run {run.name!r} is text, which has no chart. `tracer show` shows its last value."
        )
        raise CommandError(message)
    return _Line(run, store.series(run.uid, metric, rank=rank))


def _names(lines: Sequence[_Line]) -> list[str]:
    """Return what each curve is called: only what tells it from the others."""
    runs, metrics = {line.run.uid for line in lines}, {line.series.metric for line in lines}
    names = [line.run.name for line in {line.run.uid: line for line in lines}.values()]
    called = []
    for line in lines:
        run = line.run.name if names.count(line.run.name) == 1 else f"{line.run.name} ({line.run.uid[-6:]})"
        parts = [run] if len(metrics) == 1 and len(runs) > 1 else [line.series.metric]
        if len(metrics) > 1 and len(runs) > 1:
            parts.insert(0, run)
        called.append(clean(" ".join(parts)))
    return called


def _curves(lines: Sequence[_Line], columns: int, axis: str, smooth: float) -> list[Curve]:
    """Return the curves, reduced to as many columns as there are."""
    import numpy as np

    from tracer.analysis.reduction import reduce_series
    from tracer.analysis.statistics import ema
    from tracer.render.charts import Curve

    curves = []
    for line, name in zip(lines, _names(lines), strict=True):
        series = line.series
        x, y = series.step.astype(np.float64), series.value
        if axis == "time":
            order = np.argsort(series.time, kind="stable")
            x, y = (series.time[order] - line.run.started) / _SECOND, y[order]
        curves.append(Curve(name, reduce_series(x, ema(y, smooth) if smooth else y, columns)))
    return curves


def _chart(lines: Sequence[_Line], drawing: Drawing, show: Show) -> list[Block]:
    """Return the chart for a terminal."""
    from tracer.render.charts import Style, line_chart

    log, smooth, axis, width, height = drawing
    terminal = show.terminal
    wide = width or terminal.width
    high = height or (min(_HEIGHT, max(terminal.height - 3, 8)) if terminal.is_seen else _HEIGHT)
    curves = _curves(lines, wide * _DOTS_PER_CELL, axis, smooth)
    style = Style(terminal.colours, ascii_only=not terminal.unicode)
    title = "" if len({line.run.uid for line in lines}) > 1 else clean(lines[0].run.name)
    metrics = {line.series.metric for line in lines}
    if len(metrics) == 1 and not title:
        title = clean(lines[0].series.metric)
    drawn = line_chart(curves, wide, high, log=log, style=style)
    note = "seconds since the start" if axis == "time" else "step"
    return [
        *([Lines((Styled(title, "bold"),))] if title else []),
        Lines(tuple(drawn), coloured=True),
        Lines((note.rjust(min(wide, terminal.width)),)),
    ]


def _histograms(lines: Sequence[_Line], width: int | None, show: Show) -> list[Block]:
    """Return how often values occur."""
    from tracer.render.charts import histogram

    blocks: list[Block] = []
    for line, name in zip(lines, _names(lines), strict=True):
        bars = histogram(line.series.value.tolist(), width or show.terminal.width, ascii_only=not show.terminal.unicode)
        blocks += [Lines((Styled(name, "bold"), *bars))]
    return blocks


def _record(line: _Line) -> dict[str, object]:
    """Return a series with the keys of the Tracer documents, and whose it is."""
    return {
        "run": line.run.uid,
        "name": line.run.name,
        "metric": line.series.metric,
        "rank": line.series.rank,
        "steps": line.series.step.tolist(),
        "timestamps": (line.series.time / _SECOND).tolist(),
        "values": line.series.value.tolist(),
    }


def _rows(lines: Sequence[_Line]) -> Rows:
    """Return the points as rows: `step,timestamp,value`, and whose they are when there are several series."""
    several = len(lines) > 1
    rows: list[Sequence[object]] = []
    for line in lines:
        whose = [line.run.name, line.series.metric] if several else []
        columns = (line.series.step.tolist(), (line.series.time / _SECOND).tolist(), line.series.value.tolist())
        rows += [[*whose, *point] for point in zip(*columns, strict=True)]
    return Rows([*(["run", "metric"] if several else []), "step", "timestamp", "value"], rows)


def _export(store: Store, lines: Sequence[_Line], path: str, ending: str, drawing: Drawing) -> None:
    """Write the metrics to a file, which appears whole or not at all."""
    if ending == "parquet":
        runs = list(dict.fromkeys(line.run.uid for line in lines))
        part = f"{path}.{os.getpid()}.part.parquet"
        metrics = list(dict.fromkeys(line.series.metric for line in lines))
        try:
            store.export(runs, part, "parquet", metrics=metrics)
            os.replace(part, path)
        finally:
            if os.path.exists(part):
                os.unlink(part)
        return
    data = _content(lines, ending, drawing)
    part = f"{path}.{os.getpid()}.part"
    try:
        with open(part, "wb") as file:
            file.write(data)
        os.replace(part, path)
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}."
        raise CommandError(message) from None
    finally:
        if os.path.exists(part):
            os.unlink(part)


def _content(lines: Sequence[_Line], ending: str, drawing: Drawing) -> bytes:
    """Return the bytes of a file."""
    if ending == "csv":
        rows = _rows(lines)
        return to_csv(rows.header, rows.rows).encode()
    if ending == "json":
        records = [_record(line) for line in lines]
        keys = ("steps", "timestamps", "values")
        document = {key: records[0][key] for key in keys} if len(records) == 1 else {"series": records}
        return (to_json(document) + "\n").encode()
    return _picture(lines, ending, drawing)


def _picture(lines: Sequence[_Line], ending: str, drawing: Drawing) -> bytes:
    """Return a picture; smoothed curves have the raw ones pale behind them."""
    from tracer.render.pictures import Chart, lay_out

    log, smooth, axis, width, height = drawing
    wide = width or _PICTURE_WIDTH
    metrics = list(dict.fromkeys(line.series.metric for line in lines))
    runs = list(dict.fromkeys(line.run.name for line in lines))
    chart = Chart(
        title=f"{', '.join(metrics)} - {', '.join(runs)}",
        curves=tuple(_curves(lines, wide, axis, smooth)),
        x_label="seconds since the start" if axis == "time" else "step",
        y_label=metrics[0] if len(metrics) == 1 else "",
        log=log,
        faint=tuple(_curves(lines, wide, axis, 0.0)) if smooth else (),
    )
    picture = lay_out(chart, wide, height or _PICTURE_HEIGHT)
    if ending == "svg":
        from tracer.render.svg import to_svg

        return to_svg(picture).encode()
    from tracer.render.png import to_png

    return to_png(picture)


__all__ = ["plot_metrics"]
