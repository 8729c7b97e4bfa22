"""What `tracer run --dry-run` shows: which frameworks would be heard where, collectors, carriers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tracer.render.tables import Block, Cell, Heading, Lines, Pairs, Styled, Table

if TYPE_CHECKING:
    from tracer.activation.commands import Command

_COLLECTORS = ("track_system_metrics", "track_git", "track_environment", "track_arguments", "track_code")
_STYLES = {"tested": "green", "untested": "yellow", "not installed": "dim"}


def preview(names: Sequence[str], output: str, command: Command | None) -> dict[str, object]:
    """Return what would be captured.

    Args:
        names: The frameworks that are listened to.
        output: What is kept of the output.
        command: What would be started.
    """
    from tracer.activation.carriers import carriers
    from tracer.capture.frameworks import FRAMEWORKS
    from tracer.config import Config

    config = Config.load({"track_output": output})
    collectors = {name.removeprefix("track_"): bool(getattr(config, name)) for name in _COLLECTORS}
    started = None
    if command is not None:
        started = {"arguments": command.arguments, "how": "in place" if command.is_ours else "as a child"}
    return {
        "command": started,
        "frameworks": [_framework(name, is_on=name in names) for name in FRAMEWORKS if name != "arguments"],
        "collectors": {**collectors, "output": config.track_output},
        "carriers": [carrier.as_dict() for carrier in carriers()],
    }


def _framework(name: str, *, is_on: bool) -> dict[str, Any]:
    """Return where a framework is heard, and whether that was tested with what is installed."""
    from tracer.capture.patch_report import version_of
    from tracer.capture.patching import rows_of

    heard: dict[str, list[str]] = {}
    tested = {}
    for patch in rows_of(name):
        heard.setdefault(patch.package, []).append(f"{patch.module}.{patch.attribute}")
        tested[patch.package] = patch.tested
    packages = [
        {
            "package": package,
            "version": (version := version_of(package)),
            "tested": list(tested[package]),
            "state": _state(version, tested[package]),
            "points": points,
        }
        for package, points in heard.items()
    ]
    return {"framework": name, "captured": is_on, "packages": packages}


def _state(version: str | None, tested: tuple[str, str]) -> str:
    """Say whether an installed version is one that we know."""
    from tracer.capture.patch_report import is_between

    if version is None:
        return "not installed"
    return "tested" if is_between(version, tested) else "untested"


def preview_blocks(found: Mapping[str, Any]) -> list[Block]:
    """Return it for people."""
    rows: list[tuple[Cell, ...]] = []
    for row in found["frameworks"]:
        for package in row["packages"]:
            state = package["state"] if row["captured"] else "left out"
            where = ", ".join(dict.fromkeys(".".join(point.split(".")[-2:]) for point in package["points"]))
            rows.append(
                (
                    row["framework"],
                    package["package"],
                    package["version"] or "",
                    " to ".join(package["tested"]),
                    Styled(state, _STYLES.get(state, "dim")),
                    where,
                )
            )
    blocks: list[Block] = []
    if found["command"] is not None:
        blocks.append(Lines((f"would start {found['command']['how']}: {' '.join(found['command']['arguments'])}", "")))
    blocks.append(Heading("Frameworks"))
    blocks.append(
        Table(("framework", "package", "version", "tested", "", "heard at"), tuple(rows), may_wrap=frozenset({5}))
    )
    collectors = {
        name: said if isinstance(said, str) else "yes" if said else "no" for name, said in found["collectors"].items()
    }
    blocks += [Heading("Collectors"), Pairs(tuple(collectors.items()))]
    blocks.append(Heading("Carriers"))
    carried = tuple(
        (row["name"], Styled("in place", "green") if row["is_there"] else Styled("absent", "yellow"), row["reaches"])
        for row in found["carriers"]
    )
    blocks.append(Table(("carrier", "", "reaches"), carried, may_wrap=frozenset({2})))
    return blocks


__all__ = ["preview", "preview_blocks"]
