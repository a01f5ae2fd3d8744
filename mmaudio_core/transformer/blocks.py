"""Blocks of the flow network (arXiv 2412.15322, 3.3; spec section 3)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..attention.protocol import Attention
from ..attention.sdpa import attend
from ..kernels.adaln import LAYER_NORM_EPS
from ..layers.conv import channel_last_conv
from ..layers.mlp import GatedConvMLP, GatedMLP
from ..layers.operations import TORCH, Operations
from .attention import HeadAttention


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm without affine, then * (1 + scale) + shift; shift and scale are (B, 1 or tokens, D)."""
    return F.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS) * (1 + scale) + shift


class Rotations(NamedTuple):
    """RoPE tables of the two streams that have positions; text has none."""

    audio: Tensor
    visual: Tensor


class StreamBlock(nn.Module):
    """One stream's half of a transformer block: what surrounds the attention.

    ``kernel`` 0 gives linear maps (text), 3 convolutions over time (audio and visual), 1 their ablation.
    ``attention_only`` is the form of the visual and text streams in the last joint block: they feed attention and have no
    output.
    """

    def __init__(
        self, width: int, heads: int, kernel: int, attention_only: bool = False, operations: Operations = TORCH
    ) -> None:
        super().__init__()
        self.attention_only = attention_only
        self.attn = HeadAttention(width, heads, operations)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), operations.Linear(width, (2 if attention_only else 6) * width))
        if attention_only:
            return
        if kernel:
            self.linear1 = channel_last_conv(width, width, kernel, operations=operations)
            self.ffn: GatedConvMLP | GatedMLP = GatedConvMLP(width, kernel, operations)
        else:
            self.linear1 = operations.Linear(width, width)
            self.ffn = GatedMLP(width, operations)

    def before(self, x: Tensor, c: Tensor, rope: Tensor | None) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, ...]]:
        """q, k, v of the modulated ``x`` (B, tokens, D), and the modulation that ``after`` needs; c is (B, 1 or tokens, D)."""
        shift, scale, *rest = self.adaLN_modulation(c).chunk(2 if self.attention_only else 6, dim=-1)
        return self.attn(modulate(x, shift, scale), rope), tuple(rest)

    def after(self, x: Tensor, attended: Tensor, modulation: tuple[Tensor, ...]) -> Tensor:
        """``x`` plus gated attention output plus gated feed-forward output; without either when ``attention_only``."""
        if self.attention_only:
            return x
        gate1, shift2, scale2, gate2 = modulation
        x = x + gate1 * self.linear1(attended)
        return x + gate2 * self.ffn(modulate(x, shift2, scale2))

    def forward(self, x: Tensor, c: Tensor, rope: Tensor | None, attend: Attention = attend) -> Tensor:
        """The block as an audio-only one: self-attention over its own tokens."""
        (q, k, v), modulation = self.before(x, c, rope)
        return self.after(x, attend(q, k, v), modulation)


class JointBlock(nn.Module):
    """Audio, visual and text streams that attend to all tokens together."""

    def __init__(self, width: int, heads: int, last: bool, kernel: int = 3, operations: Operations = TORCH) -> None:
        super().__init__()
        self.latent_block = StreamBlock(width, heads, kernel, operations=operations)
        self.clip_block = StreamBlock(width, heads, kernel, attention_only=last, operations=operations)
        self.text_block = StreamBlock(width, heads, kernel=0, attention_only=last, operations=operations)

    def forward(
        self,
        latent: Tensor,
        clip: Tensor,
        text: Tensor,
        c: Tensor,
        c_frames: Tensor,
        rope: Rotations,
        attend: Attention = attend,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, L, D), (B, V, D), (B, T, D) in and out; ``c`` (B, 1, D) global, ``c_frames`` (B, L, D) frame-aligned."""
        latent_qkv, latent_modulation = self.latent_block.before(latent, c_frames, rope.audio)
        clip_qkv, clip_modulation = self.clip_block.before(clip, c, rope.visual)
        text_qkv, text_modulation = self.text_block.before(text, c, None)

        q, k, v = (torch.cat(parts, dim=2) for parts in zip(latent_qkv, clip_qkv, text_qkv, strict=True))
        attended = attend(q, k, v).split((latent.shape[1], clip.shape[1], text.shape[1]), dim=1)

        latent = self.latent_block.after(latent, attended[0], latent_modulation)
        clip = self.clip_block.after(clip, attended[1], clip_modulation)
        text = self.text_block.after(text, attended[2], text_modulation)
        return latent, clip, text


class FinalLayer(nn.Module):
    """Modulation by the *global* c (the published weights were trained so, though the paper's figure shows c_f), Conv 7."""

    def __init__(self, width: int, latent_dim: int, operations: Operations = TORCH) -> None:
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), operations.Linear(width, 2 * width))
        self.conv = channel_last_conv(width, latent_dim, 7, operations=operations)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=-1)
        return self.conv(modulate(x, shift, scale))
