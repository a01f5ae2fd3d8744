"""The strikes of a clip, and what is heard right after each of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmaudio_core.autoencoder.mel import MelAnalysis
from mmaudio_core.spec.audio import AUDIO_16K

from ..world import Event, WorldClip

PEAK = 0.95
"""Of every sound before it is judged: what training does to its sounds, so a model cannot know how loud a clip was."""
LEAD_FRAMES, PATCH_FRAMES = 4, 29
"""Mel frames of 16 ms: a patch begins 64 ms before the strike, where it shows what rings already, and ends 0.4 s after it."""
JITTER_FRAMES, EDGE_FRAMES = 3, 2
"""Around a patch: room to shift it by 48 ms, and frames in which the analysis sees beyond the end."""
LOUDNESS_S = 0.1
_SILENCE = 1e-5
"""Levels below count as this, -100 dB."""


def strikes_of(clip: WorldClip) -> tuple[Event, ...]:
    """What strikes in a clip, in order of time."""
    return tuple(event for event in clip.events if event.kind == "strike")


def at_peak(samples: Tensor) -> Tensor:
    """(N,) scaled to the largest sample PEAK; silence stays silence."""
    return samples * (PEAK / samples.abs().max().clamp(min=_SILENCE))


def mel_patches(samples: Tensor, times_s: Sequence[float]) -> Tensor:
    """(N,) at 16 kHz -> log10-mel (strikes, 80, PATCH_FRAMES + 2 JITTER_FRAMES), the patch of each time in the middle."""
    hop, rate_hz = AUDIO_16K.hop_samples, AUDIO_16K.sample_rate_hz
    before = (LEAD_FRAMES + JITTER_FRAMES + EDGE_FRAMES) * hop
    length = (PATCH_FRAMES + 2 * (JITTER_FRAMES + EDGE_FRAMES)) * hop
    padded = F.pad(samples.float(), (before, length))
    firsts = [min(round(time_s * rate_hz), len(samples)) for time_s in times_s]
    if not firsts:
        return torch.empty(0, AUDIO_16K.mel_bins, PATCH_FRAMES + 2 * JITTER_FRAMES)
    mel: Tensor = MelAnalysis(AUDIO_16K)(torch.stack([padded[first : first + length] for first in firsts]))
    return mel[..., EDGE_FRAMES:-EDGE_FRAMES]


def loudness_db(samples: Tensor, sample_rate_hz: int, times_s: Sequence[float]) -> Tensor:
    """(N,) -> (strikes,): root mean square of the LOUDNESS_S from each time on, in dB of full scale, -100 or more."""
    length = round(LOUDNESS_S * sample_rate_hz)
    padded = F.pad(samples.double(), (0, length))
    firsts = [min(round(time_s * sample_rate_hz), len(samples)) for time_s in times_s]
    levels = [padded[first : first + length].square().mean().sqrt() for first in firsts]
    return 20 * torch.log10(torch.stack(levels).clamp(min=_SILENCE)) if levels else torch.empty(0, dtype=torch.float64)
