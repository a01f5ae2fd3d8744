"""Resizing as both visual encoders were trained with it (spec section 4): bicubic, antialiased, on the 8-bit RGB frame.

The rounding to 8 bits is part of what the encoders see, so it is never skipped. The 8-bit kernel exists on the CPU only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CLIP_SIZE = 384
SYNC_SIZE = 224


def resize_bicubic(frames: Tensor, height: int, width: int) -> Tensor:
    """uint8 RGB (..., 3, H, W) -> uint8 (..., 3, height, width), bicubic with antialiasing; aspect as the caller says."""
    if frames.shape[-2:] == (height, width):
        return frames
    batch = frames.reshape(-1, *frames.shape[-3:]) if frames.ndim != 4 else frames
    resized = F.interpolate(batch, size=(height, width), mode="bicubic", antialias=True, align_corners=False)
    return resized.reshape(*frames.shape[:-2], height, width)


def clip_frame(frame: Tensor, size: int = CLIP_SIZE) -> Tensor:
    """uint8 (..., 3, H, W) -> (..., 3, size, size) for CLIP; the aspect is not kept (spec section 4)."""
    return resize_bicubic(frame, size, size)


def sync_frame(frame: Tensor, size: int = SYNC_SIZE) -> Tensor:
    """uint8 (..., 3, H, W) -> (..., 3, size, size) for Synchformer: shorter side to ``size``, centre crop (spec section 4).

    The longer side becomes int(size * long / short).
    """
    height, width = frame.shape[-2:]
    short, long = min(height, width), max(height, width)
    longer = int(size * long / short)
    new_height, new_width = (size, longer) if height <= width else (longer, size)
    resized = resize_bicubic(frame, new_height, new_width)
    # Python's round: half to even, as in the published program's centre crop.
    top = round((new_height - size) / 2.0)
    left = round((new_width - size) / 2.0)
    return resized[..., top : top + size, left : left + size]


def to_uint8(frame: Tensor) -> Tensor:
    """Float RGB in [0, 1] -> uint8, rounded to the nearest level and clamped; uint8 passes through."""
    if frame.dtype == torch.uint8:
        return frame
    return (frame.to(torch.float32) * 255.0).round_().clamp_(0.0, 255.0).to(torch.uint8)
