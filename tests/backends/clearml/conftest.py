"""What the tests of ClearML share: the fake server beside them, and an environment that names none."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what would name a server."""
    for name in ("API_HOST", "WEB_HOST", "FILES_HOST", "API_ACCESS_KEY", "API_SECRET_KEY", "OFFLINE_MODE", "CACHE_DIR"):
        monkeypatch.delenv(f"CLEARML_{name}", raising=False)
