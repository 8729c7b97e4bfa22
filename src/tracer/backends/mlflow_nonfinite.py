"""Which steps held a value that MLflow does not keep as it is; a tag tells, so that an import restores it.

±Inf is stored as the largest number, and SQLite makes 0.0 of -0.0.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from tracer.transfer import Points

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tracer.transfer import Floats, Integers

_LARGEST = sys.float_info.max
_LONGEST = 7000
#: Stands for the steps where they are too many for a tag.
_ALL = "all"


class Steps:
    """One such tag: metric → its steps, as JSON.

    Example:
        >>> Steps('{"loss": [3]}').text()
        '{"loss": [3]}'
    """

    def __init__(self, tag: str = "") -> None:
        self._steps: dict[str, list[int] | str] = {}
        try:
            held = json.loads(tag) if tag else {}
        except (ValueError, RecursionError):
            held = {}
        for name, steps in held.items() if isinstance(held, dict) else ():
            if steps == _ALL or (isinstance(steps, list) and all(_is_step(step) for step in steps)):
                self._steps[str(name)] = steps
        self._told = self.text()

    def see(self, name: str, steps: Integers) -> None:
        """Note steps of a metric."""
        known = self._steps.get(name, [])
        if len(steps) and isinstance(known, list):
            self._steps[name] = sorted({*known, *steps.tolist()})

    def changed(self) -> bool:
        """Tell, once, whether there is more to say than before."""
        before, self._told = self._told, self.text()
        return self._told != before

    def text(self) -> str:
        """Return the tag; empty where nothing was noted."""
        while True:
            text = json.dumps(self._steps) if self._steps else ""
            lists = {name: len(steps) for name, steps in self._steps.items() if isinstance(steps, list)}
            if len(text) <= _LONGEST:
                return text
            if lists:
                self._steps[max(lists, key=lambda name: lists[name])] = _ALL
            else:
                self._steps = {"*": _ALL}

    def among(self, name: str, steps: Integers, *, many: bool) -> npt.NDArray[np.bool_]:
        """Tell which steps of a metric were noted; `many` is the answer where there were too many to list."""
        import numpy as np

        noted = self._steps.get(name, self._steps.get("*", []))
        if isinstance(noted, list):
            return np.isin(steps, np.array(noted, np.int64))
        return np.full(len(steps), many)


class Special:
    """The infinite values and negative zeros of a run."""

    TAGS = ("tracer.nonfinite", "tracer.negative_zeros")

    def __init__(self, infinite: str = "", zeros: str = "") -> None:
        self._infinite, self._zeros = Steps(infinite), Steps(zeros)

    def see(self, name: str, points: Points) -> None:
        """Note what MLflow will not keep as it is."""
        import numpy as np

        self._infinite.see(name, points.steps[np.isinf(points.values)])
        self._zeros.see(name, points.steps[(points.values == 0) & np.signbit(points.values)])

    def changed(self) -> dict[str, str]:
        """Return the tags that have more to say than before."""
        held = zip(self.TAGS, (self._infinite, self._zeros), strict=True)
        return {tag: steps.text() for tag, steps in held if steps.changed()}

    def restored(self, name: str, steps: Integers, values: Floats) -> Floats:
        """Return values as they were."""
        import numpy as np

        large = (np.abs(values) == _LARGEST) & self._infinite.among(name, steps, many=True)
        zero = (values == 0) & self._zeros.among(name, steps, many=False)
        return np.where(zero, -0.0, np.where(large, np.copysign(np.inf, values), values))


def _is_step(value: object) -> bool:
    """Tell whether a value of a stranger's tag is a step."""
    return type(value) is int and abs(value) < 2**63
