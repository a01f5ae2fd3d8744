"""Mel spectrograms as pictures."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..spec.audio import audio_for_mel_bins
from ..types import Mel

RANGE_DECADES = 4.0
"""Decades of magnitude from the darkest to the brightest colour: 80 dB."""
LEAST_TOP_DECADES = -1.0
"""The scale's top never falls below this magnitude, so that silence (1e-5) stays dark instead of showing its noise."""
RAMP_8BIT = ((6, 8, 20), (30, 32, 92), (32, 88, 144), (52, 150, 152), (160, 204, 112), (255, 246, 206))
RAMP_POSITIONS = (0.0, 0.14, 0.36, 0.58, 0.79, 1.0)
"""Where the colours of the ramp lie, in proportion to their lightness L*."""
_PX_PER_SECOND = 100.0
_DEFAULT_HEIGHT, _DEFAULT_WIDTHS, _MAX_PX = 256, (256, 2048), 16_384


def mel_picture(mel: Mel, height_px: int | None = None, width_px: int | None = None) -> Tensor:
    """Log-mel (B, M, F) -> pictures float32 (B, H, W, 3) in [0, 1] on the CPU, low tones at the bottom, time to the right.

    One scale for the batch: the loudest value is brightest, 80 dB below it is darkest; a mel of silence is all dark.
    M says whether the logarithm is to base 10 or e (``spec.audio``).

    height_px: H, by default 256 or M if that is more.
    width_px: W, by default 100 per second of sound, from 256 to 2048.

    Raises:
        InputError: another shape, M of no audio format, NaN or infinite values, a size outside 1 to 16384.
    """
    values = mel.values.detach().cpu().float()
    if values.ndim != 3 or 0 in values.shape:
        raise InputError(
            f"A mel of shape {tuple(values.shape)} was given for a picture; (batch, mel bins, frames), none 0, is needed."
        )
    if not bool(torch.isfinite(values).all()):
        raise InputError("The mel holds NaN or infinite values, so its generation went wrong; there is nothing to draw.")
    height = max(_DEFAULT_HEIGHT, values.shape[1]) if height_px is None else _checked_size("height_px", height_px)
    width = _default_width(mel.duration_s) if width_px is None else _checked_size("width_px", width_px)

    per_decade = 1.0 if audio_for_mel_bins(values.shape[1]).log == "log10" else math.log(10)
    decades = values / per_decade
    top = max(float(decades.max()), LEAST_TOP_DECADES)
    shares = ((decades - top) / RANGE_DECADES + 1).clamp(0, 1)
    resized = F.interpolate(shares.flip(1)[:, None], (height, width), mode="bilinear", antialias=True)[:, 0]
    return colour_ramp(resized)


def colour_ramp(shares: Tensor) -> Tensor:
    """float (...) in [0, 1] -> sRGB float32 (..., 3) in [0, 1], from near black to near white with rising luminance."""
    x = shares.numpy()
    colours = np.asarray(RAMP_8BIT, dtype=np.float64) / 255
    picture = np.empty((*x.shape, 3), dtype=np.float32)
    for channel in range(3):
        picture[..., channel] = np.interp(x, RAMP_POSITIONS, colours[:, channel])
    return torch.from_numpy(picture)


def _default_width(duration_s: float) -> int:
    if not math.isfinite(duration_s) or duration_s <= 0:
        raise InputError(f"The mel says that it lasts {duration_s} s; give a duration above 0, or width_px.")
    return min(max(round(_PX_PER_SECOND * duration_s), _DEFAULT_WIDTHS[0]), _DEFAULT_WIDTHS[1])


def _checked_size(name: str, size_px: int) -> int:
    if isinstance(size_px, bool) or not isinstance(size_px, int) or not 1 <= size_px <= _MAX_PX:
        raise InputError(f"{name} is {size_px!r}; give a whole number of pixels from 1 to {_MAX_PX}, or None.")
    return size_px
