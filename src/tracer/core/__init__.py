"""The deep paths of the Tracer documents, such as `tracer.core.tracer`; re-exports only."""
