"""Kaiser-windowed sinc filters for changing the rate by two (BigVGAN, arXiv 2206.04658; StyleGAN3, arXiv 2106.12423)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

TAPS = 12
CUTOFF = 0.25
HALF_WIDTH = 0.3


def kaiser_sinc(taps: int = TAPS, cutoff: float = CUTOFF, half_width: float = HALF_WIDTH) -> Tensor:
    """Low-pass filter of an even number of ``taps``, float32 (taps,), sum 1; frequencies are fractions of the rate."""
    attenuation_db = 2.285 * (taps // 2 - 1) * math.pi * 4 * half_width + 7.95
    # Kaiser's design formula has another branch between 21 and 50 dB; these filters (51 dB) lie above it.
    beta = 0.1102 * (attenuation_db - 8.7)
    window = torch.kaiser_window(taps, periodic=False, beta=beta, dtype=torch.float32)
    time = torch.arange(-(taps // 2), taps // 2) + 0.5
    response = 2 * cutoff * window * torch.sinc(2 * cutoff * time)
    return response / response.sum()
