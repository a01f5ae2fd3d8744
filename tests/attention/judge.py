"""What attention is, written out in float64, and packages that are not there, played by fakes which compute just that."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

CASES = [  # B, H, Nq, Nk, d
    (2, 7, 391, 391, 64),
    (1, 3, 250, 250, 64),
    (1, 2, 345, 345, 64),
    (1, 2, 730, 730, 80),
    (2, 3, 1, 1, 64),
    (3, 2, 1, 345, 64),
    (2, 5, 345, 77, 24),
    (1, 1, 31, 250, 256),
]


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(q k^T / sqrt(d)) v with loops over batch and heads: q (B, H, Nq, d) -> (B, Nq, H * d) in float64."""
    batch, heads, queries, width = q.shape
    out = torch.full((batch, queries, heads * width), float("nan"), dtype=torch.float64)
    for b in range(batch):
        for h in range(heads):
            scores = q[b, h].double() @ k[b, h].double().T / width**0.5
            if mask is not None:
                scores = scores.masked_fill(~mask, float("-inf"))
            weights = (scores - scores.amax(1, keepdim=True)).exp()
            out[b, :, h * width : (h + 1) * width] = weights / weights.sum(1, keepdim=True) @ v[b, h].double()
    return out


def draw(case: tuple[int, int, int, int, int], dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[Tensor]:
    """q, k, v; v is the third part of packed channels, as in the flow network, so that its elements lie three apart."""
    batch, heads, queries, keys, width = case
    random = torch.Generator().manual_seed(queries * 1000 + keys)
    q = torch.randn(batch, queries, heads, width, generator=random).transpose(1, 2)
    k = torch.randn(batch, heads, keys, width, generator=random)
    v = torch.randn(batch, heads, keys, width, 3, generator=random)
    return [q.to(device, dtype), k.to(device, dtype), v.to(device, dtype)[..., 2]]


def tokens_first(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A package's attention in its own layout: (B, N, H, d) each -> (B, Nq, H, d), of the inputs' dtype."""
    assert q.ndim == k.ndim == v.ndim == 4
    assert all(t.stride(-1) == 1 for t in (q, k, v)), "the packages' kernels want a head's elements side by side"
    out = attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.unflatten(-1, (q.shape[2], -1)).to(q.dtype)


def install(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: Any) -> ModuleType:
    """Puts a module of that name, and empty ones above it, into sys.modules."""
    parts = name.split(".")
    for i in range(1, len(parts)):
        above = ".".join(parts[:i])
        if above not in sys.modules:
            monkeypatch.setitem(sys.modules, above, ModuleType(above))
    module = ModuleType(name)
    for key, value in attributes.items():
        setattr(module, key, value)
    monkeypatch.setitem(sys.modules, name, module)
    return module


def pretend_cuda(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int] = (9, 0), hip: str | None = None) -> None:
    """Lets torch say that there is such a GPU; nothing can be computed on it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    monkeypatch.setattr(torch.version, "hip", hip)
