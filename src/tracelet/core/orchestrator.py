"""The router."""

from tracer.routing import DataFlowOrchestrator, MetricData, MetricSink, MetricSource, MetricType, RoutingRule

__all__ = ["DataFlowOrchestrator", "MetricData", "MetricSink", "MetricSource", "MetricType", "RoutingRule"]
