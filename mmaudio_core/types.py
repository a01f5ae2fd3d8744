"""The frozen values that travel between stages.

Shape legend, used everywhere: B batch, L latent tokens, V visual tokens, S sync tokens, T text tokens, D width, H heads,
C channels, M mel bins, F mel frames, N samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from .spec.timing import SyncTiming


@dataclass(frozen=True)
class VideoFrames:
    """Frames picked for both visual encoders, resized, still 8-bit RGB.

    clip: uint8 (V, 3, 384, 384), at 8 fps.
    sync: uint8 (frames, 3, 224, 224), at 25 fps; ``None`` for a still image.
    duration_s: seconds that these frames cover; shorter than asked where the source ended early.
    source: a word for messages, such as the file's name.
    """

    clip: Tensor
    sync: Tensor | None
    duration_s: float
    source: str = "video"


@dataclass(frozen=True)
class Audio:
    """Sound: ``samples`` float32 (B, C, N) in [-1, 1] at ``sample_rate_hz``."""

    samples: Tensor
    sample_rate_hz: int

    @property
    def duration_s(self) -> float:
        return self.samples.shape[-1] / self.sample_rate_hz


@dataclass(frozen=True)
class Features:
    """What the encoders say of an input; ``None`` where an input is missing.

    clip: (B, V, clip width) L2-normalised, one per frame at 8 fps; a single token stands for a still image.
    sync: (B, S or more, sync width), 8 per 16-frame segment; what is beyond the S of the chosen timing is not used.
    text: (B, T, text width), L2-normalised last hidden states.
    duration_s: seconds that the visual features cover; ``None`` where they cover none (text, a still image).
    sync_timing: how sync tokens are laid over the sound (``spec.timing``); ``None`` leaves it to the network.
    """

    clip: Tensor | None = None
    sync: Tensor | None = None
    text: Tensor | None = None
    duration_s: float | None = None
    sync_timing: SyncTiming | None = None


@dataclass(frozen=True)
class Latents:
    """Un-normalised VAE latents ``tokens`` float32 (B, L, C) of ``duration_s`` seconds of sound."""

    tokens: Tensor
    duration_s: float


@dataclass(frozen=True)
class Mel:
    """Log-mel spectrogram ``values`` float32 (B, M, F) of ``duration_s`` seconds of sound."""

    values: Tensor
    duration_s: float
