"""Float frames to 8 bits on the calling thread alone, in pieces that stay in the processor's cache."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .resize import to_uint8

_PIECE = 1 << 17
"""Values per piece: half a megabyte of float32."""


def quantise(frame: Tensor) -> tuple[Tensor, float, float]:
    """Float RGB (3, H, W) on the CPU, in [0, 1] -> (what ``resize.to_uint8`` gives of it, its lowest and its highest value).

    torch's own element-wise operations would start a team of threads for each of several calling threads, and would go
    through memory once for each step. A NaN makes both values NaN.
    """
    if frame.dtype not in (torch.float16, torch.float32, torch.float64):  # such as bfloat16, which numpy lacks
        return to_uint8(frame), frame.amin().item(), frame.amax().item()
    values = frame.numpy()
    order = sorted(range(values.ndim), key=lambda axis: -values.strides[axis])
    values = values.transpose(order)  # as it lies in memory
    levels = np.empty(values.shape, np.uint8)
    step = max(1, _PIECE // max(1, values[0].size))
    scaled = np.empty((min(step, len(values)), *values.shape[1:]), np.float32)
    lows, highs = [], []
    with np.errstate(invalid="ignore", over="ignore"):
        for at in range(0, len(values), step):
            part = values[at : at + step]
            low, high = part.min(), part.max()
            lows.append(low)
            highs.append(high)
            levels[at : at + step] = _scaled(part, scaled[: len(part)], bool(low >= 0 and high <= 1))
    result = torch.from_numpy(levels.transpose(np.argsort(order)))
    return result, float(np.min(lows)), float(np.max(highs))


def _scaled(part: np.ndarray, out: np.ndarray, in_range: bool) -> np.ndarray:
    """``part`` in float32 times 255, rounded half to even, in ``out``."""
    if part.dtype == np.float32:
        np.multiply(part, np.float32(255.0), out=out)
    else:
        out[...] = part
        np.multiply(out, np.float32(255.0), out=out)
    np.rint(out, out=out)
    return out if in_range else np.clip(out, 0.0, 255.0, out=out)
