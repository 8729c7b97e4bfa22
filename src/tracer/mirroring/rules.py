"""Which events go to which back end, and how densely: rules are data, the first that matches a back end decides.

A back end that no rule names gets everything it understands. One that is named only by rules that drop gets the rest.
One that a rule lets something through to gets just what its rules let through. What is known of a layer of a model
(`LAYER`) goes only where a rule names that kind.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Filter = Callable[[str, int, object], bool]

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

from tracer.errors import ConfigError
from tracer.transfer import FACTS, KINDS, LAYER, POINTS

#: Names by which people call kinds as well.
_ALIASES = {"scalar": POINTS, "scalars": POINTS, "metric": POINTS, "metrics": POINTS, "artifact": "file"}
_UNITS_US = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "min": 60_000_000, "h": 3_600_000_000}
_INTERVAL = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|min|h)\s*")
_FIELDS = ("source", "name", "kinds", "to", "rank", "where", "thin", "drop")


@dataclass(frozen=True, slots=True)
class Rule:
    """What of a run a back end gets.

    Args:
        source: A shell pattern for who logged it: `user`, `lightning`, … as `origins` in `run.json` says.
        name: A shell pattern for the name of the metric, artifact or medium; of a line of output its kind or name.
        kinds: Some of `points text log media histogram file span layer`; all but `layer` when None.
        to: A shell pattern for the back end.
        rank: Only what this rank logged.
        where: Gets name, step and value and tells whether it goes; for what is no number the value is the event. A
            function, which works where the lane is a thread, or its place, `module:function`, which works everywhere.
            One that raises lets nothing through, and is counted.
        thin: Of each metric the first, lowest, highest and last value in an interval: so many steps, or `"1s"`.
        drop: What matches does not go.

    Raises:
        ConfigError: A kind or an interval cannot be read.

    Example:
        >>> Rule(name="train/*", to="mlflow", thin="1s").as_dict()
        {'name': 'train/*', 'to': 'mlflow', 'thin': '1s'}
        >>> Rule.of({"to": "wandb", "kinds": ["points"]}).kinds
        frozenset({'points'})
    """

    source: str = "*"
    name: str = "*"
    kinds: Iterable[str] | None = None
    to: str = "*"
    rank: int | None = None
    where: Filter | str | None = None
    thin: int | str | None = None
    drop: bool = False

    def __post_init__(self) -> None:
        if self.kinds is not None:
            named = [self.kinds] if isinstance(self.kinds, str) else self.kinds
            object.__setattr__(self, "kinds", frozenset(_kind(kind) for kind in named))
        interval(self.thin)

    @classmethod
    def of(cls, given: Rule | Mapping[str, object]) -> Rule:
        """Return a rule that is written as a dictionary.

        Raises:
            ConfigError: It has a field that no rule has.
        """
        if isinstance(given, cls):
            return given
        fields = dict(given)  # type: ignore[arg-type]  # what is no rule is a mapping
        for field in fields:
            if field not in _FIELDS:
                message = f"A rule has no field {field!r}. Its fields: {', '.join(_FIELDS)}."
                raise ConfigError(message)
        return cls(**fields)  # type: ignore[arg-type]  # checked above and by itself

    def as_dict(self) -> dict[str, object]:
        """Return the rule as JSON holds it; what is left out has its usual value.

        Raises:
            ConfigError: `where` is a function of this process, which cannot travel.
        """
        if callable(self.where):
            message = (
                f"The rule for {self.to!r} has the function {self.where!r} as `where`, which cannot travel to the "
                "mirror process. Write `where='module:function'`, or use lane='thread'."
            )
            raise ConfigError(message)
        usual = Rule()
        told = {name: getattr(self, name) for name in _FIELDS if getattr(self, name) != getattr(usual, name)}
        if self.kinds is not None:
            told["kinds"] = sorted(self.kinds)
        return told

    def matches(self, kind: str, source: str, name: str, rank: int) -> bool:
        """Tell whether the rule is about such an event; `to` and `where` are asked elsewhere."""
        if self.kinds is None:
            if kind == LAYER:
                return False
        elif kind not in self.kinds:
            return False
        if self.rank is not None and rank != self.rank:
            return False
        return fnmatchcase(name, self.name) and fnmatchcase(source, self.source)


def interval(thin: int | str | None) -> tuple[bool, int] | None:
    """Return whether an interval is one of time, and its length in µs or steps.

    Raises:
        ConfigError: It cannot be read.

    Example:
        >>> interval("1s"), interval(100)
        ((True, 1000000), (False, 100))
    """
    if thin is None:
        return None
    if isinstance(thin, str) and (match := _INTERVAL.fullmatch(thin)):
        length = round(float(match[1]) * _UNITS_US[match[2]])
        if length > 0:
            return True, length
    if isinstance(thin, int) and not isinstance(thin, bool) and thin > 0:
        return False, thin
    message = f"thin={thin!r} is no interval. Write a number of steps, as 100, or a time, as '1s', '500ms' or '2min'."
    raise ConfigError(message)


def _kind(name: str) -> str:
    """Return a kind by one of its names."""
    found = _ALIASES.get(name, name)
    if found not in KINDS or found == FACTS:
        known = ", ".join(kind for kind in KINDS if kind != FACTS)
        message = f"{name!r} is no kind of event. Known: {known}."
        raise ConfigError(message)
    return found


__all__ = ["Rule", "interval"]
