"""Sound files to mono samples, and changes of sample rate (spec section 6)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import DependencyError, InputError
from .opening import open_media
from .sound_blocks import decode_sound

_KAISER = {"lowpass_filter_width": 64, "rolloff": 0.9475937167399596, "beta": 14.769656459379492}


def resample(samples: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """float (..., N) at ``from_hz`` -> (..., ceil(N to_hz / from_hz)) at ``to_hz``, Kaiser-windowed sinc (spec section 6).

    Raises:
        InputError: a rate of 0 or less.
        DependencyError: torchaudio is missing or does not fit this torch.
    """
    if from_hz <= 0 or to_hz <= 0:
        raise InputError(f"Resampling from {from_hz} Hz to {to_hz} Hz was asked for; both rates must be above 0.")
    if from_hz == to_hz:
        return samples
    try:
        from torchaudio.functional import resample as kaiser_resample
    except Exception as error:  # a torchaudio built for another torch fails with OSError or RuntimeError, not ImportError
        raise DependencyError(
            f"Resampling needs a torchaudio that fits torch {torch.__version__}: pip install torchaudio. ({error})"
        ) from error
    return kaiser_resample(samples, from_hz, to_hz, resampling_method="sinc_interp_kaiser", **_KAISER)


def load_audio(path: str | os.PathLike[str], sample_rate_hz: int | None = None) -> tuple[Tensor, int]:
    """The first sound track of a file (a video's too), channels averaged to mono: float32 (N,) and its rate in Hz.

    sample_rate_hz: the rate to resample to; ``None`` keeps the file's.

    Raises:
        MediaError: not a readable file with sound, or no sample of it decodes.
        DependencyError: PyAV or, where resampling is due, torchaudio is missing.
    """
    with open_media(path, "audio") as container:
        blocks = [(block.samples.mean(axis=0), block.sample_rate_hz) for block in decode_sound(container, Path(path).name)]
    samples, rate_hz = torch.from_numpy(np.concatenate([mono for mono, _ in blocks])), blocks[0][1]
    if sample_rate_hz is None:
        return samples, rate_hz
    return resample(samples, rate_hz, sample_rate_hz), sample_rate_hz
