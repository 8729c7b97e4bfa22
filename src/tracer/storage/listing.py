"""Lists of runs: filters and order in SQL; what lives or just changed is laid over the catalog's rows."""

from __future__ import annotations

import json
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tracer.storage.index import Columns, flatten, tags_of
from tracer.storage.values import RunRow

if TYPE_CHECKING:
    from tracer.storage.catalog import Catalog

Condition = tuple[str, str, object]
#: Returns the last value of a metric of a run, live tail included.
LastValue = Callable[[str, str], object]

_TEXTS = ("uid", "name", "project", "status", "reason", "group", "job_type", "notes", "host", "user", "folder")
_NUMBERS = [
    "started", "ended", "heartbeat", "steps", "checkpoints", "points", "world_size", "attempt", "bytes", "lost",
    "expires", "trashed", "duration_s",
]  # fmt: skip
FIELDS = frozenset((*_TEXTS, *_NUMBERS, "tags"))

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq, "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt,
    ">=": operator.ge, "~": lambda value, part: str(part).lower() in str(value).lower(),
}  # fmt: skip

_SELECT = """
SELECT r.id, r.uid, r.folder, p.name AS project, r.name, r.status, r.reason, r.started, r.ended, r.heartbeat, r.steps,
  r.checkpoints, r.points, r."group", r.job_type, r.notes, r.attempt, r.config, r.environment, r.host, r."user",
  r.world_size, r.bytes, r.cost, r.lost, r.expires, r.trashed, r.facts,
  (SELECT json_group_array(tag) FROM tag WHERE tag.run = r.id) AS tags
FROM run r JOIN project p ON p.id = r.project
"""
_KEYS = [
    "id", "uid", "folder", "project", "name", "status", "reason", "started", "ended", "heartbeat", "steps",
    "checkpoints", "points", "group", "job_type", "notes", "attempt", "config", "environment", "host", "user",
    "world_size", "bytes", "cost", "lost", "expires", "trashed", "facts", "tags",
]  # fmt: skip


def runs_where(catalog: Catalog, clause: str, parameters: Sequence[object] = ()) -> list[Columns]:
    """Return the columns of the runs that a clause of SQL chooses."""
    return [dict(zip(_KEYS, row, strict=True)) for row in catalog.rows(_SELECT + clause, parameters)]


def select(
    catalog: Catalog,
    overlay: Mapping[str, Columns],
    conditions: Iterable[Condition],
    *,
    sort: str,
    limit: int | None,
    last_value: LastValue,
) -> list[Columns]:
    """Return the runs that meet all conditions, in order.

    Args:
        catalog: The catalog.
        overlay: Columns that are newer than the catalog's, by run id; complete rows.
        conditions: `(column, operator, value)`; a column is a field of `RunRow`, `config.<key>` or `metric.<name>`.
        sort: A field, `metric:<name>` or `config:<key>`; with `-` before it the largest comes first.
        limit: At most so many; None for all.
        last_value: Reads a metric of a run that is laid over.

    Raises:
        ValueError: A column or an operator is not known.
    """
    conditions = list(conditions)
    clauses, parameters = ["r.trashed IS NULL"], list[object]()
    for column, sign, value in conditions:
        clause, given = _clause(column, sign, value)
        clauses.append(clause)
        parameters += given
    if overlay:
        clauses.append("r.uid NOT IN (SELECT value FROM json_each(?))")
        parameters.append(json.dumps(list(overlay)))
    order, given = _order(sort)
    tail = f"WHERE {' AND '.join(clauses)} ORDER BY {order}"
    parameters += given
    if limit is not None:
        tail += " LIMIT ?"
        parameters.append(limit)
    rows = runs_where(catalog, tail, parameters)
    fresh = [row for row in overlay.values() if all(_meets(row, *one, last_value) for one in conditions)]
    if not fresh:
        return rows
    rows = _sorted([*rows, *fresh], sort, last_value)
    return rows if limit is None else rows[:limit]


