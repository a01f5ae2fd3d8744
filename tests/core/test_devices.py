"""Which device is meant, and that work goes there and nowhere else."""

from __future__ import annotations

import pytest
import torch

from mmaudio_core.pipeline.device import choose_device


def test_a_cuda_device_always_has_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch before 2.5 does not say how much memory is free on "cuda" alone."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    for wish in (None, "auto", "cuda", torch.device("cuda")):
        assert choose_device(wish) == torch.device("cuda", 1)
    assert choose_device("cuda:0") == torch.device("cuda", 0)
    assert choose_device("cpu") == torch.device("cpu")
