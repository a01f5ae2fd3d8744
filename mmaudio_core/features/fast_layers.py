"""What the fast paths of both visual towers share. They read the modules' own weights; the modules stay the reference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.dense import Dense
from ..kernels.quick_gelu import SHARPNESS, linear_quick_gelu
from ..kernels.sets import Kernels

PIXEL_MIDDLE = 128
"""Pixels enter as (u - 128) / 128: exact in every floating format, bfloat16 among them, and centred, so that less cancels."""


class Linear:
    """A module's linear map. Packed for the CPU if ``pack``, a copy; else the weights are read at every call, so that a host
    can move them and get their memory back."""

    def __init__(self, module: nn.Module, pack: bool, weight: str = "weight", bias: str = "bias") -> None:
        self._module, self._names = module, (weight, bias)
        self._packed = Dense(*self.tensors()) if pack else None

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Weight (N, K) and bias (N,) as they are now."""
        return getattr(self._module, self._names[0]), getattr(self._module, self._names[1])

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, *self.tensors()) if self._packed is None else self._packed(x)


class MLP:
    """Linear, QuickGELU or exact GELU, Linear.

    QuickGELU is SiLU between two scalings: y sigmoid(s y) = silu(s y) / s. Packed weights take the scalings in.
    """

    def __init__(self, first: nn.Linear, second: nn.Linear, quick: bool, kernels: Kernels, pack: bool) -> None:
        self._first: Linear | Dense = Linear(first, pack and not quick)
        self._second: Linear | Dense = Linear(second, pack and not quick)
        self._quick, self._scaled = quick, quick and pack
        self._kernel = None if kernels.linear_quick_gelu is linear_quick_gelu else kernels.linear_quick_gelu
        if self._scaled:
            self._first = Dense(first.weight.detach() * SHARPNESS, first.bias.detach() * SHARPNESS)
            self._second = Dense(second.weight.detach() / SHARPNESS, second.bias)

    def __call__(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D)."""
        if self._quick and not self._scaled and self._kernel is not None and isinstance(self._first, Linear):
            return self._second(self._kernel(x, *self._first.tensors()))
        y = self._first(x)
        if not self._quick:
            return self._second(torch.ops.aten.gelu_(y))
        if self._scaled:
            return self._second(F.silu(y, inplace=True))
        return self._second(F.silu(y.mul_(SHARPNESS), inplace=True).mul_(1 / SHARPNESS))


class OneQuery:
    """Multi-head attention (in_proj_weight, in_proj_bias, out_proj) of one query to many tokens, in a few small products.

    A head's score is q . (K x + b) = (q K) . x + a constant that softmax does not see, and its output is V (sum of w x) + b,
    since the weights w add up to one. So keys and values are never computed: each head looks at the tokens themselves.
    """

    def __init__(self, attention: Any, heads: int) -> None:
        self._attention, self._heads = attention, heads

    def queries(self, x: Tensor) -> Tensor:
        """What each head looks for: tokens (B, D) -> (B, H, D)."""
        weight, bias = self._attention.in_proj_weight, self._attention.in_proj_bias
        q_weight, k_weight, _ = weight.to(x.dtype).chunk(3)
        q = F.linear(x, q_weight, bias.to(x.dtype).chunk(3)[0]).unflatten(-1, (self._heads, -1))
        return torch.einsum("bhd,hdw->bhw", q, k_weight.unflatten(0, (self._heads, -1)))

    def attend(self, queries: Tensor, tokens: Tensor) -> Tensor:
        """queries (B, H, D) or (1, H, D), tokens (B, N, D) -> (B, D), output projection included."""
        one_head = tokens[:, None]
        queries = queries[:, None].expand(tokens.shape[0], -1, -1, -1)
        scale = (tokens.shape[-1] // self._heads) ** -0.5
        pooled = F.scaled_dot_product_attention(queries, one_head, one_head, scale=scale)[:, 0]
        v_weight = self._attention.in_proj_weight.chunk(3)[2]
        values = torch.einsum("bhw,hdw->bhd", pooled, v_weight.unflatten(0, (self._heads, -1))).flatten(1)
        out: Tensor = self._attention.out_proj(values + self._attention.in_proj_bias.chunk(3)[2])
        return out


class PatchWeights:
    """A patch embedding's convolution, whose stride is its kernel, as a linear map of flattened patches.

    weight: (D, 3 * taps), channels slowest. offset: (D,), in the wide dtype, to be added to the map's output.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, pixels: bool, mean: Sequence[float], std: Sequence[float]) -> None:
        dtype = wide(weight)
        flat = weight.detach().to(dtype).flatten(2)
        self.offset = flat.new_zeros(flat.shape[0]) if bias is None else bias.detach().to(dtype)
        if pixels:  # (u / 255 - mean) / std = scale (u - 128) / 128 + shift
            means, stds = flat.new_tensor(mean), flat.new_tensor(std)
            shift = (PIXEL_MIDDLE / 255 - means) / stds
            self.offset = self.offset + (flat.sum(2) * shift).sum(1)
            flat = flat * (PIXEL_MIDDLE / 255 / stds)[:, None]
        self._linear = Dense(flat.flatten(1).to(weight.dtype)) if pixels else None
        self._weight = weight  # of which the map of normalised pixels is a view

    def __call__(self, patches: Tensor) -> Tensor:
        """(..., 3 * taps) pixels uint8, or normalised, as said at first -> (..., D) without the offset."""
        x = patches.to(self._weight.dtype)
        if self._linear is None:
            return F.linear(x, self._weight.flatten(1))
        return self._linear(x.sub_(PIXEL_MIDDLE).mul_(1 / PIXEL_MIDDLE))


def wide(tensor: Tensor) -> torch.dtype:
    """The dtype that weights are combined in before they are rounded once."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64
