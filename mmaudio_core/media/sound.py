"""Checked samples on their way into an encoder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..errors import MediaError
from ..types import Audio
from .opening import import_av

Sound: TypeAlias = Audio | tuple[Tensor | np.ndarray, int]
"""An ``Audio`` of batch 1, or (samples (N,), (C, N) or (1, C, N), rate in Hz)."""
_BLOCK_SAMPLES = 1 << 16
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "quad", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
_MOST_PLANES = 7
"""PyAV crashes on planar frames of 8 channels and more."""


def checked_samples(sound: Sound) -> tuple[np.ndarray, int]:
    """float64 (C, N) within [-1, 1] and the rate in Hz; samples beyond are clamped.

    Raises:
        MediaError: more than one clip, not one to eight channels, no samples, NaN or infinite samples, a rate of 0 or less.
    """
    samples, rate_hz = (sound.samples, sound.sample_rate_hz) if isinstance(sound, Audio) else sound
    values = torch.as_tensor(samples).detach().cpu().to(torch.float64)
    if values.ndim == 3:
        if values.shape[0] != 1:
            raise MediaError(f"The audio is a batch of {values.shape[0]} clips; a file takes one. Write them one by one.")
        values = values[0]
    if values.ndim == 1:
        values = values[None]
    if values.ndim != 2 or values.shape[0] not in _LAYOUTS:
        raise MediaError(f"The audio has the shape {tuple(samples.shape)}; (N,), (1 to 8, N) or (1, 1 to 8, N) is needed.")
    if values.shape[1] == 0:
        raise MediaError("The audio holds no samples; there is nothing to write.")
    if isinstance(rate_hz, bool) or int(rate_hz) != rate_hz or rate_hz <= 0:
        raise MediaError(f"A sample rate of {rate_hz} Hz was given; a whole number above 0 is needed.")
    if not bool(torch.isfinite(values).all()):
        raise MediaError("The audio holds NaN or infinite samples, so its generation went wrong; nothing was written.")
    return values.clamp_(-1.0, 1.0).numpy(), int(rate_hz)


def layout_of(samples: np.ndarray) -> str:
    """FFmpeg's name for the channel layout of (C, N), whose channels are in FFmpeg's order, as ``load_sound`` has them."""
    return _LAYOUTS[samples.shape[0]]


def quantise_24(samples: np.ndarray) -> np.ndarray:
    """float (C, N) -> int32 (C, N), 24-bit values in the upper bits, where FFmpeg's encoders expect them."""
    levels = np.clip(np.rint(samples * (1 << 23)), -(1 << 23), (1 << 23) - 1)
    return levels.astype(np.int32) << 8


def audio_frames(samples: np.ndarray, rate_hz: int, block_samples: int = _BLOCK_SAMPLES) -> Iterator[Any]:
    """PyAV frames of (C, N): packed s32 for int32, fltp or flt for float32; pts count samples from 0."""
    av = import_av()
    layout = layout_of(samples)
    for start in range(0, samples.shape[1], block_samples):
        block = samples[:, start : start + block_samples]
        whole = samples.dtype == np.int32
        if whole or samples.shape[0] > _MOST_PLANES:
            packed = np.ascontiguousarray(block.T).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(packed, format="s32" if whole else "flt", layout=layout)
        else:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(block, dtype=np.float32), format="fltp", layout=layout)
        frame.sample_rate = rate_hz
        frame.pts = start
        yield frame