def run_row(columns: Mapping[str, Any]) -> RunRow:
    """Return the value that stands for a run."""
    facts = _json(columns["facts"])
    counters = facts.get("counters")
    tags = columns["tags"]
    return RunRow(
        uid=columns["uid"],
        folder=columns["folder"],
        project=columns["project"],
        name=columns["name"],
        status=columns["status"],
        reason=columns["reason"],
        started=columns["started"],
        ended=columns["ended"],
        heartbeat=columns["heartbeat"],
        steps=columns["steps"],
        checkpoints=columns["checkpoints"],
        points=columns["points"],
        group=columns["group"],
        job_type=columns["job_type"],
        notes=columns["notes"],
        tags=tuple(json.loads(tags) if isinstance(tags, str) else tags),
        config=_json(columns["config"]),
        settings=_object(facts.get("settings")),
        environment=_json(columns["environment"]),
        git=_object(facts.get("git")),
        host=columns["host"],
        user=columns["user"],
        world_size=columns["world_size"] or 1,
        attempt=columns["attempt"],
        bytes=columns["bytes"],
        cost=_json(columns["cost"]),
        counters=counters if isinstance(counters, dict) else {},
        lost=columns["lost"],
        expires=columns["expires"],
        trashed=columns["trashed"],
        exit_code=facts["exit_code"] if isinstance(facts.get("exit_code"), int) else None,
        goals=_object(facts.get("goals")),
        units=_object(facts.get("units")),
        summary=_object(facts.get("summary")),
        labels=_object(facts.get("labels")),
        origins=_object(facts.get("origins")),
    )


def fresh_columns(columns: Columns, facts: Mapping[str, Any]) -> Columns:
    """Complete the columns that come from `run.json` to those of a listed run that the catalog does not know."""
    counted = {"id": None, "heartbeat": None, "points": 0, "bytes": 0, "lost": 0, "trashed": None}
    return {**counted, **columns, "tags": json.dumps(sorted(tags_of(facts)))}


def _clause(column: str, sign: str, value: object) -> tuple[str, list[object]]:
    """Return a condition as SQL."""
    compare, cast = _sql_operator(sign, value)
    kind, _, key = column.partition(".")
    if kind == "config" and key:
        field = "num" if cast is float else "text"
        return (
            f"EXISTS (SELECT 1 FROM param WHERE param.run = r.id AND param.key = ? AND param.{field} {compare})",  # noqa: S608
            [key, _given(sign, value)],
        )
    if kind == "metric" and key:
        series = "SELECT 1 FROM series s JOIN metric m ON m.id = s.metric WHERE s.run = r.id AND s.rank = 0"
        return f"EXISTS ({series} AND m.name = ? AND s.last {compare})", [key, value]
    if column == "tags":
        has = "NOT EXISTS" if sign == "!=" else "EXISTS"
        return f"{has} (SELECT 1 FROM tag WHERE tag.run = r.id AND tag.tag = ?)", [str(value)]  # noqa: S608
    return f"{_field(column)} {compare}", [_given(sign, value)]


def _field(column: str) -> str:
    """Return a field of a run as SQL; only names from the list get this far."""
    if column not in FIELDS:
        message = (
            f"{column!r} is no column of a run. Known: {', '.join(sorted(FIELDS))}, `config.<key>` and `metric.<name>`."
        )
        raise ValueError(message)
    if column == "duration_s":
        return "(coalesce(r.ended, r.heartbeat, r.started) - r.started) / 1e6"
    return "p.name" if column == "project" else f'r."{column}"'


def _sql_operator(sign: str, value: object) -> tuple[str, type]:
    """Return an operator as SQL, and what the column is compared as."""
    if sign not in _OPERATORS:
        message = f"{sign!r} is no comparison. Known: {' '.join(_OPERATORS)}."
        raise ValueError(message)
    if sign == "~":
        return "LIKE '%' || ? || '%' ESCAPE '\\'", str
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f"{'=' if sign == '==' else sign} ?", float if number else str


