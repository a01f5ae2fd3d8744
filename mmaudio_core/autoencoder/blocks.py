"""Blocks of the mel autoencoder (spec section 5); tensors are (B, C, time)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .mp_layers import CLAMP, MPConv1d, mp_silu, mp_sum, pixel_norm


class ResidualBlock(nn.Module):
    """Two convolutions around a magnitude-preserving sum; the shortcut takes the *normalised* input."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = MPConv1d(channels_in, channels_out, 3)
        self.conv2 = MPConv1d(channels_out, channels_out, 3)
        self.nin_shortcut = MPConv1d(channels_in, channels_out, 1) if channels_in != channels_out else None

    def forward(self, x: Tensor) -> Tensor:
        x = pixel_norm(x)
        h = self.conv2(mp_silu(self.conv1(mp_silu(x))))
        if self.nin_shortcut is not None:
            x = self.nin_shortcut(x)
        return mp_sum(x, h)


class Attention(nn.Module):
    """One-headed self-attention over time, q, k and v each normalised over channels; its input is not normalised."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.qkv = MPConv1d(channels, 3 * channels, 1)
        self.proj_out = MPConv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        qkv = pixel_norm(self.qkv(x).unflatten(1, (-1, 3)))  # packed as channel * 3 + part
        q, k, v = (part.transpose(1, 2)[:, None] for part in qkv.unbind(2))
        h = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2)
        return mp_sum(x, self.proj_out(h))


class Middle(nn.Module):
    """Block, attention, block; the only place where a frame sees all others."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels)
        self.attn_1 = Attention(channels)
        self.block_2 = ResidualBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x))).clamp(-CLAMP, CLAMP)


class Downsample(nn.Module):
    """1x1, average of neighbouring frames, 1x1: half as many frames."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = MPConv1d(channels, channels, 1)
        self.conv2 = MPConv1d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.avg_pool1d(self.conv1(x), 2))


class Upsample(nn.Module):
    """Each frame twice, then Conv 3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = MPConv1d(channels, channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.repeat_interleave(2, dim=-1))


class Level(nn.Module):
    """Residual blocks at one width, each clamped to +-256, with or without a change of rate."""

    def __init__(self, channels_in: int, channels_out: int, blocks: int) -> None:
        super().__init__()
        self.block = nn.ModuleList(ResidualBlock(channels_in if i == 0 else channels_out, channels_out) for i in range(blocks))
        self.downsample: Downsample | None = None
        self.upsample: Upsample | None = None

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x).clamp(-CLAMP, CLAMP)
        return x
