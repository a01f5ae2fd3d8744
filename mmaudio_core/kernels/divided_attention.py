"""Divided space-time attention of Synchformer's visual encoder (Motionformer, arXiv 2106.05392; arXiv 2401.16423)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError


def divided_attention(qkv: Tensor, heads: int, frames: int, over_time: bool) -> Tensor:
    """The class token attends to every token; every other token to its group and the class token.

    Over time a group is one patch in all ``frames``, over space one frame with all its patches P.

    Args:
        qkv: (B, 1 + frames * P, 3 D): the class token, then the patches of the first frame, and so on; the channels are
            q, k and v one after the other, each by head.
        heads: H, a divisor of D. Scores are scaled by (D / H)^-1/2.
        frames: how many frames the sequence has.
        over_time: groups over time or over space.

    Returns:
        (B, 1 + frames * P, D), before the output projection.

    Raises:
        InputError: when the shape does not fit ``heads`` and ``frames``.
    """
    check_divided_attention(qkv, heads, frames)
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    class_out = F.scaled_dot_product_attention(q[:, :, :1], k, v)

    def groups(part: Tensor) -> Tensor:  # (B, H, tokens, d) -> (B, groups, H, members, d)
        grid = part[:, :, 1:].unflatten(2, (frames, -1))
        return grid.permute(0, 3, 1, 2, 4) if over_time else grid.permute(0, 2, 1, 3, 4)

    gq, gk, gv = groups(q), groups(k), groups(v)
    class_k, class_v = (part[:, None, :, :1].expand(-1, gq.shape[1], -1, -1, -1) for part in (k, v))
    out = F.scaled_dot_product_attention(
        gq.flatten(0, 1), torch.cat((class_k, gk), dim=3).flatten(0, 1), torch.cat((class_v, gv), dim=3).flatten(0, 1)
    ).unflatten(0, gq.shape[:2])
    out = out.permute(0, 2, 3, 1, 4) if over_time else out.permute(0, 2, 1, 3, 4)
    return torch.cat((class_out, out.flatten(2, 3)), dim=2).transpose(1, 2).flatten(2)


def check_divided_attention(qkv: Tensor, heads: int, frames: int) -> None:
    """Refuses what ``divided_attention`` is not defined for."""
    if qkv.ndim != 3 or not qkv.is_floating_point() or heads < 1 or qkv.shape[2] == 0 or qkv.shape[2] % (3 * heads):
        raise InputError(
            f"divided_attention was given qkv {tuple(qkv.shape)} in {qkv.dtype} and {heads} heads; it needs "
            "(B, tokens, 3 * heads * head width) in floating point."
        )
    patches = qkv.shape[1] - 1
    if frames < 1 or patches < frames or patches % frames:
        raise InputError(
            f"divided_attention was given {qkv.shape[1]} tokens and {frames} frames; it needs one class token and "
            "the same number of patches, at least one, for every frame."
        )
