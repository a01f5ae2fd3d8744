"""Bricks of Synchformer (arXiv 2401.16423): divided space-time attention (Motionformer, arXiv 2106.05392) and aggregation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.divided_attention import divided_attention

VISUAL_EPS = 1e-6


def split_heads(x: Tensor, heads: int) -> Tensor:
    """(B, tokens, D) -> (B, H, tokens, D / H)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, tokens, D / H) -> (B, tokens, D)."""
    return x.transpose(1, 2).flatten(2)


class FeedForward(nn.Module):
    """Linear, exact GELU, Linear under the published names."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, inner)
        self.fc2 = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class DividedAttention(nn.Module):
    """The class token attends to everything; every group attends to itself and the class token.

    ``forward`` takes the other tokens as (groups, members) of the time-major sequence: over time a group is one patch,
    over space a group is one frame. Unlike the flow network's, qkv is packed part by part.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, frames: int, over_time: bool) -> Tensor:
        """``x`` (B, 1 + frames * patches, D), class token first -> the same shape."""
        return self.proj(divided_attention(self.qkv(x), self.heads, frames, over_time))


class DividedBlock(nn.Module):
    """Time attention, space attention, feed-forward, each pre-normalised and residual."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=VISUAL_EPS)
        self.attn = DividedAttention(width, heads)
        self.timeattn = DividedAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=VISUAL_EPS)
        self.mlp = FeedForward(width, inner)
        self.norm3 = nn.LayerNorm(width, eps=VISUAL_EPS)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        x = x + self.timeattn(self.norm3(x), frames, over_time=True)
        x = x + self.attn(self.norm1(x), frames, over_time=False)
        return x + self.mlp(self.norm2(x))


class PackedSelfAttention(nn.Module):
    """Plain self-attention under the names of ``torch.nn.MultiheadAttention``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        q, k, v = (split_heads(part, self.heads) for part in (q, k, v))
        return self.out_proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))


class ClassTokenPool(nn.Module):
    """A pre-norm encoder layer over [own class token, tokens]; its class token is the output. (B, tokens, D) -> (B, D)."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.self_attn = PackedSelfAttention(width, heads)
        self.linear1 = nn.Linear(width, inner)
        self.linear2 = nn.Linear(inner, width)
        self.norm1 = nn.LayerNorm(width, eps=VISUAL_EPS)
        self.norm2 = nn.LayerNorm(width, eps=VISUAL_EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1)
        x = x + self.self_attn(self.norm1(x))
        x = x[:, 0]  # what follows works token by token, and only this one is returned
        return x + self.linear2(F.gelu(self.linear1(self.norm2(x))))
