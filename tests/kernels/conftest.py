"""Memory that a kernel's launcher asks for is full of NaN here, so that an element that no kernel wrote fails its test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from .emulator import Emulator, missing


def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``allocate``, but with every element NaN, or the smallest number of an integer type."""

    def allocate_poisoned(*args: Any, **kwargs: Any) -> Tensor:
        made = allocate(*args, **kwargs)
        with torch.no_grad():
            made.fill_(
                float("nan") if made.is_floating_point() else 0 if made.dtype == torch.bool else torch.iinfo(made.dtype).min
            )
        return made

    return allocate_poisoned


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of torch's functions that allocate without writing; launchers call them as ``torch.empty`` and the like."""
    for owner, name in (
        (torch, "empty"),
        (torch, "empty_like"),
        (torch, "empty_strided"),
        (Tensor, "new_empty"),
        (Tensor, "new_empty_strided"),
    ):
        monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))


@pytest.fixture(scope="session")
def emulator(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    if reason := missing():
        pytest.skip(reason)
    kept = getattr(pytestconfig, "cache", None)
    return Emulator(Path(kept.mkdir("cuda_emulator")) if kept else tmp_path_factory.mktemp("cuda_emulator"))


FOLDER = Path(__file__).resolve().parent
CASES = 3
"""Of each interpreted kernel test, so many cases are run by default; all of them on a GPU and in ``make test-slow``."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Triton's interpreter and the emulated device take a second for what a GPU does at once: most cases become slow ones."""
    if torch.cuda.is_available():
        return
    of_test: dict[str, list[pytest.Item]] = {}
    for item in items:
        if item.path.parent == FOLDER:
            of_test.setdefault(item.nodeid.split("[")[0], []).append(item)
    for cases in of_test.values():
        step = max(1, -(-len(cases) // CASES))
        for i, item in enumerate(cases):
            if i % step:
                item.add_marker(pytest.mark.slow)
