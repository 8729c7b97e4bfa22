"""Run every benchmark in a fresh process, print the tables, and put them into `docs/performance.md`.

`make bench` calls this; `make bench ARGS='--quick'` only shows that everything works, `ARGS='--only store runs'`
measures some again and keeps the others' last results.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import machine
from fresh import BENCHMARKS, RESULTS
from report import Report, bars_table

#: In the order of the page.
SCRIPTS = (
    "log_call",
    "busy_thread",
    "training_step",
    "capture",
    "tensorboard_capture",
    "watch",
    "tensor_statistics",
    "flight",
    "kill",
    "imports",
    "finish",
    "store",
    "layers",
    "mirrors",
    "migration",
    "runs",
)
PAGE = BENCHMARKS.parent / "docs" / "performance.md"
START, END = "<!-- bench: start -->", "<!-- bench: end -->"


def main() -> int:
    """Run, print, write; return the exit code: 1 when a script failed, 0 even when a bar is missed."""
    arguments = _arguments()
    failed = [name for name in arguments.only if not _ran(name, quick=arguments.quick)]
    found = collected(RESULTS / "quick" if arguments.quick else RESULTS)
    if found:
        print("\n".join(summary(found)))
    if not arguments.quick and found:
        PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), section(found)), encoding="utf-8")
        print(f"Written into {PAGE.relative_to(BENCHMARKS.parent)}.")
    if failed:
        print(f"Failed: {', '.join(failed)}.", file=sys.stderr)
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure Tracer beside its peers.")
    parser.add_argument("--quick", action="store_true", help="small sizes; the page is left alone")
    parser.add_argument(
        "--only", nargs="+", choices=SCRIPTS, default=SCRIPTS, metavar="NAME", help="some of the scripts"
    )
    return parser.parse_args()


def _ran(name: str, *, quick: bool) -> bool:
    """Run one script."""
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *(["--quick"] if quick else [])]
    return subprocess.run(command, check=False).returncode == 0


def collected(folder: Path) -> dict[str, tuple[Report, dict[str, object]]]:
    """Return the last result of each script that has one, in the order of the page."""
    paths = {name: folder / f"{name}.json" for name in SCRIPTS}
    return {name: Report.load_from(path) for name, path in paths.items() if path.exists()}


def summary(found: dict[str, tuple[Report, dict[str, object]]]) -> list[str]:
    """Return the bars of all scripts as one table."""
    bars = [bar for report, _ in found.values() for bar in report.bars]
    return ["### What was promised", "", *bars_table(bars).lines(), ""]


def section(found: dict[str, tuple[Report, dict[str, object]]]) -> str:
    """Return what stands between the marks: the machine, the bars, then each script's tables."""
    machines = list({_machine_line(facts): None for _, facts in found.values()})
    lines = [*machines, "", *summary(found)]
    for report, _ in found.values():
        lines += report.lines()
    return "\n".join(lines).rstrip() + "\n"


def page_with(page: str, text: str) -> str:
    """Return a page with the text between its marks."""
    before, start, rest = page.partition(START)
    _, end, after = rest.partition(END)
    if not (start and end):
        message = f"{PAGE} has no {START} … {END}: put both marks where the results belong."
        raise ValueError(message)
    return f"{before}{START}\n{text}{END}{after}"


def _machine_line(facts: dict[str, object]) -> str:
    """Return a sentence on what was measured where; results of other versions get a sentence of their own."""
    versions = facts["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items()) if isinstance(versions, dict) else ""
    return f"{facts['processor']}, {facts['memory_gib']} GiB, {facts['kernel']}; {named}."


if __name__ == "__main__":
    print(f"{machine.now()}, load {machine.load()}\n")
    sys.exit(main())