def _given(sign: str, value: object) -> object:
    """Return a value as a parameter of SQL."""
    if sign == "~":
        return str(value).replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    if isinstance(value, bool):
        return str(value).lower()
    return value


def _order(sort: str) -> tuple[str, list[object]]:
    """Return an order as SQL; runs without a value come last, equal ones newest first."""
    descending, key = sort.startswith("-"), sort.removeprefix("-")
    kind, _, name = key.partition(":")
    given: list[object] = []
    if kind == "metric" and name:
        term = (
            "(SELECT s.last FROM series s JOIN metric m ON m.id = s.metric "
            "WHERE s.run = r.id AND s.rank = 0 AND m.name = ?)"
        )
        given.append(name)
    elif kind == "config" and name:
        term = "(SELECT coalesce(num, text) FROM param WHERE param.run = r.id AND param.key = ?)"
        given.append(name)
    else:
        term = _field(key)
    direction = "DESC" if descending else "ASC"
    nulls = "" if key in ("started", "uid") else " NULLS LAST"
    return f"{term} {direction}{nulls}, r.started DESC, r.id DESC", given


def _sorted(rows: list[Columns], sort: str, last_value: LastValue) -> list[Columns]:
    """Sort rows as `_order` does; the order before is kept among equals."""
    descending, key = sort.startswith("-"), sort.removeprefix("-")
    kind, _, name = key.partition(":")

    def value(row: Columns) -> Any:  # noqa: ANN401 -- whatever the column holds
        if kind == "metric" and name:
            return last_value(row["uid"], name)
        found = _value(row, f"config.{name}" if kind == "config" and name else key, last_value)
        return (found[1] if found[0] is None else found[0]) if isinstance(found, tuple) else found

    rows = sorted(rows, key=lambda row: (row["started"], row["id"] or 2**62), reverse=True)
    there = [(found, row) for row in rows if (found := value(row)) is not None and found == found]  # noqa: PLR0124 -- NaN
    missing = [row for row in rows if (found := value(row)) is None or found != found]  # noqa: PLR0124 -- NaN
    there.sort(key=lambda pair: (isinstance(pair[0], str), pair[0]), reverse=descending)
    return [row for _, row in there] + missing


def _meets(row: Columns, column: str, sign: str, value: object, last_value: LastValue) -> bool:
    """Tell whether a row that is laid over meets a condition."""
    if column == "tags":
        return (str(value) in json.loads(row["tags"])) is (sign != "!=")
    found = _value(row, column, last_value)
    if column.startswith("config.") and isinstance(value, bool):
        value = str(value).lower()
    if column.startswith("config.") and isinstance(found, tuple):
        number = isinstance(value, (int, float)) and sign != "~"
        found = found[0] if number else found[1]
    if found is None:
        return False
    try:
        return bool(_OPERATORS[sign](found, value))
    except TypeError:
        return False


def _value(row: Columns, column: str, last_value: LastValue) -> Any:  # noqa: ANN401 -- whatever the column holds
    """Return what a row that is laid over holds in a column."""
    kind, _, key = column.partition(".")
    if kind == "metric" and key:
        return last_value(row["uid"], key)
    if kind == "config" and key:
        return next(((number, text) for name, number, text in flatten(_json(row["config"])) if name == key), None)
    if column == "duration_s":
        return ((row["ended"] or row["heartbeat"] or row["started"]) - row["started"]) / 1e6
    return row[column]


def _json(text: str | None) -> dict[str, Any]:
    """Return an object from the catalog."""
    found = json.loads(text) if text else {}
    return found if isinstance(found, dict) else {}


def _object(value: object) -> dict[str, Any]:
    """Return a JSON object, empty where something else stands."""
    return value if isinstance(value, dict) else {}


__all__ = ["FIELDS", "Condition", "fresh_columns", "run_row", "runs_where", "select"]
