"""Fixtures for tests in the real ComfyUI; each says why it skips."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .server import Server, find_comfy


@pytest.fixture(scope="session")
def comfy() -> tuple[Path, str]:
    """ComfyUI's folder and Python."""
    found = find_comfy()
    if isinstance(found, str):
        pytest.skip(found)
    return found


@pytest.fixture(scope="session")
def server(comfy: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests of the session; weights and media are put into its ``base`` by those who need them."""
    started = Server(*comfy, tmp_path_factory.mktemp("comfy")).start()
    try:
        yield started
    finally:
        started.stop()
