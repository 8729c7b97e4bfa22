"""The deep paths of the seed documents, such as `tracer.core.tracer`; re-exports only."""
