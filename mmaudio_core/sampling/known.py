"""Sampling that keeps what is known: repair, continuation and audio-to-audio."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InputError
from .guidance import Velocity


def seconds_mask(latent_tokens: int, rate_hz: float, start_s: float, end_s: float, feather_s: float = 0.0) -> Tensor:
    """1 for every latent token of which a part lies in [start_s, end_s), else 0: float32 (L,).

    rate_hz: tokens per second. feather_s: seconds outside of the span over which the mask falls from 1 to 0.

    Raises:
        InputError: for a span that is empty, not finite, or outside of the latent.
    """
    total_s = latent_tokens / rate_hz
    if not (math.isfinite(start_s) and math.isfinite(end_s) and 0 <= start_s < end_s) or start_s >= total_s:
        raise InputError(
            f"The span from {start_s:g} s to {end_s:g} s was given for {total_s:.2f} s of sound; give one within it."
        )
    if not math.isfinite(feather_s) or feather_s < 0:
        raise InputError(f"A feather of {feather_s:g} s was given; 0 or more is needed.")
    first = torch.arange(latent_tokens, dtype=torch.float64) / rate_hz
    last = (torch.arange(latent_tokens, dtype=torch.float64) + 1) / rate_hz
    # Seconds between the token and the span, 0 where they overlap; a nanosecond is no overlap but rounding.
    gap = torch.maximum(start_s - last + 1e-9, first - end_s + 1e-9).clamp(min=0)
    if feather_s == 0:
        return (gap == 0).float()
    return (1 - gap / feather_s).clamp(min=0).float()


def keeping(velocity: Velocity, known: Tensor, noise: Tensor, regenerate: Tensor) -> Velocity:
    """``velocity`` where ``regenerate`` is 1; where it is 0 the state stays on the straight line from noise to ``known``.

    known, noise: (B, L, C) normalised; regenerate: (1 or B, L, 1) in [0, 1], fractions blend both. The network sees the kept
    part as noisy as the rest at every t, so that what it makes joins what is kept.
    """

    def blended(x: Tensor, t: Tensor) -> Tensor:
        line = (1 - t) * noise + t * known
        v = velocity(regenerate * x + (1 - regenerate) * line, t)
        return regenerate * v + (1 - regenerate) * (known - noise)

    return blended
