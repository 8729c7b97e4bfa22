"""What a benchmark found: tables, and the bars that it meets or misses; printed, and kept as JSON."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import machine
from figures import TIMES, number
from fresh import RESULTS


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a title; the first column is left-aligned, the others are figures."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: str | float) -> None:
        """Add a row."""
        self.rows.append(tuple(cell if isinstance(cell, str) else number(cell) for cell in cells))

    def lines(self) -> list[str]:
        """Return the table in Markdown, aligned so that a terminal shows it well too."""
        widths = [max(len(row[i]) for row in (self.columns, *self.rows)) for i in range(len(self.columns))]
        ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
        return [_line(self.columns, widths), _line(ruler, widths), *(_line(row, widths) for row in self.rows)]


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure that was promised, and what was measured; the median decides, the minimum is told beside it."""

    what: str
    limit: str
    median: str
    holds: str

    @classmethod
    def at_most(cls, what: str, limit: float, unit: str, median: float, minimum: float | None = None) -> Bar:
        """Judge a cost."""
        holds = _judged(median <= limit, minimum is not None and minimum <= limit)
        return cls(what, f"≤ {_with_unit(limit, unit)}", _with_unit(median, unit), holds)

    @classmethod
    def at_least(cls, what: str, limit: float, unit: str, median: float, best: float | None = None) -> Bar:
        """Judge a gain."""
        holds = _judged(median >= limit, best is not None and best >= limit)
        return cls(what, f"≥ {_with_unit(limit, unit)}", _with_unit(median, unit), holds)


@dataclass(slots=True)
class Report:
    """Everything that one script says."""

    name: str
    claim: str
    how: str
    quick: bool
    tables: list[Table] = field(default_factory=list)
    bars: list[Bar] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    date: str = ""
    load: tuple[float, float] = (0.0, 0.0)

    def table(self, title: str, *columns: str) -> Table:
        """Begin a table."""
        made = Table(title, columns)
        self.tables.append(made)
        return made

    def lines(self) -> list[str]:
        """Return the report as a section of a page."""
        out = [f"### {self.claim}", "", self.how, ""]
        for table in self.tables:
            out += [*([f"{table.title}:", ""] if table.title else []), *table.lines(), ""]
        out += [*(f"* {note}" for note in self.notes), *([""] if self.notes else [])]
        before, after = self.load
        return [*out, f"Measured {self.date}, load {before} before and {after} after.", ""]

    def save(self) -> Path:
        """Write the report as JSON; what was measured quickly never takes the place of what was measured well."""
        folder = RESULTS / "quick" if self.quick else RESULTS
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        written = {**dataclasses.asdict(self), "machine": machine.facts()}
        path.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load_from(cls, path: Path) -> tuple[Report, dict[str, Any]]:
        """Read a report and the facts of its machine back."""
        read = json.loads(path.read_text(encoding="utf-8"))
        facts: dict[str, Any] = read.pop("machine")
        read["tables"] = [
            Table(t["title"], tuple(t["columns"]), [tuple(row) for row in t["rows"]]) for t in read["tables"]
        ]
        read["bars"] = [Bar(**bar) for bar in read["bars"]]
        read["load"] = tuple(read["load"])
        return cls(**read), facts


@contextlib.contextmanager
def reporting(name: str, claim: str, how: str) -> Iterator[Report]:
    """Give a script its report, then print and keep what it found."""
    parser = argparse.ArgumentParser(description=f"{claim}. {how}")
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it works, not to quote")
    report = Report(name, claim, how, parser.parse_args().quick, date=machine.now())
    before = machine.load()
    yield report
    report.load = (before, machine.load())
    if report.quick:
        report.notes.append("Measured with small sizes (`--quick`): this shows that it works, and is not to be quoted.")
    print("\n".join(report.lines()))
    if report.bars:
        print("\n".join(bars_table(report.bars).lines()) + "\n")
    report.save()


def bars_table(bars: Sequence[Bar]) -> Table:
    """Return bars as a table."""
    return Table(
        "", ("what", "bar", "measured", "holds"), [(bar.what, bar.limit, bar.median, bar.holds) for bar in bars]
    )


def progress(line: str) -> None:
    """Tell the person who waits what is being measured."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{line}")
        sys.stderr.flush()


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    """Return one line of a table."""
    first, *others = zip(cells, widths, strict=True)
    return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"


def _with_unit(value: float, unit: str) -> str:
    """Return a figure as it is read."""
    return number(value) + ("" if unit == TIMES else " ") + unit


def _judged(by_median: bool, by_best: bool) -> str:  # noqa: FBT001 -- two facts, named where it is called
    """Return whether a bar holds."""
    return "yes" if by_median else "at the minimum only" if by_best else "no"
