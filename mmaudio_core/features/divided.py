"""Divided space-time attention for a CPU: one copy of keys and values, queries and results as views."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def divided_attention(qkv: Tensor, heads: int, frames: int, over_time: bool, class_token: bool = True) -> Tensor:
    """What ``kernels.divided_attention.divided_attention`` computes, which is the reference.

    class_token: whether its own result is wanted; without it the result has the patches alone, (B, frames * P, D).
    """
    parts = qkv.unflatten(2, (3, heads, -1))  # B, tokens, 3, H, d
    batch, tokens, _, _, width = parts.shape
    out = qkv.new_empty(batch, tokens - (not class_token), heads, width)
    source, target = parts[:, 1:].unflatten(1, (frames, -1)), out[:, int(class_token) :].unflatten(1, (frames, -1))
    if over_time:
        source, target = source.transpose(1, 2), target.transpose(1, 2)
    groups, members = source.shape[1:3]
    keys_values = qkv.new_empty(batch, groups, 1 + members, 2, heads, width)
    keys_values[:, :, 0] = parts[:, :1, 1:]
    keys_values[:, :, 1:] = source[:, :, :, 1:]
    for i in range(batch):  # torch's kernel takes four axes, and those of the queries cannot be merged
        q, k, v = (t.transpose(1, 2) for t in (source[i, :, :, 0], *keys_values[i].unbind(2)))
        target[i] = F.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    if class_token:
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        out[:, :1] = F.scaled_dot_product_attention(q[:, :, :1], k, v).transpose(1, 2)
    return out.flatten(2)
