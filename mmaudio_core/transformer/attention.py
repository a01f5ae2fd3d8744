"""Self-attention parts that are shared by the streams of a block."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers.norm import HeadRMSNorm
from ..layers.operations import TORCH, Operations
from ..layers.rope import rotate


class HeadAttention(nn.Module):
    """Projections of one stream: (B, tokens, D) -> q, k, v (B, H, tokens, 64), q and k normalised per head and rotated.

    The packed output channel of head n, channel c and part j in (q, k, v) is (n * 64 + c) * 3 + j.
    """

    def __init__(self, width: int, heads: int, operations: Operations = TORCH) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = operations.Linear(width, 3 * width)
        self.q_norm = HeadRMSNorm(width // heads)
        self.k_norm = HeadRMSNorm(width // heads)

    def forward(self, x: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.qkv(x).unflatten(-1, (self.heads, -1, 3)).transpose(1, 2).unbind(-1)
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        return q, k, v


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Softmax attention with scale 1 / sqrt(64): (B, H, tokens, 64) each -> (B, tokens, D)."""
    return F.scaled_dot_product_attention(q, k, v.contiguous()).transpose(1, 2).flatten(2)
