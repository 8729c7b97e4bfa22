"""`LiveDetection`: the rules applied to a run while it trains, about once a second, and a glance at every step's loss.

Two threads meet here. The training thread glances at what it logged itself, a few microseconds at the end of a step,
and not at every one when steps are shorter than a few milliseconds. The upkeep thread reads what all writers
committed, keeps windows of it, and asks the rules of `rules.py`. Neither waits for the other. NumPy and the rules are
loaded at the first look that has something to judge.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Protocol

    from tracer.analysis.rows import RowLosses
    from tracer.analysis.series import Series, SeriesSet
    from tracer.analysis.windows import Window
    from tracer.record.recorder import Recorder

    class Reacting(Protocol):
        """What is done about a finding; `reactions.Reactions` is one."""

        def later(self, finding: Finding) -> None:
            """Act on a finding that was made beside the training."""
            ...


import os
import sys
import threading
from collections import deque

from tracer import clock
from tracer.analysis import subjects
from tracer.analysis.episodes import Episodes, end_of
from tracer.events import Finding
from tracer.record.tap import Glance, Tap

NAN_OR_INF, LOSS_SPIKE = "nan_or_inf", "loss_spike"

#: A glance every so many seconds costs a thousandth of the time.
_GLANCE_S = 0.004
_MAX_STRIDE = 256
#: What rules may take in one look on the upkeep thread, and what share of the time one series may take.
_LOOK_S, _SHARE = 0.004, 0.001
#: … while its values leave the range that they had.
_SURPRISED_SHARE = 0.01
#: At the end of a run everything is judged once more; `finish` must stay short.
_LAST_LOOK_S = 0.25
#: A program that does without NumPy gets it after so many seconds; the glance needs none.
_PATIENCE_S = 5.0
#: A loss that is bad again after so many steps is a new trouble.
_APART = 64
#: What a validation loss is judged by only when the run is over: it has few values.
_COURSE = frozenset({"loss_divergence", "loss_plateau"})
#: Recent findings, of which earlier ones may be the cause of later ones.
_AMONG = 64
#: Two threads store findings; more than one of each is never underway.
_OWN = 8
#: Batches whose rows wait for the next look; more are counted and let go.
_MAX_BATCHES = 1024


class LiveDetection:
    """Find what goes wrong in a run while it trains.

    Args:
        recorder: Whose writers are read.
        record: Stores a finding; one with the same kind, step and subject replaces the one before.
        reactions: Acts on findings, see `reactions.Reactions`; may be None.

    Example:
        >>> found = []
        >>> with tracer.init(project="docs", quiet=True) as run:
        ...     live = LiveDetection(run.recorder, found.append)
        ...     tracer.log({"loss": float("nan")}, step=3)
        ...     live.at_step(4) > 4
        True
        >>> found[0].kind, found[0].step
        ('nan_or_inf', 3)
    """

    def __init__(
        self, recorder: Recorder, record: Callable[[Finding], None], *, reactions: Reacting | None = None
    ) -> None:
        self._recorder, self._record, self._reactions = recorder, record, reactions
        self._pid = os.getpid()
        self._tap, self._glance = Tap(recorder), Glance(is_watched)
        self._stride, self._glanced_at, self._glanced_step = 1, clock.monotonic(), 0
        self._born = clock.monotonic()
        self._bad: dict[str, int] = {}
        self._episodes = Episodes()
        self._found: deque[Finding] = deque()
        self._among: deque[Finding] = deque(maxlen=_AMONG)
        self._own: deque[Finding] = deque(maxlen=_OWN)
        self._unnamed: deque[Finding] = deque(maxlen=_AMONG)
        self._batches: deque[Any] = deque(maxlen=_MAX_BATCHES)
        self._rows: RowLosses | None = None
        self._series: SeriesSet | None = None
        self._looking = threading.Lock()
        self._rows_stored = 0
        #: The rows of the present batch, as `capture.rows.Rows`; None while nobody tells.
        self.present: Any = None
        self.cost_s = self.look_s = 0.0
        self.looks = self.batches_skipped = 0

    # On the training thread.

    def at_step(self, step: int) -> int:
        """Look at what this thread logged in the steps that ended; return the step at which to look again.

        Args:
            step: How many steps have ended.
        """
        if self._recorder.pid != self._pid:  # a forked child records, and leaves the judging to its parent
            return step + _MAX_STRIDE
        began = clock.monotonic()
        with self._recorder.guard("looking at the loss"):
            for name, at, value in self._glance.look(self._recorder.writer()):
                self._not_finite(name, at, value)
        self._stride = self._paced(began, step)
        self.cost_s += clock.monotonic() - began
        return step + self._stride

    def take(self, event: Any) -> None:  # noqa: ANN401 -- whatever the sink is given
        """Take a finding that somebody else made and stored, or the rows of a batch; from any thread."""
        if isinstance(event, Finding):
            if not any(event is one for one in tuple(self._own)):  # what is stored by way of the sink comes back here
                self._episodes.hear(event)
                self._among.append(event)
                self._unnamed.append(event)
        elif hasattr(event, "arrived"):  # `capture.rows.Rows`, from a room beside `record`
            if event.step is None:
                event.step = self._recorder.steps.step
            self.batches_skipped += len(self._batches) == _MAX_BATCHES
            self._batches.append(event)
            self.present = event

    def _not_finite(self, name: str, step: int, value: float) -> None:
        """Report a loss that is not a number, once per episode."""
        before, self._bad[name] = self._bad.get(name), step
        if before is not None and 0 <= step - before <= _APART:
            return
        is_nan = value != value  # noqa: PLR0124 -- NaN is the one value that differs from itself
        details = {
            "metric": name, "layer": None, "num_nans": int(is_nan), "num_infs": int(not is_nan),
            "explanation": f"{name} is {'NaN' if is_nan else 'infinite'} at step {step:,}.",
        }  # fmt: skip
        finding = Finding(NAN_OR_INF, "critical", step, details, step)
        if self._episodes.heard(finding) or self._episodes.meets(finding, _APART):
            return
        self._found.append(finding)  # before it is stored: the look must not find it as well
        self._report(finding)

    def _paced(self, now: float, step: int) -> int:
        """Return how many steps lie until the next glance: as many as fit into a few milliseconds."""
        passed, steps = now - self._glanced_at, step - self._glanced_step
        self._glanced_at, self._glanced_step = now, step
        if steps <= 0:
            return 1
        fitting = int(_GLANCE_S * steps / passed) if passed > 0 else _MAX_STRIDE
        return max(min(fitting, 2 * self._stride, _MAX_STRIDE), 1)

    # On the upkeep thread.

    def look(self) -> None:
        """Read what was committed since the last look and judge it; about once a second, and never for long."""
        self._look(_LOOK_S)

    def close(self) -> None:
        """Judge the end of the run, and store what became of the findings; before the recorder is closed."""
        if self._recorder.pid != self._pid:
            return
        self._look(_LAST_LOOK_S, last=True)

    def _look(self, budget_s: float, *, last: bool = False) -> None:
        """Look once; whoever comes while another thread looks goes away, but for the end."""
        if not self._looking.acquire(timeout=2 * _LAST_LOOK_S if last else 0):
            return
        try:
            began = clock.thread_time()
            with self._recorder.guard("detecting anomalies"):
                self._judge_all(began + budget_s, last=last)
            self.look_s += clock.thread_time() - began
            self.looks += 1
        finally:
            self._looking.release()

    def _judge_all(self, until: float, *, last: bool) -> None:
        """Read, and judge what there is time for; at the end store what became of all findings."""
        while self._found:
            found = self._found.popleft()
            self._episodes.open(found, ("metric", found.details["metric"])).finding()
            self._unnamed.append(found)
        is_worth_it = self._is_worth_loading(last=last)
        if is_worth_it:
            self._judge_series(until, last=last)
        elif last:  # of a short program only the glance's findings are known
            self._episodes.prolong(self._bad)
        if last:
            for finding in self._episodes.close_before(2**63):
                self._store(self._enriched(finding) if is_worth_it else finding)

    def _is_worth_loading(self, *, last: bool) -> bool:
        """Tell whether the rules may be loaded: NumPy takes a tenth of a second, and a short program has none left."""
        if self._series is not None or "numpy" in sys.modules:
            return True
        return not last and clock.monotonic() - self._born >= _PATIENCE_S

    def _judge_series(self, until: float, *, last: bool) -> None:
        """Read, and judge as many series as there is time for; the others are first next time."""
        seen = self._tap.look()
        if seen.skipped_bytes:
            self._recorder.guard.say(
                "live detection",
                "more is logged than live detection reads: some values of this second were recorded but not judged. "
                "`tracer anomalies --auto` judges all of them.",
            )
        self._take_batches()
        self._name_rows()
        if self._series is None:
            if not (seen.rows or seen.layers):
                return
            from tracer.analysis import causes, groups, rules  # noqa: F401 -- all at once: no judging is charged with it
            from tracer.analysis.series import SeriesSet

            self._series = SeriesSet(subjects_of)
        self._series.add(seen.rows, seen.layers)
        now = clock.monotonic()
        for series in self._due(now, last=last):
            series.is_fresh, series.judged_at = False, now  # also when it fails: the others are judged all the same
            with self._recorder.guard(f"judging {series.name}"):
                self._judge(series)
            if clock.thread_time() >= until:
                break
        for finding in self._episodes.updates():
            self._store(self._enriched(finding))

    def _due(self, now: float, *, last: bool) -> list[Series]:
        """Return the series that are to be judged now, those first whose values surprise."""
        known = [] if self._series is None else [one for one in self._series.series.values() if one.is_fresh]
        due: list[tuple[bool, float, int, Series]] = []
        for series in known:
            waited = now - series.judged_at
            surprising = waited * _SURPRISED_SHARE >= series.cost_s and series.is_surprising()
            if series.subject != "learning_rate" and (surprising or last or waited * _SHARE >= series.cost_s):
                due.append((not surprising, series.judged_at, len(due), series))
        return [series for *_, series in sorted(due, key=lambda one: one[:3])]

    def _judge(self, series: Series) -> None:
        """Ask the rules about one series, and store what is new."""
        began = clock.thread_time()
        last, gap = int(series.ring.steps[-1]), series.gap()
        for window, source in self._windows_of(series):
            found = self._found_in(window, series)
            for episode in self._episodes.see(found, gap, source, int(window.steps[0])):
                self._report(self._enriched(episode.finding(), series))
            for finding in self._episodes.close_before(last - 2 * gap, source):
                self._store(self._enriched(finding, series))
        series.settle()
        took = clock.thread_time() - began
        series.cost_s = min(took, 2 * series.cost_s or took)  # once it was slow by chance

    def _found_in(self, window: Window, series: Series) -> list[Finding]:
        """Return what the rules say that is new enough."""
        from tracer.analysis import groups, rules

        horizon = series.horizon()
        found = [one for one in rules.findings_in(window, live=True) if end_of(one) >= horizon]
        if series.layers:
            return groups.episodes(found, series.gap() / 10)
        if subjects.is_validation(series.name):
            found = [one for one in found if one.kind not in _COURSE]
            if series.subject == "metric" and _is_placeholder(series):
                found = [one for one in found if one.severity == "low"]
        return found

    def _windows_of(self, series: Series) -> list[tuple[Window, object]]:
        """Return the windows of a series, with what their episodes are called after."""
        partners = self._partners(series.subject)
        found: list[tuple[Window, object]] = [(series.window(partners), (series.subject, series.name))]
        if series.subject == "times" and len(series.ring) > 1 and self._of("step_time") is None:
            found.append((series.paces(), ("step_time", series.name)))
        return found

    def _partners(self, subject: str) -> dict[str, Window]:
        """Return the windows that a subject is compared with."""
        wanted = {"weights": "gradients", "updates": "gradients", "data_time": "step_time"}.get(subject)
        other = None if wanted is None else self._of(wanted)
        return {} if wanted is None or other is None else {wanted: other.window()}

    def _of(self, subject: str) -> Series | None:
        """Return the first series of a subject."""
        known = {} if self._series is None else self._series.series
        return next((one for one in known.values() if one.subject == subject), None)

    def _enriched(self, finding: Finding, series: Series | None = None) -> Finding:
        """Return a finding with its rows, its explanation, its causes and its remedy."""
        from tracer.analysis.causes import explained

        finding = self._with_rows(finding, series)
        around = [self._of(subject) for subject in ("gradients", "updates", "learning_rate")]
        details = {key: value for key, value in finding.details.items() if key != "explanation"}
        plain = Finding(finding.kind, finding.severity, finding.step, details, finding.last_step)
        windows = [one.window() for one in around if one is not None and len(one.ring)]
        return explained([plain], windows, among=tuple(self._among))[0]

    def _store(self, finding: Finding) -> None:
        """Store a finding, for the first time or again."""
        self._own.append(finding)
        self._record(finding)

    def _report(self, finding: Finding) -> None:
        """Store a finding and have it acted upon."""
        self._among.append(finding)
        self._store(finding)
        if self._reactions is not None:
            self._reactions.later(finding)
            self._recorder.steps.due = 0  # the end of the present step acts

    # Rows of the data set.

    def _take_batches(self) -> None:
        """Take the rows of the batches that came since the last look, and report rows that stand out."""
        if not self._batches:
            return
        if self._rows is None:
            from tracer.analysis.rows import RowLosses

            self._rows = RowLosses()
        batches = [self._batches.popleft() for _ in range(len(self._batches))]
        self._rows.add([batch.arrived() for batch in batches])
        finding = self._rows.finding()
        if finding is None:
            return
        # One episode for the whole run: its list of rows grows.
        fresh, count = self._episodes.see([finding], gap=2**62), int(str(finding.details["count"]))
        for episode in fresh:
            self._report(self._enriched(episode.finding()))
        if not fresh and count >= 2 * self._rows_stored:
            self._store(self._enriched(finding))
        if fresh or count >= 2 * self._rows_stored:
            self._rows_stored = count

    def _name_rows(self) -> None:
        """Store what was found beside the looks once more, with the rows it came from."""
        while self._unnamed:
            finding = self._unnamed.popleft()
            named = self._with_rows(finding)
            if named is not finding:
                self._store(named)

    def _with_rows(self, finding: Finding, series: Series | None = None) -> Finding:
        """Name the rows that a spike of the loss, or a loss that is no number, came from, where batches are known."""
        if self._rows is None or finding.kind not in (LOSS_SPIKE, NAN_OR_INF) or "rows" in finding.details:
            return finding
        time = None
        if series is not None:
            place = int(series.ring.steps.searchsorted(finding.step))
            time = float(series.ring.times[min(place, len(series.ring) - 1)])
        rows = self._rows.of_spike(finding.step, time, measured=finding.kind != LOSS_SPIKE)
        if not rows:
            return finding
        self._episodes.note(finding, rows)
        return Finding(finding.kind, finding.severity, finding.step, {**finding.details, **rows}, finding.last_step)


def is_watched(metric: str) -> bool:
    """Tell whether a metric that is not finite is trouble at once: a loss of the training.

    Example:
        >>> is_watched("train/loss"), is_watched("val/loss"), is_watched("accuracy")
        (True, False, False)
    """
    return subjects.is_loss(metric) and not subjects.is_validation(metric)


def subjects_of(metric: str) -> tuple[str, ...]:
    """Return the subjects of rules that a metric is judged as.

    Example:
        >>> subjects_of("train/loss"), subjects_of("grad_norm"), subjects_of("lr")
        (('loss', 'metric'), ('gradient_norm',), ('learning_rate',))
    """
    if subjects.is_loss(metric):
        return ("loss", "metric")
    tests = {
        "gradient_norm": subjects.is_gradient_norm, "learning_rate": subjects.is_learning_rate,
        "step_time": subjects.is_step_time, "data_time": subjects.is_data_time, "memory": subjects.is_memory_share,
    }  # fmt: skip
    return next(((name,) for name, is_one in tests.items() if is_one(metric)), ())


def _is_placeholder(series: Series) -> bool:
    """Tell whether NaN seems to mean "not measured here": most values of a metric that is no training loss."""
    values = series.ring.values[:, 0]
    return not is_watched(series.name) and bool((values != values).mean() >= 0.5)  # noqa: PLR0124, PLR2004 -- NaN; most


__all__ = ["LiveDetection", "is_watched", "subjects_of"]
