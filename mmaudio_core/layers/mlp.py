"""SwiGLU feed-forward layers (arXiv 2002.05202), with linear maps or with convolutions over time."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .conv import ChannelLastConv1d

WIDTH_MULTIPLE = 256


def swiglu_width(width: int) -> int:
    """Inner width for a model of ``width`` D: two thirds of 4 D, rounded up to a multiple of 256."""
    inner = int(2 * (4 * width) / 3)
    return WIDTH_MULTIPLE * -(-inner // WIDTH_MULTIPLE)


class GatedMLP(nn.Module):
    """w2(silu(w1 x) * w3 x), no biases; (..., D) -> (..., D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = swiglu_width(width)
        self.w1 = nn.Linear(width, inner, bias=False)
        self.w2 = nn.Linear(inner, width, bias=False)
        self.w3 = nn.Linear(width, inner, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))


class GatedConvMLP(nn.Module):
    """``GatedMLP`` with Conv ``kernel`` in place of the linear maps; (B, L, D) -> (B, L, D)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        inner = swiglu_width(width)
        self.w1 = ChannelLastConv1d(width, inner, kernel, bias=False)
        self.w2 = ChannelLastConv1d(inner, width, kernel, bias=False)
        self.w3 = ChannelLastConv1d(width, inner, kernel, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.w2(F.silu(self.w1(x)) * self.w3(x))
