"""Pixel norm and magnitude-preserving SiLU of the mel autoencoder's blocks (EDM2, arXiv 2312.02696), both at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

EPS = 1e-4
SILU_GAIN = 0.596


def pixel_norm_silu(x: Tensor) -> tuple[Tensor, Tensor]:
    """n = ``x`` / (1e-4 + root mean square over channels), and silu(n) / 0.596; (B, C, T) -> twice (B, C, T).

    Computed in float32, each output rounded once; both have ``x``'s memory layout.

    Raises:
        InputError: when ``x`` is not a floating-point tensor of three axes with at least one channel.
    """
    check_pixel_norm(x)
    wide = x if x.dtype == torch.float64 else x.float()
    normed = wide / (EPS + wide.square().mean(1, keepdim=True).sqrt())
    return normed.to(x.dtype), (F.silu(normed) / SILU_GAIN).to(x.dtype)


def check_pixel_norm(x: Tensor) -> None:
    """Refuses what ``pixel_norm_silu`` is not defined for."""
    if x.ndim != 3 or x.shape[1] == 0 or not x.is_floating_point():
        raise InputError(f"pixel_norm_silu was given {tuple(x.shape)} in {x.dtype}; it needs (B, C, T) in floating point.")
