"""Who listens to something of torch that is patched only while somebody does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

L = TypeVar("L")


class Listeners(list[L]):
    """The listeners of one patch, in the order in which they came."""

    def join(self, listener: L, install: Callable[[], None], remove: Callable[[], None]) -> Callable[[], None]:
        """Add a listener, and return what ends that; the first one installs the patch, the last one removes it."""
        if not self:
            install()
        self.append(listener)

        def end() -> None:
            if listener in self:
                self.remove(listener)
                if not self:
                    remove()

        return end


__all__ = ["Listeners"]
