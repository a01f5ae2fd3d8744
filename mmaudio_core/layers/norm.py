"""Normalisations that run in float32 whatever the model's dtype (trap R3 of the spec)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..kernels.adaln import widened
from ..kernels.heads import RMS_EPS


class HeadRMSNorm(nn.Module):
    """RMS norm over the last axis, the channels of one head, with a learned scale (arXiv 1910.07467).

    Own class rather than ``torch.nn.RMSNorm``: that one uses the input dtype's epsilon, which is not what the published
    weights saw in half precision.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        wide = widened(x)
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + RMS_EPS)
        # A host may have left this small weight on another device than the activations.
        return (wide * scale * self.weight.to(wide)).to(x.dtype)
