"""Weights in the layout of torch's oneDNN, so that a CPU does not lay them out anew at every call.

These operators are what torch's own compiler emits; they are not public, so each is tried once before use and where one is
missing or gives something else the plain operator is used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

TRIAL_TOLERANCE = 1e-5


def packs(weight: Tensor) -> bool:
    """Whether a weight like this one is packed here: float32 on a CPU whose torch has working operators for it."""
    return weight.device.type == "cpu" and weight.dtype == torch.float32 and works()


def pack_linear(weight: Tensor, rows: int) -> Any:
    """``weight`` (N, K) packed for about ``rows`` rows at a time; other numbers of rows work too."""
    return _mkldnn()._reorder_linear_weight(weight.detach().contiguous(), rows)


def linear(x: Tensor, packed: Any, bias: Tensor | None) -> Tensor:
    """x (..., K) -> (..., N)."""
    return _mkldnn()._linear_pointwise(x, packed, bias, "none", [], "")


def pack_conv(weight: Tensor, dilation: int, padding: int, length: int) -> Any:
    """``weight`` (O, C, kernel) packed for inputs of about ``length``; other lengths work too."""
    flat = weight.detach()[:, :, None].contiguous(memory_format=torch.channels_last)
    native: Any = torch._C._nn
    return native.mkldnn_reorder_conv2d_weight(
        flat.to_mkldnn(), [0, padding], [1, 1], [1, dilation], 1, [1, weight.shape[1], 1, length]
    )


def conv(x: Tensor, packed: Any, bias: Tensor | None, dilation: int, padding: int) -> Tensor:
    """Channel-last x (B, T, C) -> (B, T', O)."""
    image = x.transpose(1, 2)[:, :, None]
    out = _mkldnn()._convolution_pointwise(image, packed, bias, [0, padding], [1, 1], [1, dilation], 1, "none", [], "")
    return out[:, :, 0].transpose(1, 2)


def _mkldnn() -> Any:
    return torch.ops.mkldnn


@lru_cache(maxsize=1)
def works() -> bool:
    """Whether this torch's packed operators are there and right."""
    if not torch.backends.mkldnn.is_available():
        return False
    generator = torch.Generator().manual_seed(0)
    with torch.device("cpu"), torch.no_grad():
        x = torch.randn(2, 17, 32, generator=generator)
        weight = torch.randn(48, 32, 3, generator=generator)
        bias = torch.randn(48, generator=generator)
        wanted_conv = F.conv1d(x.transpose(1, 2), weight, bias, padding=2, dilation=2).transpose(1, 2)
        tapped = weight[:, :, 1].contiguous()
        trials: tuple[tuple[Callable[[], Tensor], Tensor], ...] = (
            (lambda: linear(x, pack_linear(tapped, 64), bias), F.linear(x, tapped, bias)),
            (lambda: conv(x, pack_conv(weight, 2, 2, 100), bias, 2, 2), wanted_conv),
        )
        return all(_agrees(trial, wanted) for trial, wanted in trials)


def _agrees(trial: Callable[[], Tensor], wanted: Tensor) -> bool:
    try:
        got = trial()
    except Exception:  # whatever an operator that is not promised to us may raise
        return False
    return got.shape == wanted.shape and bool(torch.allclose(got, wanted, rtol=TRIAL_TOLERANCE, atol=1e-4))
