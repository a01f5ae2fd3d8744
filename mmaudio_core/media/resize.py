"""Resizing as both visual encoders were trained with it (spec section 4): bicubic, antialiased, on the 8-bit RGB frame.

The rounding to 8 bits is part of what the encoders see, so it is never skipped. The 8-bit kernel exists on the CPU only;
``device_resize`` gives the same pixels on other devices.
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
    new_height, new_width, top, left = sync_geometry(frame.shape[-2], frame.shape[-1], size)
    resized = resize_bicubic(frame, new_height, new_width)
    return resized[..., top : top + size, left : left + size]


def sync_geometry(height: int, width: int, size: int = SYNC_SIZE) -> tuple[int, int, int, int]:
    """(height, width) after resizing and (top, left) of the ``size`` x ``size`` crop out of it."""
    longer = int(size * max(height, width) / min(height, width))
    new_height, new_width = (size, longer) if height <= width else (longer, size)
    # Python's round: half to even, as in the published program's centre crop.
    return new_height, new_width, round((new_height - size) / 2.0), round((new_width - size) / 2.0)


def to_uint8(frame: Tensor) -> Tensor:
    """Float RGB in [0, 1] -> uint8, rounded to the nearest level and clamped; uint8 passes through."""
    if frame.dtype == torch.uint8:
        return frame
    return (frame.to(torch.float32) * 255.0).round_().clamp_(0.0, 255.0).to(torch.uint8)
