"""Which golden tests run by default."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent
SLOW = ("[flow_tiny_v1_8s-none]", "[flow_tiny_v2_8s-none]")
"""The plain path on files whose 25 steps take half a minute; it is run on the shorter ones, the fast path on all."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == FOLDER and item.name.endswith(SLOW):
            item.add_marker(pytest.mark.slow)
