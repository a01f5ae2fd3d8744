"""Magnitude-preserving layers (EDM2, arXiv 2312.02696) in one dimension; tensors are (B, C, time)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.pixel_norm import EPS, SILU_GAIN

SHORTCUT_WEIGHT = 0.3
CLAMP = 256.0


def mp_silu(x: Tensor) -> Tensor:
    """silu(x) / 0.596: unit variance in, unit variance out."""
    return F.silu(x) / SILU_GAIN


def mp_sum(a: Tensor, b: Tensor, t: float = SHORTCUT_WEIGHT) -> Tensor:
    """((1 - t) a + t b) / sqrt((1 - t)^2 + t^2)."""
    return a.lerp(b, t) / math.sqrt((1 - t) ** 2 + t**2)


def pixel_norm(x: Tensor, dim: int = 1) -> Tensor:
    """``x`` / (1e-4 + root mean square over ``dim``), the statistics in float32."""
    rms = x.float().square().mean(dim, keepdim=True).sqrt()
    return x / (EPS + rms).to(x.dtype)


class MPConv1d(nn.Module):
    """Convolution without bias, its weight normalised per output channel over fan-in n: w / (||w|| + 1e-4 sqrt(n)).

    The stored weight is the raw one, as published; ``fold_`` replaces it once by the normalised one for inference.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels_out, channels_in, kernel))
        self.folded = False

    def effective_weight(self) -> Tensor:
        """The weight that is convolved with, in the parameter's dtype; normalised in float32."""
        if self.folded:
            return self.weight
        w = self.weight.float()
        fan_in = w[0].numel()
        norm = torch.linalg.vector_norm(w, dim=(1, 2), keepdim=True)
        return (w / (norm + EPS * math.sqrt(fan_in))).to(self.weight.dtype)

    @torch.no_grad()
    def fold_(self) -> None:
        if not self.folded:
            # Channels inside of taps, as the fast path's kernels read them.
            laid_out = self.effective_weight().transpose(1, 2).contiguous().transpose(1, 2)
            self.weight = nn.Parameter(laid_out, requires_grad=False)
            self.folded = True

    def forward(self, x: Tensor, gain: Tensor | float = 1.0) -> Tensor:
        weight = self.effective_weight()
        if isinstance(gain, Tensor) or gain != 1.0:  # else a product would only copy the weight
            weight = weight * gain
        return F.conv1d(x, weight, padding=self.weight.shape[-1] // 2)
