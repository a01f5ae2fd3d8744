"""Pixel norm and magnitude-preserving SiLU from one reading of the memory."""

# mypy: disallow-untyped-defs=False

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...devices import on_device_of
from ..pixel_norm import EPS, SILU_GAIN, check_pixel_norm
from .inference import check_inference


@triton.jit
def pixel_norm_silu_kernel(
    x, normed, active, channels, times, time_tiles, x_b, x_c, x_t, out_b, out_c, out_t,
    EPS: tl.constexpr, SILU_GAIN: tl.constexpr, CHANNELS: tl.constexpr, TIMES: tl.constexpr,
):  # fmt: skip
    """One program per sample and ``TIMES`` times; the second reading of ``x`` finds it in the cache."""
    sample = (tl.program_id(0) // time_tiles).to(tl.int64)
    time = (tl.program_id(0) % time_tiles).to(tl.int64) * TIMES + tl.arange(0, TIMES)
    squares = tl.zeros((CHANNELS, TIMES), tl.float32)
    for first in range(0, channels, CHANNELS):
        channel = (first + tl.arange(0, CHANNELS)).to(tl.int64)
        mask = (channel < channels)[:, None] & (time < times)[None, :]
        value = tl.load(x + sample * x_b + channel[:, None] * x_c + time[None, :] * x_t, mask=mask, other=0.0).to(tl.float32)
        squares += value * value
    divisor = EPS + tl.sqrt(tl.sum(squares, 0) / channels)
    for first in range(0, channels, CHANNELS):
        channel = (first + tl.arange(0, CHANNELS)).to(tl.int64)
        mask = (channel < channels)[:, None] & (time < times)[None, :]
        value = tl.load(x + sample * x_b + channel[:, None] * x_c + time[None, :] * x_t, mask=mask, other=0.0).to(tl.float32)
        value = value / divisor[None, :]
        to = sample * out_b + channel[:, None] * out_c + time[None, :] * out_t
        tl.store(normed + to, value.to(normed.dtype.element_ty), mask=mask)
        tl.store(active + to, (value * tl.sigmoid(value) / SILU_GAIN).to(active.dtype.element_ty), mask=mask)


def pixel_norm_silu(x: Tensor) -> tuple[Tensor, Tensor]:
    """See ``kernels.pixel_norm.pixel_norm_silu``.

    Raises:
        InputError: as the reference, and when a gradient is wanted or the dtype is none of float16, bfloat16 and float32.
    """
    check_pixel_norm(x)
    check_inference("pixel_norm_silu", x=x)
    batch, channels, times = x.shape
    normed, active = torch.empty_like(x), torch.empty_like(x)
    if x.numel():
        # Tiles are long where the memory is: over time, or over channels.
        block = (256, 8) if x.stride(2) <= x.stride(1) else (1024, 2)
        tiles = triton.cdiv(times, block[1])
        with on_device_of(x):
            pixel_norm_silu_kernel[(batch * tiles,)](
                x, normed, active, channels, times, tiles, *x.stride(), *normed.stride(),
                EPS=EPS, SILU_GAIN=SILU_GAIN, CHANNELS=block[0], TIMES=block[1], num_warps=4,
            )  # fmt: skip
    return normed, active
