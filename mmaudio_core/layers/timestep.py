"""Embedding of the flow time t in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .operations import TORCH, Operations

MAX_PERIOD = 10_000.0
V1_FREQUENCIES = 256


class TimestepEmbedder(nn.Module):
    """Sinusoids, Linear, SiLU, Linear: t (B,) -> (B, D).

    v1 has 256 sinusoid channels with frequencies up to 1; v2 has D of them with frequencies up to 10000. The sinusoids are
    float32 in every run: rounding t to bfloat16 destroys v2's features (trap R2). The published program does round t and the
    frequencies in half precision runs; ``published_half_precision``, which may be set at any time, does as it does.
    """

    def __init__(self, width: int, v2: bool, operations: Operations = TORCH, published_half_precision: bool = False) -> None:
        super().__init__()
        self.published_half_precision = published_half_precision
        self.channels = width if v2 else V1_FREQUENCIES
        self.frequency_scale = MAX_PERIOD if v2 else 1.0
        self.mlp = nn.Sequential(operations.Linear(self.channels, width), nn.SiLU(), operations.Linear(width, width))

    def forward(self, t: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """``dtype`` is the one to compute in; None means that of the weights."""
        dtype = dtype or next(self.mlp.parameters()).dtype
        return self.mlp(self.sinusoids(t, dtype).to(dtype))

    def sinusoids(self, t: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """t (B,) -> cosines and sines, float32 (B, channels), of t and frequencies as a run in ``dtype`` has them."""
        steps = torch.arange(0, self.channels, 2, dtype=torch.float32, device=t.device)
        frequencies = self.frequency_scale / MAX_PERIOD ** (steps / self.channels)
        t = t.float()
        if self.published_half_precision:
            t, frequencies = t.to(dtype).float(), frequencies.to(dtype).float()
        angles = t[:, None] * frequencies
        return torch.cat((angles.cos(), angles.sin()), dim=-1)
