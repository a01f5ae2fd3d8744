"""The mel decoder with weights laid out once, and long clips in pieces; the modules stay the reference.

Tensors are channel-last here. The attention in the middle sees the whole clip; what comes before it looks 3 latents to either
side, what comes after it 18, so both run in pieces that overlap by as much, and a long clip costs its keys and values alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels import onednn
from ..kernels.dense import Conv, Dense
from ..kernels.pixel_norm import pixel_norm_silu
from .blocks import Attention, Level, ResidualBlock
from .mp_layers import CLAMP, SHORTCUT_WEIGHT, SILU_GAIN, MPConv1d, mp_silu, mp_sum, pixel_norm

PixelNormSilu = Callable[[Tensor], tuple[Tensor, Tensor]]

CONTEXT_LATENTS = 18
"""Latents to either side that a mel frame depends on after the attention: two layers of the middle, twelve of the first two
levels, and eight at twice the rate."""
CONTEXT_BEFORE = 3
"""Latents to either side that what the attention sees depends on."""
LATENTS_PER_CHUNK = 512
_SUM_NORM = math.sqrt((1 - SHORTCUT_WEIGHT) ** 2 + SHORTCUT_WEIGHT**2)
KEPT, ADDED = (1 - SHORTCUT_WEIGHT) / _SUM_NORM, SHORTCUT_WEIGHT / _SUM_NORM
"""Factors of the two sides of a magnitude-preserving sum."""


class FastDecoder:
    """The decoder of ``vae``: latents (B, L, C) -> log-mel (B, M, 2 L).

    On a CPU in float32 the weights are copies, packed, with the constants around the convolutions multiplied in.
    """

    def __init__(self, vae: Any, kernel: PixelNormSilu = pixel_norm_silu) -> None:
        decoder = vae.decoder
        folds = onednn.packs(decoder.conv_in.weight)
        self._mean, self._std = vae.data_mean.transpose(1, 2), vae.data_std.transpose(1, 2)
        self._first = _conv(decoder.conv_in)
        middle = decoder.mid
        self._before, self._attention = _Block(middle.block_1, kernel, folds), _Attention(middle.attn_1)
        self._after = _Block(middle.block_2, kernel, folds)
        self._levels = [_Level(level, kernel, folds) for level in reversed(list(decoder.up))]
        gain = (decoder.learnable_gain + 1).detach()
        self._last = _conv(decoder.conv_out, gain / SILU_GAIN if folds else gain)
        self._folds = folds

    @torch.no_grad()
    def __call__(self, latents: Tensor, latents_per_chunk: int = LATENTS_PER_CHUNK) -> Tensor:
        z, total = latents.to(self._mean.dtype), latents.shape[1]
        if total <= latents_per_chunk + 2 * CONTEXT_LATENTS:
            x = self._near(z, 0, total)
            return self._up(self._attention(x, *self._attention.keys(x))).transpose(1, 2)
        spans = [(first, min(first + latents_per_chunk, total)) for first in range(0, total, latents_per_chunk)]
        keys = values = z.new_empty(0)
        for first, last in spans:
            k, v = self._attention.keys(self._near(z, first, last))
            if not first:
                keys, values = (k.new_empty(k.shape[0], total, k.shape[2]) for _ in range(2))
            keys[:, first:last], values[:, first:last] = k, v
        pieces = []
        for first, last in spans:
            left, right = max(0, first - CONTEXT_LATENTS), min(total, last + CONTEXT_LATENTS)
            mel = self._up(self._attention(self._near(z, left, right), keys, values))
            pieces.append(mel[:, 2 * (first - left) : 2 * (last - left)])
        return torch.cat(pieces, dim=1).transpose(1, 2)

    def _near(self, z: Tensor, first: int, last: int) -> Tensor:
        """What the attention sees at the latents from ``first`` to ``last``."""
        left, right = max(0, first - CONTEXT_BEFORE), min(z.shape[1], last + CONTEXT_BEFORE)
        return self._before(self._first(z[:, left:right]))[:, first - left : last - left]

    def _up(self, x: Tensor) -> Tensor:
        x = self._after(x).clamp(-CLAMP, CLAMP)
        for level in self._levels:
            x = level(x)
        active = F.silu(x) if self._folds else mp_silu(x)
        return self._last(active) * self._std + self._mean


class _Block:
    """``ResidualBlock``; ``folds``: the constants of silu and sum are in the weights."""

    def __init__(self, block: ResidualBlock, kernel: PixelNormSilu, folds: bool) -> None:
        self._kernel, self._folds = kernel, folds
        self._first = _conv(block.conv1)
        self._second = _conv(block.conv2, ADDED / SILU_GAIN if folds else None)
        shortcut = block.nin_shortcut
        self._shortcut = None if shortcut is None else _conv(shortcut, KEPT if folds else None)

    def __call__(self, x: Tensor) -> Tensor:
        normed, active = (part.transpose(1, 2) for part in self._kernel(x.transpose(1, 2)))
        h = self._first(active)
        if not self._folds:
            kept = normed if self._shortcut is None else self._shortcut(normed)
            return mp_sum(kept, self._second(mp_silu(h)))
        out = self._second(F.silu(h, inplace=True))
        return out.add_(normed, alpha=KEPT) if self._shortcut is None else out.add_(self._shortcut(normed))


class _Attention:
    """``Attention`` of some tokens to all."""

    def __init__(self, attention: Attention) -> None:
        weight = attention.qkv.effective_weight().detach()[..., 0].unflatten(0, (-1, 3))  # channel * 3 + part
        self._query, self._others = Dense(weight[:, 0]), Dense(weight[:, 1:].transpose(0, 1).flatten(0, 1))
        self._out = _conv(attention.proj_out)

    def keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, N, C) of tokens (B, N, C)."""
        keys, values = (pixel_norm(part, dim=-1) for part in self._others(x).chunk(2, dim=-1))
        return keys, values

    def __call__(self, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        q, k, v = (part[:, None] for part in (pixel_norm(self._query(x), dim=-1), keys, values))
        return mp_sum(x, self._out(F.scaled_dot_product_attention(q, k, v)[:, 0]))


class _Level:
    """``Level`` with its change of rate: two frames from one are two convolutions of two taps."""

    def __init__(self, level: Level, kernel: PixelNormSilu, folds: bool) -> None:
        self._blocks = [_Block(block, kernel, folds) for block in _blocks(level)]
        self._even = self._odd = None
        if level.upsample is not None:
            taps = level.upsample.conv.effective_weight().detach()
            # Frame 2i sees i - 1, i, i and frame 2i + 1 sees i, i, i + 1.
            self._even = Dense(torch.cat((taps[..., 0], taps[..., 1] + taps[..., 2]), dim=1))
            self._odd = Dense(torch.cat((taps[..., 0] + taps[..., 1], taps[..., 2]), dim=1))

    def __call__(self, x: Tensor) -> Tensor:
        for block in self._blocks:
            x = block(x).clamp(-CLAMP, CLAMP)
        if self._even is None or self._odd is None:
            return x
        padded = F.pad(x, (0, 0, 1, 1))
        even = self._even(torch.cat((padded[:, :-2], x), dim=-1))
        odd = self._odd(torch.cat((x, padded[:, 2:]), dim=-1))
        return torch.stack((even, odd), dim=2).flatten(1, 2)


def _blocks(level: Level) -> list[ResidualBlock]:
    return [block for block in level.block if isinstance(block, ResidualBlock)]


def _conv(conv: MPConv1d, factor: Tensor | float | None = None) -> Callable[[Tensor], Tensor]:
    weight = conv.effective_weight().detach()
    if factor is not None:
        weight = weight * factor
    return Dense(weight[..., 0]) if weight.shape[-1] == 1 else Conv(weight)
