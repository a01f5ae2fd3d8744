"""SwiGLU feed-forward layers (arXiv 2002.05202), with linear maps or with convolutions over time."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .conv import channel_last_conv
from .operations import TORCH, Operations

WIDTH_MULTIPLE = 256


def swiglu_width(width: int) -> int:
    """Inner width for a model of ``width`` D: two thirds of 4 D, rounded up to a multiple of 256."""
    inner = int(2 * (4 * width) / 3)
    return WIDTH_MULTIPLE * -(-inner // WIDTH_MULTIPLE)


class GatedMLP(nn.Module):
    """w2(silu(w1 x) * w3 x), no biases; (..., D) -> (..., D)."""

    def __init__(self, width: int, operations: Operations = TORCH) -> None:
        super().__init__()
        inner = swiglu_width(width)
        self.w1 = operations.Linear(width, inner, bias=False)
        self.w2 = operations.Linear(inner, width, bias=False)
        self.w3 = operations.Linear(width, inner, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class GatedConvMLP(nn.Module):
    """``GatedMLP`` with Conv ``kernel`` in place of the linear maps; (B, L, D) -> (B, L, D)."""

    def __init__(self, width: int, kernel: int, operations: Operations = TORCH) -> None:
        super().__init__()
        inner = swiglu_width(width)
        self.w1 = channel_last_conv(width, inner, kernel, bias=False, operations=operations)
        self.w2 = channel_last_conv(inner, width, kernel, bias=False, operations=operations)
        self.w3 = channel_last_conv(width, inner, kernel, bias=False, operations=operations)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))
