"""Starting noise: one seed, one sound."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import InputError


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises InputError without seeds, or for one that is no whole number from 0 to 2^64 - 1."""
    if not len(seeds):
        raise InputError("No seeds were given; one per sample is needed.")
    for seed in seeds:
        if not isinstance(seed, int) or not 0 <= seed < 2**64:
            raise InputError(f"The seed {seed!r} was given; a whole number from 0 to 2^64 - 1 is needed.")


def draw_noise(seeds: Sequence[int], latent_tokens: int, latent_dim: int) -> Tensor:
    """Standard normal float32 (B, L, C) on the CPU, sample i from ``seeds[i]`` alone.

    Drawn per sample and on the CPU, so that a seed gives the same latents alone or in a batch and on any device.

    Raises:
        InputError: without seeds, or for one that is no whole number from 0 to 2^64 - 1.
    """
    check_seeds(seeds)
    draws = []
    for seed in seeds:
        generator = torch.Generator("cpu").manual_seed(seed)
        draws.append(torch.randn(latent_tokens, latent_dim, generator=generator, dtype=torch.float32))
    return torch.stack(draws)
