"""Rotary positions on adjacent channel pairs (arXiv 2104.09864), aligned between streams (arXiv 2412.15322, 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..kernels.adaln import widened

THETA = 10_000.0


def rope_table(positions: int, head_dim: int, frequency_scale: float = 1.0, device: torch.device | None = None) -> Tensor:
    """Rotations of ``positions`` tokens as float32 (positions, head_dim / 2, 2), last axis (cos, sin).

    ``frequency_scale`` L / V turns the visual stream's frame k into the audio position of the same instant.
    The table stays float32 in half precision runs (trap R3).
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    frequencies = frequency_scale / THETA**exponents
    angles = torch.arange(positions, dtype=torch.float32, device=device)[:, None] * frequencies
    return torch.stack((angles.cos(), angles.sin()), dim=-1)


def rotate(x: Tensor, table: Tensor) -> Tensor:
    """``x`` (B, H, tokens, head_dim) with channels (2i, 2i + 1) rotated by ``table``; computed in float32."""
    even, odd = widened(x).unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = table.unbind(-1)
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2).to(x.dtype)
