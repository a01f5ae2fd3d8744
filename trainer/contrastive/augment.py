"""Small changes of pictures, the same for all frames of a clip, so that nothing changes in time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import AugmentConfig


def augment(frames: Tensor, config: AugmentConfig, generators: Sequence[torch.Generator]) -> Tensor:
    """Floats (B, ..., 3, H, W) around 0 -> the same shape; each clip with one draw of its generator.

    A shifted picture is continued with its edge.
    """
    changed = []
    for clip, generator in zip(frames, generators, strict=True):
        flip, right, down, contrast, light = torch.rand(5, generator=generator).tolist()
        shape = clip.shape
        x = clip.reshape(-1, *shape[-3:])
        if config.flip and flip < 0.5:
            x = x.flip(-1)
        across, along = (round((2 * r - 1) * config.shift * side) for r, side in ((right, shape[-1]), (down, shape[-2])))
        x = _shifted(x, across, along)
        x = x * (1 + config.light * (2 * contrast - 1)) + config.light * (2 * light - 1)
        changed.append(x.reshape(shape))
    return torch.stack(changed)


def _shifted(x: Tensor, across: int, along: int) -> Tensor:
    height, width = x.shape[-2:]
    x = F.pad(x, (max(across, 0), max(-across, 0), max(along, 0), max(-along, 0)), mode="replicate")
    return x[..., max(-along, 0) : max(-along, 0) + height, max(-across, 0) : max(-across, 0) + width]
