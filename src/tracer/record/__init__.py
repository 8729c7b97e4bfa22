"""Events become bytes on disk here, without ever blocking the caller.

`recorder.Recorder` is one run's recorder in one process; `writer.Writer` is one thread's hot path.
"""
