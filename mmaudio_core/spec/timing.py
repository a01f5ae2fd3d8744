"""Seconds to token counts (spec section 2). All arithmetic is float64, as in the published program."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..errors import InputError
from .audio import AUDIO_SPECS, LATENT_STRIDE, AudioSpec

CLIP_FPS = 8.0
SYNC_FPS = 25.0
SYNC_SEGMENT_FRAMES = 16
SYNC_SEGMENT_STRIDE = 8
SYNC_TOKENS_PER_SEGMENT = 8
MIN_DURATION_S = SYNC_SEGMENT_FRAMES / SYNC_FPS
"""0.64 s: one Synchformer segment. Anything shorter has no sync token."""
STEADY_DURATION_S = 8.0
"""What the published networks were trained on: the clips whose pace of sync tokens "steady" keeps."""
SyncTiming = Literal["stretched", "steady"]
SYNC_TIMINGS: tuple[SyncTiming, ...] = ("stretched", "steady")
"""How S sync tokens are laid over L latent tokens; see ``sequence_lengths``. The published way first."""


@dataclass(frozen=True)
class SequenceLengths:
    """Token counts of one clip: L latent, V visual, S sync tokens, for ``duration_s`` seconds."""

    duration_s: float
    latent: int
    clip: int
    sync: int
    sync_timing: SyncTiming = "stretched"


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


def check_sync_timing(sync_timing: str | None) -> None:
    """Raises InputError for anything but a timing, or None, which leaves it to the network."""
    if sync_timing is not None and sync_timing not in SYNC_TIMINGS:
        raise InputError(f"The sync timing {sync_timing!r} is unknown; use {' or '.join(SYNC_TIMINGS)}.")


def sequence_lengths(duration_s: float, audio: AudioSpec, sync_timing: SyncTiming = "stretched") -> SequenceLengths:
    """L = ceil(d * rate / hop / 2), V = floor(8 d), S = 8 * (floor((25 d - 16) / 8) + 1).

    "stretched", as published, lays the S tokens over all of L whatever the duration. The segments overlap by half, so their
    number does not grow in proportion to d, and a token stands for another instant than in the 8 s that the networks were
    trained on: at 4 s it comes 9 % later. "steady" gives every latent token the sync token of the same number that it has in
    8 s, and S is what that needs, in whole segments; at 8 s the two are the same.

    Raises:
        InputError: for a duration below 0.64 s or not finite.
    """
    duration_s = check_duration(duration_s)
    latent = math.ceil(duration_s * audio.sample_rate_hz / audio.hop_samples / LATENT_STRIDE)
    segments = sync_segments(SYNC_FPS * duration_s)
    if sync_timing == "steady":
        tokens, of = steady_pace(audio)
        segments = -(-latent * tokens // (of * SYNC_TOKENS_PER_SEGMENT))
    return SequenceLengths(duration_s, latent, clip_frames(duration_s), SYNC_TOKENS_PER_SEGMENT * segments, sync_timing)


def steady_pace(audio: AudioSpec) -> tuple[int, int]:
    """(S, L) of ``STEADY_DURATION_S``: (192, 250) at 16 kHz, (192, 345) at 44.1 kHz."""
    published = sequence_lengths(STEADY_DURATION_S, audio)
    return published.sync, published.latent


def segments_to_encode(duration_s: float) -> int:
    """Synchformer segments that serve either timing and every audio format."""
    lengths = [sequence_lengths(duration_s, audio, timing) for audio in AUDIO_SPECS.values() for timing in SYNC_TIMINGS]
    return max(each.sync for each in lengths) // SYNC_TOKENS_PER_SEGMENT


def segment_frames(segments: int) -> int:
    """Frames that so many segments cover: 16 for the first, 8 more for each further one."""
    return SYNC_SEGMENT_STRIDE * (segments - 1) + SYNC_SEGMENT_FRAMES
