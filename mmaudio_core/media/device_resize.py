"""The same resizing on any device, bit for bit what the CPU's 8-bit kernel gives.

That kernel is whole-number arithmetic: filter weights scaled to 16 bits, sums in 32 bits, rounded to 8 bits after each axis.
Here a pass is a matrix product. The weights are split into two bytes, so that every partial sum is a whole number below 2^24,
which float32 holds exactly in any order of summation, with TF32 as well.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from .resize import CLIP_SIZE, SYNC_SIZE, sync_geometry

_SUPPORT = 2.0
"""Half the width of the cubic filter, in source pixels, or in target pixels where the picture shrinks."""
_MAX_PRECISION = 22
"""Bits by which the kernel scales its weights at most."""
_MAX_WEIGHT = 1 << 15


class DeviceResizer:
    """Resizes frames on ``device``; the tables of a source size are made once and stay there.

    Raises:
        RuntimeError: torch's own, when the device is missing or full.
    """

    def __init__(self, device: torch.device | str) -> None:
        self.device = torch.device(device)
        self._tables: dict[tuple[int, int, int, int], tuple[Tensor, Tensor, int]] = {}

    def clip_frame(self, frames: Tensor, size: int = CLIP_SIZE) -> Tensor:
        """uint8 (..., 3, H, W), any device -> (..., 3, size, size) on the CPU, as ``resize.clip_frame``."""
        return self._resize(frames, (size, 0, size), (size, 0, size))

    def sync_frame(self, frames: Tensor, size: int = SYNC_SIZE) -> Tensor:
        """uint8 (..., 3, H, W), any device -> (..., 3, size, size) on the CPU, as ``resize.sync_frame``.

        What the centre crop would drop is not computed.
        """
        height, width, top, left = sync_geometry(frames.shape[-2], frames.shape[-1], size)
        return self._resize(frames, (height, top, size), (width, left, size))

    def _resize(self, frames: Tensor, rows: tuple[int, int, int], columns: tuple[int, int, int]) -> Tensor:
        """rows, columns: (size of the whole resized axis, first kept, number kept). Columns go first, as in the kernel."""
        pixels = frames.to(self.device)
        pixels = self._pass(pixels, *columns)
        return self._pass(pixels.mT, *rows).mT.cpu()

    def _pass(self, pixels: Tensor, size: int, first: int, count: int) -> Tensor:
        """uint8 (..., X) -> uint8 (..., count)."""
        source = pixels.shape[-1]
        if source == size:
            return pixels[..., first : first + count]
        key = (source, size, first, count)
        if key not in self._tables:
            weights, precision = filter_table(source, size)
            kept = weights[:, first : first + count]
            low = (kept + 128).remainder(256) - 128
            high = (kept - low) // 256
            self._tables[key] = (low.float().to(self.device), high.float().to(self.device), precision)
        low, high, precision = self._tables[key]
        values = pixels.float()
        total = (values @ high).int() * 256 + (values @ low).int()
        return ((total + (1 << (precision - 1))) >> precision).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=8)
def filter_table(source: int, target: int) -> tuple[Tensor, int]:
    """(int32 (source, target) weights of the antialiased cubic filter, a = -0.5, times 2^p; p).

    p is the largest one at which no weight leaves 16 bits.
    """
    scale = source / target
    stretch = max(scale, 1.0)
    centres = scale * (torch.arange(target, dtype=torch.float64) + 0.5)
    first = (centres - _SUPPORT * stretch + 0.5).long().clamp_min(0)
    end = (centres + _SUPPORT * stretch + 0.5).long().clamp_max(source)
    taps = 2 * math.ceil(_SUPPORT * stretch) + 1
    at = first + torch.arange(taps)[:, None]
    weights = _cubic((at - centres + 0.5) * (1.0 / stretch)).masked_fill_(at >= end, 0.0)
    total = torch.zeros(target, dtype=torch.float64)
    for row in weights:  # summed one after the other, as the kernel does
        total += row
    weights /= total
    largest = weights.max().item()
    precision = 0
    while precision < _MAX_PRECISION and int(0.5 + largest * (1 << (precision + 1))) < _MAX_WEIGHT:
        precision += 1
    scaled = weights * (1 << precision)
    whole = torch.where(scaled < 0, scaled - 0.5, scaled + 0.5).to(torch.int32)
    table = torch.zeros(source + taps, target, dtype=torch.int32)  # windows at the far edge reach beyond it, with weight 0
    table.scatter_(0, at, whole)
    return table[:source].contiguous(), precision


def _cubic(x: Tensor, a: float = -0.5) -> Tensor:
    x = x.abs()
    inner = ((a + 2) * x - (a + 3)) * x * x + 1
    outer = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x < 1, inner, torch.where(x < 2, outer, torch.zeros_like(x)))
