"""The flow network's weights, laid out once for the fast path; the modules keep theirs under the published names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..kernels.dense import Conv, Dense, Tile
from ..kernels.fastest import Fastest
from ..kernels.sets import Kernels
from ..layers.mlp import GatedConvMLP, GatedMLP
from .attention import HeadAttention, by_part
from .blocks import StreamBlock


def joined(*tensors: Tensor) -> Tensor:
    """The tensors one after the other along their first axis: a view where they lie so in memory, else a copy."""
    first, length = tensors[0].detach(), sum(t.shape[0] for t in tensors)
    step = first.stride(0) * first.element_size()
    expected = first.data_ptr()
    for tensor in tensors:
        if tensor.data_ptr() != expected or tensor.stride() != first.stride() or tensor.device != first.device:
            return torch.cat([t.detach() for t in tensors])
        expected += tensor.shape[0] * step
    if first.untyped_storage().data_ptr() != tensors[-1].untyped_storage().data_ptr():
        return torch.cat([t.detach() for t in tensors])
    return first.as_strided((length, *first.shape[1:]), first.stride())


class Maker:
    """Makes maps from weights for one set of kernels.

    Where the set has a convolution of its own, the first call with a shape measures it against the library's.
    """

    def __init__(self, kernels: Kernels, tile: Tile) -> None:
        self.kernels, self._tile = kernels, tile
        self._fastest = Fastest("Convolution")

    def __call__(self, weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
        """A linear map for a weight (N, K), a convolution over time for (O, C, kernel)."""
        if weight.ndim == 2:
            return Dense(weight, bias)
        library = Conv(weight, bias, tile=self._tile)
        if weight.shape[-1] != 3 or self.kernels.conv3 is None:
            return library
        flat = weight.detach().transpose(1, 2).flatten(1)  # a view where the taps lie outside of the channels
        own = partial(self.kernels.conv3, weight=flat, bias=None if bias is None else bias.detach())
        if weight.device.type != "cuda":
            return own

        def convolve(x: Tensor) -> Tensor:
            key = (*x.shape, weight.shape[0])
            name = self._fastest(key, {"own kernel": lambda: own(x), "library": lambda: library(x)}, x.device)
            return own(x) if name == "own kernel" else library(x)

        return convolve


class FastMLP:
    """``GatedMLP`` and ``GatedConvMLP`` with one joint first projection."""

    def __init__(self, mlp: GatedMLP | GatedConvMLP, make: Maker) -> None:
        self._swiglu = make.kernels.swiglu
        self._first = make(joined(mlp.w1.weight, mlp.w3.weight), None)
        self._second = make(mlp.w2.weight, None)

    def __call__(self, x: Tensor) -> Tensor:
        return self._second(self._swiglu(self._first(x)))


class FastStream:
    """One stream of one block. ``keys_only``: the form in the last joint block, without queries and output."""

    def __init__(self, block: StreamBlock, make: Maker) -> None:
        self.keys_only = block.attention_only
        attention: HeadAttention = block.attn
        self.heads = attention.heads
        self.q_weight, self.k_weight = attention.q_norm.weight.detach(), attention.k_norm.weight.detach()
        self._split = make.kernels.split_heads_into
        weight, bias = attention.qkv.weight.detach(), attention.qkv.bias.detach()
        self._interleaved = not attention.by_part
        width = weight.shape[1]
        if self._interleaved and (self.keys_only or weight.device.type == "cpu"):
            weight, bias, self._interleaved = by_part(weight), by_part(bias), False
        if self.keys_only:
            weight, bias = weight[width:], bias[width:]
        self._packed = Dense(weight, bias)
        if not self.keys_only:
            self.out = make(block.linear1.weight, block.linear1.bias)
            self.mlp = FastMLP(block.ffn, make)

    def attend_into(self, h: Tensor, rope: Tensor | None, q: Tensor | None, k: Tensor, v: Tensor, offset: int) -> None:
        """Heads of the modulated h (B, tokens, D) into the tokens from ``offset`` on of q, k, v (B, H, N, 64)."""
        q = None if self.keys_only else q
        self._split(self._packed(h), self.heads, self.q_weight, self.k_weight, rope, self._interleaved, q, k, v, offset)


def modulation(blocks: list[nn.Sequential]) -> Dense:
    """The linear maps of several adaLN modulations as one; SiLU comes before."""
    maps: list[Any] = [block[1] for block in blocks]
    return Dense(joined(*(m.weight for m in maps)), joined(*(m.bias for m in maps)))
