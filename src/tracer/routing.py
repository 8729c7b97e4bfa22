"""A router in this process: metrics go from sources to sinks by rules, in order, and are counted truthfully.

Each sink is served by one thread, so the metrics of a series reach it in the order in which they were emitted, and a
slow sink holds up only those that share its thread. `emit_metric` never waits: what a full queue cannot take is counted
as dropped. The names are those of the Tracelet documents.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Self

import threading
from collections import deque
from contextlib import contextmanager
from enum import Enum

from tracer import clock, sink


class MetricType(Enum):
    """What a metric is."""

    SCALAR = "scalar"
    TENSOR = "tensor"
    ARTIFACT = "artifact"
    PARAMETER = "parameter"
    SYSTEM = "system"
    CUSTOM = "custom"
    HISTOGRAM = "histogram"
    IMAGE = "image"
    TEXT = "text"
    FIGURE = "figure"
    EMBEDDING = "embedding"
    VIDEO = "video"
    AUDIO = "audio"
    MESH = "mesh"
    HPARAMS = "hparams"


class MetricData:
    """One value on its way.

    Args:
        name: Name of the metric.
        value: A number, or what its type says.
        type: What it is.
        iteration: The step; 0 is a step, None is none.
        timestamp: Seconds since 1970; now when absent.
        source: Who says it.
        metadata: What else is known.
    """

    __slots__ = ("iteration", "metadata", "name", "source", "timestamp", "type", "value")

    def __init__(
        self,
        name: str,
        value: object,
        type: MetricType = MetricType.SCALAR,  # noqa: A002 -- the documents' name
        iteration: int | None = None,
        timestamp: float | None = None,
        source: str | None = None,
        metadata: Mapping[str, object] | None = None,
    ) -> None:
        self.name, self.value, self.type, self.iteration = name, value, type, iteration
        self.timestamp = clock.now() if timestamp is None else timestamp
        self.source, self.metadata = source, dict(metadata or {})

    def __repr__(self) -> str:
        """Show what it says."""
        return f"MetricData({self.name!r}, {self.value!r}, {self.type}, iteration={self.iteration!r})"


class MetricSource:
    """What metrics come from; a program's own classes derive from it or look like it."""

    def get_source_id(self) -> str:
        """Return the name that rules match."""
        raise NotImplementedError

    def emit_metric(self, metric: MetricData) -> None:
        """Send a metric on its way."""
        raise NotImplementedError


class MetricSink:
    """Where metrics go; a program's own classes derive from it or look like it."""

    def get_sink_id(self) -> str:
        """Return the name that rules name."""
        raise NotImplementedError

    def receive_metric(self, metric: MetricData) -> None:
        """Take a metric."""
        raise NotImplementedError

    def can_handle_type(self, metric_type: MetricType) -> bool:  # noqa: ARG002 -- a sink takes all unless it says so
        """Tell whether metrics of a type are taken."""
        return True


class RoutingRule:
    """Which metrics go to which sink.

    Args:
        source_pattern: A shell pattern; matches the source, or the name of the metric.
        sink_id: The sink.
        metric_types: Only these types; all when None.
        filter_func: Gets the metric and tells whether it goes.

    Example:
        >>> rule = RoutingRule("train/*", "console")
        >>> rule.matches(MetricData("train/loss", 0.5)), rule.matches(MetricData("eval/loss", 0.5))
        (True, False)
    """

    def __init__(
        self,
        source_pattern: str,
        sink_id: str,
        metric_types: Iterable[MetricType] | None = None,
        filter_func: Callable[[MetricData], bool] | None = None,
    ) -> None:
        self.source_pattern, self.sink_id, self.filter_func = source_pattern, sink_id, filter_func
        self.metric_types = None if metric_types is None else set(metric_types)

    def matches(self, metric: MetricData) -> bool:
        """Tell whether a metric goes this way."""
        if self.metric_types is not None and metric.type not in self.metric_types:
            return False
        from fnmatch import fnmatchcase  # here: it brings `re`, which costs 8 ms of an import

        named = (metric.source or "", metric.name)
        if not any(fnmatchcase(name, self.source_pattern) for name in named):
            return False
        return self.filter_func is None or bool(self.filter_func(metric))


