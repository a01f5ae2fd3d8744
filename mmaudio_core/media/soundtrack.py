"""The sound of a video, on the clock of its pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
import torch

from ..errors import MediaError
from ..types import Audio
from .clock import placed
from .opening import open_media, picture_streams
from .resample import resample
from .sound_blocks import SoundBlock, decode_sound
from .stamps import file_times

_JITTER_S = Fraction(1, 100)
"""Containers round their stamps (Matroska to 1 ms); a gap is what exceeds this. Lost packets are longer."""


def has_sound(path: str | os.PathLike[str]) -> bool:
    """Whether a file has a sound track; reads no more than its header.

    Raises:
        MediaError: not a readable media file.
        DependencyError: PyAV is missing.
    """
    with open_media(path, "media") as container:
        return bool(container.streams.audio)


def load_sound(path: str | os.PathLike[str], sample_rate_hz: int | None = None) -> Audio:
    """The first sound track of a file with all its channels, so that sample n is heard at n / rate seconds of the video.

    0 is where ``read_video`` and ``mux_audio`` have it. A track that starts later gets silence in front, one that starts
    earlier loses what comes before 0, and gaps are silent. A file without pictures starts with its first sample.

    sample_rate_hz: the rate to resample to; ``None`` keeps the file's.

    Returns:
        float32 (1, C, N) on the CPU, channels in FFmpeg's order: 5.1 is left, right, centre, bass, back left, back right.

    Raises:
        MediaError: not a readable file with sound, no sample of it decodes, or all of it lies before 0.
        InputError: a rate of 0 or less.
        DependencyError: PyAV or, where resampling is due, torchaudio is missing.
    """
    name = Path(path).name
    times = file_times(path, "audio")
    with open_media(path, "audio") as container:
        blocks = decode_sound(container, name)
        first = next(blocks)
        clock = times.clock(Fraction(first.samples.shape[1], first.sample_rate_hz), beside_pictures=True)
        timed = placed(chain([first], blocks), lambda block: block.start_s, lambda block: clock)
        pieces = _on_clock(timed, times.start if picture_streams(container) else None)
    if not sum(piece.shape[1] for piece in pieces):
        raise MediaError(f"The sound of {name} ends before its pictures begin, so none of it is heard. Use another sound file.")
    samples = torch.from_numpy(np.concatenate(pieces, axis=1))[None]
    rate_hz = first.sample_rate_hz
    if sample_rate_hz is None:
        return Audio(samples, rate_hz)
    return Audio(resample(samples, rate_hz, sample_rate_hz), sample_rate_hz)


def _on_clock(blocks: Iterable[tuple[SoundBlock, Fraction]], start: Fraction | None) -> list[np.ndarray]:
    """(C, n) pieces to be joined, the first of them heard at ``start`` on the clock of the times that come with ``blocks``.

    Within the rounding of stamps, and where they fall back or are missing, the count of samples is trusted more than they are.

    start: ``None`` for that of the first block.
    """
    pieces: list[np.ndarray] = []
    filled = 0
    at: int | None = None
    for block, time in blocks:
        channels, count = block.samples.shape
        start = time if start is None else start
        stamped = round((time - start) * block.sample_rate_hz)
        if at is None or (block.start_s is not None and stamped - at > _JITTER_S * block.sample_rate_hz):
            at = stamped
        if at > filled:
            pieces.append(np.zeros((channels, at - filled), np.float32))
            filled = at
        fresh = block.samples[:, filled - at :]
        pieces.append(fresh)
        filled += fresh.shape[1]
        at += count
    return pieces
