"""The router: rules, order, counters that tell the truth, and an end that is bounded."""

from __future__ import annotations

import threading
import time

import pytest

from tracelet.core.orchestrator import (
    DataFlowOrchestrator,
    MetricData,
    MetricSink,
    MetricSource,
    MetricType,
    RoutingRule,
)


class Kept(MetricSink):
    """Keeps what it gets; `gate` holds it up, `fails` makes it raise."""

    def __init__(self, name: str = "kept", *, fails: bool = False, gate: threading.Event | None = None) -> None:
        self.name, self.fails, self.gate = name, fails, gate
        self.got: list[tuple[str, object, int | None]] = []

    def get_sink_id(self) -> str:
        """Return its name."""
        return self.name

    def receive_metric(self, metric: MetricData) -> None:
        """Keep the metric, later or never."""
        if self.gate is not None:
            self.gate.wait()
        if self.fails:
            message = "no"
            raise OSError(message)
        self.got.append((metric.name, metric.value, metric.iteration))


def routed(*sinks: Kept, queue: int = 10_000, workers: int = 4) -> DataFlowOrchestrator:
    """Return a router with these sinks, each of which gets everything."""
    router = DataFlowOrchestrator(queue, workers)
    for sink in sinks:
        router.register_sink(sink)
        router.add_routing_rule(RoutingRule("*", sink.name))
    return router


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("*", True), ("experiment.*", True), ("train/*", True), ("*loss", True), ("eval/*", False), ("experiment", False)],
)
def test_a_pattern_matches_source_or_name_as_the_shell_does(pattern: str, expected: bool) -> None:  # noqa: FBT001
    metric = MetricData("train/loss", 1.0, source="experiment.a")

    assert RoutingRule(pattern, "x").matches(metric) is expected


def test_a_rule_can_ask_for_types_and_for_more() -> None:
    rule = RoutingRule("*", "x", {MetricType.SCALAR}, lambda metric: metric.value != 0)

    assert rule.matches(MetricData("a", 1))
    assert not rule.matches(MetricData("a", 0))
    assert not rule.matches(MetricData("a", 1, MetricType.TEXT))


def test_everything_is_delivered_before_it_stops_and_the_counters_say_so() -> None:
    sink = Kept()
    router = routed(sink)
    router.start()
    for step in range(200):
        assert router.emit_metric(MetricData("loss", step, iteration=step))
    assert router.stop()

    assert sink.got == [("loss", step, step) for step in range(200)]
    stats = router.get_stats()
    assert stats == {
        "metrics_processed": 200,
        "metrics_dropped": 0,
        "processing_errors": 0,
        "queue_size": 0,
        "num_sources": 0,
        "num_sinks": 1,
        "num_routing_rules": 1,
        "running": False,
    }


def test_64_threads_keep_the_order_of_each_series_at_every_sink() -> None:
    sinks = [Kept("a"), Kept("b"), Kept("c")]
    router = routed(*sinks, queue=100_000, workers=2)
    router.start()

    def emit(name: str) -> None:
        for step in range(50):
            router.emit_metric(MetricData(name, step, iteration=step))

    threads = [threading.Thread(target=emit, args=(f"series-{number}",)) for number in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    router.stop()

    assert router.get_stats()["metrics_processed"] == 64 * 50
    for sink in sinks:
        for number in range(64):
            assert [step for name, _, step in sink.got if name == f"series-{number}"] == list(range(50))


def test_a_full_queue_drops_and_counts_and_never_waits() -> None:
    gate = threading.Event()
    sink = Kept(gate=gate)
    router = routed(sink, queue=10)
    for step in range(25):
        router.emit_metric(MetricData("a", step, iteration=step))
    assert (router.get_stats()["queue_size"], router.get_stats()["metrics_dropped"]) == (10, 15)

    gate.set()
    router.start()
    router.stop()

    assert [step for _, _, step in sink.got] == list(range(10))
    assert (router.get_stats()["metrics_processed"], router.get_stats()["metrics_dropped"]) == (10, 15)


def test_a_sink_that_hangs_is_not_waited_for_beyond_the_time_and_holds_up_no_other() -> None:
    gate = threading.Event()
    hangs, works = Kept("hangs", gate=gate), Kept("works")
    router = routed(hangs, works)
    router.start()
    for step in range(5):
        router.emit_metric(MetricData("a", step, iteration=step))

    began = time.monotonic()
    assert not router.stop(timeout=0.2)
    took = time.monotonic() - began

    assert took < 5
    assert len(works.got) == 5
    assert router.get_stats()["metrics_dropped"] == 5
    gate.set()


def test_a_sink_or_a_rule_that_raises_is_counted_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    bad, good = Kept("bad", fails=True), Kept("good")
    router = routed(bad, good)
    router.add_routing_rule(RoutingRule("*", "good", None, lambda metric: metric.value / 0))
    router.start()
    for step in range(3):
        router.emit_metric(MetricData("a", step, iteration=step))
    router.stop()

    assert [step for _, _, step in good.got] == [0, 1, 2]
    assert (router.get_stats()["processing_errors"], router.get_stats()["metrics_processed"]) == (3, 3)
    assert capsys.readouterr().err.count("the sink Kept raised OSError: no") == 1


def test_a_batch_is_sent_when_the_block_ends() -> None:
    sink = Kept()
    router = routed(sink)
    router.start()
    with router.batch_emit("loader") as batch:
        batch.append(MetricData("a", 1.0, iteration=0))
        batch(MetricData("b", 2.0, iteration=0))
        assert router.get_stats()["queue_size"] == 0
    router.stop()

    assert [name for name, _, _ in sink.got] == ["a", "b"]
    assert batch.metrics[0].source == "loader"


def test_a_router_can_be_started_again_and_what_comes_after_the_end_is_dropped() -> None:
    sink = Kept()
    router = routed(sink)
    router.start()
    router.stop()
    assert not router.emit_metric(MetricData("late", 1.0))
    router.start()
    router.emit_metric(MetricData("again", 1.0, iteration=1))
    router.stop()

    assert sink.got == [("again", 1.0, 1)]
    assert router.get_stats()["metrics_dropped"] == 1


def test_sources_are_counted_and_sizes_are_checked() -> None:
    class Source(MetricSource):
        def get_source_id(self) -> str:
            """Return its name."""
            return "s"

    router = DataFlowOrchestrator()
    router.register_source(Source())

    assert router.get_stats()["num_sources"] == 1
    with pytest.raises(ValueError, match="must both be at least 1"):
        DataFlowOrchestrator(max_queue_size=0)