class Attempt:
    """Calls other people's code: an exception of theirs is kept here and not passed on.

    Example:
        >>> with Attempt() as attempt:
        ...     1 / 0
        >>> attempt.error
        ZeroDivisionError('division by zero')
    """

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        """Keep what was raised; what ends the program goes on."""
        if isinstance(error, Exception):
            self.error = error
            return True
        return False

    @property
    def said(self) -> str:
        """What went wrong, in a line."""
        return f"{type(self.error).__name__}: {self.error}" if self.error is not None else ""


class _Journey:
    """A metric that is underway to some sinks."""

    __slots__ = ("is_lost", "left", "metric")

    def __init__(self, metric: MetricData, left: int) -> None:
        self.metric, self.left, self.is_lost = metric, left, False


class _Lane:
    """One thread, the sinks it serves, and what waits for each of them."""

    def __init__(self, number: int, done: Callable[[_Journey, MetricSink, str], None]) -> None:
        self._done = done
        self._changed = threading.Condition()
        self._waiting: deque[tuple[_Journey, MetricSink]] = deque()
        self._current: _Journey | None = None
        self._is_stopping = False
        self.thread = threading.Thread(target=self._serve, name=f"tracer-router-{number}", daemon=True)

    def put(self, journey: _Journey, to: MetricSink) -> None:
        """Have a metric delivered."""
        with self._changed:
            self._waiting.append((journey, to))
            self._changed.notify()

    def __len__(self) -> int:
        """Return how many deliveries wait."""
        return len(self._waiting)

    def end(self) -> None:
        """Have the thread end once nothing waits."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()

    def abandon(self) -> list[_Journey]:
        """Take back what was not delivered, also what a sink does not come back with."""
        with self._changed:
            left = [journey for journey, _ in self._waiting]
            self._waiting.clear()
            if self._current is not None:
                left.append(self._current)
        return left

    def _serve(self) -> None:
        """Deliver until told to end, and everything that came before that."""
        while True:
            with self._changed:
                while not self._waiting and not self._is_stopping:
                    self._changed.wait()
                if not self._waiting:
                    return
                journey, to = self._waiting.popleft()
                self._current = journey
            with Attempt() as attempt:  # outside of the lock: a slow sink must not hold up whoever emits
                to.receive_metric(journey.metric)
            with self._changed:
                self._current = None
            self._done(journey, to, attempt.said)


class Batch:
    """Metrics that are sent together when the block ends; call it, or `append` to it."""

    def __init__(self, source_id: str) -> None:
        self._source_id = source_id
        self.metrics: list[MetricData] = []

    def append(self, metric: MetricData) -> None:
        """Add a metric; its source is the batch's."""
        metric.source = self._source_id
        self.metrics.append(metric)

    __call__ = emit_metric = append


