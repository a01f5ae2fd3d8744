"""Starting noise: one seed, one sound."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def draw_noise(seeds: Sequence[int], latent_tokens: int, latent_dim: int) -> Tensor:
    """Standard normal float32 (B, L, C) on the CPU, sample i from ``seeds[i]`` alone.

    Drawn per sample and on the CPU, so that a seed gives the same latents alone or in a batch and on any device.
    """
    draws = []
    for seed in seeds:
        generator = torch.Generator("cpu").manual_seed(seed)
        draws.append(torch.randn(latent_tokens, latent_dim, generator=generator, dtype=torch.float32))
    return torch.stack(draws)
