"""Seconds to token counts (spec section 2). All arithmetic is float64, as in the published program."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import InputError
from .audio import LATENT_STRIDE, AudioSpec

CLIP_FPS = 8.0
SYNC_FPS = 25.0
SYNC_SEGMENT_FRAMES = 16
SYNC_SEGMENT_STRIDE = 8
SYNC_TOKENS_PER_SEGMENT = 8
MIN_DURATION_S = SYNC_SEGMENT_FRAMES / SYNC_FPS
"""0.64 s: one Synchformer segment. Anything shorter has no sync token."""


@dataclass(frozen=True)
class SequenceLengths:
    """Token counts of one clip: L latent, V visual, S sync tokens, for ``duration_s`` seconds."""

    duration_s: float
    latent: int
    clip: int
    sync: int


def clip_frames(duration_s: float) -> int:
    """Frames for CLIP, also V: floor(8 d)."""
    return int(CLIP_FPS * duration_s)


def sync_frames(duration_s: float) -> int:
    """Frames for Synchformer: floor(25 d)."""
    return int(SYNC_FPS * duration_s)


def sync_segments(frames: float) -> int:
    """Whole 16-frame segments of stride 8 within ``frames``; a last partial segment is dropped."""
    return max(0, math.floor((frames - SYNC_SEGMENT_FRAMES) / SYNC_SEGMENT_STRIDE) + 1)


def check_duration(duration_s: float) -> float:
    """``duration_s`` as a float.

    Raises:
        InputError: when it is not finite or shorter than one Synchformer segment (0.64 s).
    """
    duration_s = float(duration_s)
    if not math.isfinite(duration_s) or duration_s < MIN_DURATION_S:
        raise InputError(
            f"A duration of {duration_s:g} s was asked for; the model needs at least {MIN_DURATION_S:g} s "
            "(one segment of 16 frames at 25 fps). Use a longer clip or a longer duration."
        )
    return duration_s


def sequence_lengths(duration_s: float, audio: AudioSpec) -> SequenceLengths:
    """L = ceil(d * rate / hop / 2), V = floor(8 d), S = 8 * (floor((25 d - 16) / 8) + 1).

    Raises:
        InputError: for a duration below 0.64 s or not finite.
    """
    duration_s = check_duration(duration_s)
    latent = math.ceil(duration_s * audio.sample_rate_hz / audio.hop_samples / LATENT_STRIDE)
    sync = SYNC_TOKENS_PER_SEGMENT * sync_segments(SYNC_FPS * duration_s)
    return SequenceLengths(duration_s, latent, clip_frames(duration_s), sync)