class DataFlowOrchestrator:
    """Takes metrics from sources to sinks.

    Args:
        max_queue_size: Deliveries that may wait in all; further ones are dropped and counted.
        num_workers: Threads; each sink is served by one of them.

    Example:
        >>> class Console(MetricSink):
        ...     def get_sink_id(self):
        ...         return "console"
        ...     def receive_metric(self, metric):
        ...         got.append((metric.name, metric.value))
        >>> got = []
        >>> router = DataFlowOrchestrator()
        >>> router.register_sink(Console())
        >>> router.add_routing_rule(RoutingRule("*", "console"))
        >>> router.start()
        >>> router.emit_metric(MetricData("loss", 0.5, iteration=0))
        True
        >>> router.stop(), got
        (True, [('loss', 0.5)])
    """

    def __init__(self, max_queue_size: int = 10000, num_workers: int = 4) -> None:
        if max_queue_size < 1 or num_workers < 1:
            message = f"max_queue_size={max_queue_size} and num_workers={num_workers} must both be at least 1."
            raise ValueError(message)
        self.max_queue_size, self.num_workers = max_queue_size, num_workers
        self._lock = threading.RLock()  # a rule's own function may emit
        self._sources: dict[str, MetricSource] = {}
        self._sinks: dict[str, MetricSink] = {}
        self._lane_of: dict[str, int] = {}
        self._rules: list[RoutingRule] = []
        self._processed = self._dropped = self._errors = 0
        self._said: set[str] = set()
        self.is_running = self._is_over = False
        self._make_lanes()

    def register_source(self, source: MetricSource) -> None:
        """Make a source known."""
        self._sources[source.get_source_id()] = source

    def register_sink(self, to: MetricSink) -> None:
        """Make a sink known; the same id again replaces it."""
        name = to.get_sink_id()
        with self._lock:
            self._sinks[name] = to
            self._lane_of.setdefault(name, len(self._lane_of) % self.num_workers)

    def add_routing_rule(self, rule: RoutingRule) -> None:
        """Add a rule; a metric goes to each sink that at least one rule names."""
        with self._lock:
            self._rules.append(rule)

    def emit_metric(self, metric: MetricData) -> bool:
        """Send a metric to the sinks that the rules name; never waits.

        Args:
            metric: The metric. What comes before `start` is delivered once it is called.

        Returns:
            Whether it was taken for all of them; False is counted in `metrics_dropped`.
        """
        with self._lock:
            sinks = self._sinks_for(metric)
            if self._is_over or sum(map(len, self._lanes)) + len(sinks) > self.max_queue_size:
                self._dropped += 1
                return False
            if not sinks:
                self._processed += 1
            journey = _Journey(metric, len(sinks))
            for name in sinks:  # under the lock, so that two threads cannot change places on their way
                self._lanes[self._lane_of[name]].put(journey, self._sinks[name])
        return True

    @contextmanager
    def batch_emit(self, source_id: str) -> Iterator[Batch]:
        """Gather metrics and send them together when the block ends.

        Args:
            source_id: The source of all of them.
        """
        batch = Batch(source_id)
        yield batch
        for metric in batch.metrics:
            self.emit_metric(metric)

    def start(self) -> None:
        """Begin to deliver; after `stop` it can be started again."""
        with self._lock:
            if self.is_running:
                return
            if self._is_over:
                self._make_lanes()
            self.is_running, self._is_over = True, False
            for lane in self._lanes:
                lane.thread.start()

    def stop(self, timeout: float = 10.0) -> bool:
        """Deliver what waits, then end; within the time, whatever the sinks do.

        Args:
            timeout: Seconds; what is left then counts as dropped.

        Returns:
            Whether everything was delivered.
        """
        with self._lock:
            was_running, self.is_running, self._is_over = self.is_running, False, True
        deadline = clock.monotonic() + timeout
        for lane in self._lanes:
            lane.end()
        if was_running:
            for lane in self._lanes:  # without the lock, which they need to count
                lane.thread.join(max(deadline - clock.monotonic(), 0.0))
        lost = [journey for lane in self._lanes for journey in lane.abandon()]
        with self._lock:
            for journey in lost:
                self._dropped += not journey.is_lost
                journey.is_lost = True
        return not lost and not any(lane.thread.is_alive() for lane in self._lanes)

    def get_stats(self) -> dict[str, int | bool]:
        """Return the counters: `metrics_processed metrics_dropped processing_errors queue_size` and what is known."""
        with self._lock:
            return {
                "metrics_processed": self._processed,
                "metrics_dropped": self._dropped,
                "processing_errors": self._errors,
                "queue_size": sum(map(len, self._lanes)),
                "num_sources": len(self._sources),
                "num_sinks": len(self._sinks),
                "num_routing_rules": len(self._rules),
                "running": self.is_running,
            }

    def _make_lanes(self) -> None:
        """Make threads that can be started."""
        self._lanes = [_Lane(number, self._delivered) for number in range(self.num_workers)]

    def _sinks_for(self, metric: MetricData) -> list[str]:
        """Return the sinks of a metric; a rule that raises sends nothing and is counted."""
        found: dict[str, None] = {}
        for rule in self._rules:
            to = self._sinks.get(rule.sink_id)
            if to is None or rule.sink_id in found:
                continue
            with Attempt() as attempt:
                if rule.matches(metric) and to.can_handle_type(metric.type):
                    found[rule.sink_id] = None
            if attempt.error is not None:
                self._errors += 1
                self._say(f"the rule for {rule.sink_id!r}", attempt.said)
        return list(found)

    def _delivered(self, journey: _Journey, to: MetricSink, error: str) -> None:
        """Count a delivery."""
        with self._lock:
            journey.left -= 1
            if error:
                self._errors += 1
                self._say(f"the sink {type(to).__name__}", error)
            if journey.left == 0 and not journey.is_lost:
                self._processed += 1

    def _say(self, who: str, error: str) -> None:
        """Say what went wrong, once for each who."""
        if who not in self._said:
            self._said.add(who)
            sink.say(f"tracer: {who} raised {error}. The others are unaffected; it is counted as a processing error.")


__all__ = [
    "Attempt",
    "Batch",
    "DataFlowOrchestrator",
    "MetricData",
    "MetricSink",
    "MetricSource",
    "MetricType",
    "RoutingRule",
]
