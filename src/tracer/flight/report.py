"""A replay as one page: verdict, origin with its source, the steps before as small charts, what-if results.

The page is a single file without scripts and without anything from the network; it follows the reader's choice of light
or dark.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from tracer.flight.stored_steps import number as read_number
from tracer.render.formats import number, plain
from tracer.version import __version__

if TYPE_CHECKING:
    from tracer.flight.capsule import Capsule
    from tracer.flight.origin import Origin
    from tracer.flight.replay import ReplayResult
    from tracer.flight.what_if import WhatIfResult

_AROUND = 6
_WIDTH, _HEIGHT, _EDGE = 320, 84, 6
_CURVES = (("loss", "Loss"), ("norm", "Gradient norm"), ("seconds", "Seconds per step"))
_STYLE = """
:root{color-scheme:light dark;--ink:#1c1f26;--soft:#5d6675;--line:#dfe3ea;--back:#f6f7f9;--card:#fff;--good:#14804a;
--good-back:#e5f5ec;--bad:#b42318;--bad-back:#fdecea;--mark:#fff3cd;--blue:#2f6fde}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#9aa4b5;--line:#2c323d;--back:#13161b;--card:#1b1f26;
--good:#4cc38a;--good-back:#12291d;--bad:#ff8a80;--bad-back:#331a18;--mark:#3d3415;--blue:#7aa8ff}}
*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);
font:15px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:960px;margin:0 auto;padding:32px 20px 64px}h1{font-size:22px;margin:0 0 2px;overflow-wrap:anywhere}
h2{font-size:13px;letter-spacing:.06em;text-transform:uppercase;color:var(--soft);margin:34px 0 10px}
p{margin:6px 0}.soft{color:var(--soft)}.card{background:var(--card);border:1px solid var(--line);border-radius:10px;
padding:16px 18px;overflow-x:auto}.verdict{border-left:5px solid;font-size:17px;font-weight:600}
.good{color:var(--good)}.bad{color:var(--bad)}.verdict.good{border-left-color:var(--good);background:var(--good-back)}
.verdict.bad{border-left-color:var(--bad);background:var(--bad-back)}
.verdict p{font-size:15px;font-weight:400;color:var(--ink)}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th{text-align:left;color:var(--soft);
font-weight:500;font-size:13px}th,td{padding:6px 12px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}
tr:last-child td{border-bottom:0}td.n,th.n{text-align:right}
code,pre{font:13px/1.6 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}pre{margin:10px 0 0}
pre span{display:block;white-space:pre;padding:0 8px}pre .here{background:var(--mark);font-weight:600}
ol{margin:8px 0;padding-left:22px}li{margin:2px 0}.charts{display:grid;gap:12px;
grid-template-columns:repeat(auto-fit,minmax(260px,1fr))}svg{display:block;width:100%;height:auto}
svg path{fill:none;stroke:var(--blue);stroke-width:2}svg circle{fill:var(--blue)}svg .bad{fill:var(--bad)}
.label{display:flex;justify-content:space-between;font-size:13px;color:var(--soft)}
""".strip()


def write_report(
    path: str, capsule: Capsule, result: ReplayResult, origin: Origin | None, trial: WhatIfResult | None
) -> None:
    """Write a replay as a page.

    Args:
        path: The file; one that is there is replaced.
        capsule: What was replayed.
        result: What came out.
        origin: Where the fault was born, if it is known.
        trial: What changes did, if some were tried.
    """
    with open(path, "w", encoding="utf-8") as file:
        file.write(page(capsule, result, origin, trial))


def page(capsule: Capsule, result: ReplayResult, origin: Origin | None, trial: WhatIfResult | None) -> str:
    """Return the page."""
    manifest = capsule.manifest
    name = os.path.basename(capsule.path)
    parts = [
        f"<h1>{escape(name)}</h1>",
        f"<p class=soft>{escape(_headline(manifest))}</p>",
        _verdict(result),
        _origin(capsule, origin),
        _what_if(trial),
        _ring(capsule.ring, manifest),
        _steps(result),
        _surroundings(manifest),
    ]
    return (
        "<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>{escape(name)}</title><style>{_STYLE}</style></head><body><main>\n"
        + "\n".join(part for part in parts if part)
        + f"\n<p class=soft>Tracer {escape(__version__)}</p></main></body></html>\n"
    )


def _headline(manifest: Mapping[str, Any]) -> str:
    """Return what happened, in a line."""
    value = "" if manifest.get("value") is None else f" ({number(manifest['value'])})"
    kind = str(manifest.get("kind")).replace("_", " ")
    return (
        f"{kind}{value} at step {manifest.get('step')} of {manifest['model'].get('class')}, {manifest.get('created')}"
    )


def _verdict(result: ReplayResult) -> str:
    """Return what the replay proved."""
    kind = "good" if result.exact else "bad"
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in result.reasons)
    notes = "".join(f"<p>{escape(note)}</p>" for note in result.notes)
    listed = f"<ol>{reasons}</ol>" if reasons else ""
    return (
        f'<h2>Replay</h2><div class="card verdict {kind}">{escape(result.headline)}'
        f"<p>{escape(result.verdict)}</p>{listed}{notes}</div>"
    )


def _origin(capsule: Capsule, origin: Origin | None) -> str:
    """Return where the fault was born, with its source."""
    if origin is None:
        return ""
    facts = [
        ("Operation", f"{origin.op} ({origin.phase}, {origin.kind})"),
        ("Module", origin.module or "the model itself"),
    ]
    if origin.file:
        facts.append(("Line", f"{origin.file}:{origin.line}"))
    if origin.samples:
        facts.append(("Samples", ", ".join(map(str, origin.samples))))
    rows = "".join(f"<tr><th>{escape(key)}</th><td><code>{escape(value)}</code></td></tr>" for key, value in facts)
    lines = capsule.source_around(origin.file, origin.line, _AROUND)
    source = "".join(
        f"<span{' class=here' if here else ''}>{place:>5}  {escape(text) or ' '}</span>" for place, text, here in lines
    )
    shown = f"<pre>{source}</pre>" if source else ""
    chain = "".join(f"<li><code>{escape(link)}</code></li>" for link in origin.chain)
    then = f"<h2>Then</h2><div class=card><ol>{chain}</ol></div>" if chain else ""
    return (
        f"<h2>Origin</h2><div class=card><p>{escape(origin.text)}</p><table>{rows}</table>"
        f"{_inputs(origin)}{shown}</div>{then}"
    )


def _inputs(origin: Origin) -> str:
    """Return what went into the operation."""
    if not origin.inputs:
        return ""
    keys = ("name", "shape", "dtype", "min", "max", "nonfinite")
    head = "".join(f"<th>{label}</th>" for label in ("Input", "Shape", "Type", "Smallest", "Largest", "Not finite"))
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(number(one.get(key, '')))}</td>" for key in keys) + "</tr>"
        for one in origin.inputs
    )
    return f"<table><tr>{head}</tr>{rows}</table>"


def _what_if(trial: WhatIfResult | None) -> str:
    """Return what changes did."""
    if trial is None:
        return ""
    answers = {
        True: "<td class=good>gone</td>",
        False: "<td class=bad>still there</td>",
        None: "<td class=soft>cannot be said</td>",
    }
    rows = "".join(
        f"<tr><td><code>{escape(one.change)}</code></td>{answers[one.vanishes]}"
        f"<td class=n>{'–' if one.moved is None else f'{100 * one.moved:.3g}%'}</td>"  # noqa: RUF001 -- typography
        f"<td class=soft>{escape(one.error or '; '.join(one.notes))}</td></tr>"
        for one in trial.outcomes
    )
    notes = "".join(f"<p class=soft>{escape(note)}</p>" for note in trial.notes)
    return (
        "<h2>What if</h2><div class=card><table><tr><th>Change</th><th>The anomaly is</th>"
        f"<th class=n>Finite gradients move</th><th>Note</th></tr>{rows}</table>{notes}</div>"
    )


def _ring(ring: Sequence[Mapping[str, Any]], manifest: Mapping[str, Any]) -> str:
    """Return the steps before, as small charts."""
    charts = [_chart(title, [(step.get("number"), step.get(key)) for step in ring]) for key, title in _CURVES]
    drawn = "".join(chart for chart in charts if chart)
    return f"<h2>The steps up to {manifest.get('step')}</h2><div class=charts>{drawn}</div>" if drawn else ""


def _chart(title: str, points: Sequence[tuple[Any, Any]]) -> str:
    """Return a small chart; a value that is no number is a red dot at the top."""
    values = [(place, _value(value)) for place, (_, value) in enumerate(points) if value is not None]
    finite = [value for _, value in values if value is not None]
    if not values or not points:
        return ""
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    across = (_WIDTH - 2 * _EDGE) / max(len(points) - 1, 1)
    up = (_HEIGHT - 2 * _EDGE) / ((high - low) or 1.0)
    dots, path = [], ""
    for place, value in values:
        x = _EDGE + place * across
        y = _EDGE if value is None else _HEIGHT - _EDGE - (value - low) * up
        dots.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"{" class=bad" if value is None else ""}/>')
        path += "" if value is None else f"{'L' if path else 'M'}{x:.1f} {y:.1f}"
    last = points[values[-1][0]][1]
    return (
        f"<div class=card><div class=label><span>{escape(title)}</span><span>{escape(number(last))}</span></div>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role=img aria-label="{escape(title)}">'
        f'<path d="{path}"/>{"".join(dots)}</svg>'
        f"<div class=label><span>step {escape(str(points[0][0]))}</span><span>{number(low)} … {number(high)}</span>"
        f"<span>step {escape(str(points[-1][0]))}</span></div></div>"
    )


def _value(value: object) -> float | None:
    """Return a number that can be drawn."""
    try:
        found = read_number(value)
    except ValueError:
        return None
    return found if found is not None and abs(found) < float("inf") else None


def _steps(result: ReplayResult) -> str:
    """Return the steps on the way from the snapshot."""
    if not result.steps:
        return ""
    rows = "".join(
        "<tr>"
        + "".join(f"<td class=n>{number(step[key])}</td>" for key in ("step", "loss", "norm", "recorded"))
        + "</tr>"
        for step in result.steps
    )
    head = "".join(f"<th class=n>{label}</th>" for label in ("Step", "Loss", "Gradient norm", "Recorded"))
    return f"<h2>Steps on the way</h2><div class=card><table><tr>{head}</tr>{rows}</table></div>"


def _surroundings(manifest: Mapping[str, Any]) -> str:
    """Return versions, machine and flags."""
    facts: dict[str, object] = {}
    for part in ("versions", "machine", "flags"):
        facts |= {key: value for key, value in (manifest.get(part) or {}).items() if value not in (None, "", [])}
    commit = (manifest.get("git") or {}).get("commit_hash")
    facts |= {"command": " ".join(map(str, manifest.get("argv") or ())), "commit": commit or "–"}  # noqa: RUF001
    notes = manifest.get("notes") or []
    rows = "".join(
        f"<tr><th>{escape(key.replace('_', ' '))}</th><td><code>{escape(str(plain(value)))}</code></td></tr>"
        for key, value in [*facts.items(), *(("note", note) for note in notes)]
    )
    return f"<h2>Recorded in</h2><div class=card><table>{rows}</table></div>"


__all__ = ["page", "write_report"]
