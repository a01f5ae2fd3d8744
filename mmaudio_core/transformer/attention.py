"""Self-attention parts that are shared by the streams of a block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..layers.norm import HeadRMSNorm
from ..layers.operations import TORCH, Operations
from ..layers.rope import rotate

PACKED = ("qkv.weight", "qkv.bias")


class HeadAttention(nn.Module):
    """Projections of one stream: (B, tokens, D) -> q, k, v (B, H, tokens, 64), q and k normalised per head and rotated.

    The packed output channel of head n, channel c and part j in (q, k, v) is (n * 64 + c) * 3 + j, as published. After
    ``pack_by_part_`` it is j * D + n * 64 + c, so that the parts are contiguous; state dictionaries stay as published.
    """

    def __init__(self, width: int, heads: int, operations: Operations = TORCH) -> None:
        super().__init__()
        self.heads = heads
        self.by_part = False
        self.qkv = operations.Linear(width, 3 * width)
        self.q_norm = HeadRMSNorm(width // heads)
        self.k_norm = HeadRMSNorm(width // heads)

    def forward(self, x: Tensor, rope: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        packed = self.qkv(x)
        if self.by_part:
            q, k, v = packed.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            q, k, v = packed.unflatten(-1, (self.heads, -1, 3)).transpose(1, 2).unbind(-1)
        q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = rotate(q, rope), rotate(k, rope)
        return q, k, v

    @torch.no_grad()
    def pack_by_part_(self) -> None:
        """Reorders the rows of the packed projection in place, once."""
        if not self.by_part:
            for tensor in (self.qkv.weight, self.qkv.bias):
                tensor.data = by_part(tensor)
            self.by_part = True

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As published, whatever the order in memory."""
        entries = super().state_dict(*args, **kwargs)
        if self.by_part:
            prefix = kwargs.get("prefix", args[1] if len(args) > 1 else "")
            for name in PACKED:
                entries[prefix + name] = _interleaved(entries[prefix + name].detach())
        return entries

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        if self.by_part:
            for name in PACKED:
                if prefix + name in state_dict:
                    state_dict[prefix + name] = by_part(state_dict[prefix + name])
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def by_part(packed: Tensor) -> Tensor:
    """Rows of a published packed projection, (3 D, ...) interleaved, as q rows, k rows, v rows; a copy."""
    return packed.unflatten(0, (-1, 3)).transpose(0, 1).reshape(packed.shape)


def _interleaved(parts: Tensor) -> Tensor:
    return parts.unflatten(0, (3, -1)).transpose(0, 1).reshape(parts.shape)
