"""Which optional packages are here."""

from tracer.experiment.packages import (
    ImportManager,
    LazyImport,
    available_backends,
    available_frameworks,
    is_available,
    lazy_import,
    reload_detection,
    require,
    try_import,
)

get_available_backends = available_backends
get_available_frameworks = available_frameworks

__all__ = [
    "ImportManager",
    "LazyImport",
    "get_available_backends",
    "get_available_frameworks",
    "is_available",
    "lazy_import",
    "reload_detection",
    "require",
    "try_import",
]
