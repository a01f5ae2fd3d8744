"""A clip to look at: frames, and below them spectrograms with marks at the times of the strikes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from mmaudio_core.autoencoder.mel import MelAnalysis
from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.media.resample import resample
from mmaudio_core.media.spectrogram import mel_picture
from mmaudio_core.spec.audio import AUDIO_16K
from mmaudio_core.types import Mel

from ..world import FPS, WorldClip

WIDTH, SPECTROGRAM_HEIGHT, STRIP_FRAMES, GAP = 896, 160, 8, 4
MARK, PAPER = (255, 92, 60), (255, 255, 255)


def clip_picture(clip: WorldClip, sounds: Sequence[tuple[np.ndarray, int]]) -> np.ndarray:
    """(H, WIDTH, 3) uint8: STRIP_FRAMES frames, then ``sounds`` on the same axis of time, with a mark at every strike.

    sounds: (samples (N,), sample_rate_hz).
    """
    side = WIDTH // STRIP_FRAMES
    times = (np.arange(STRIP_FRAMES) + 0.5) * len(clip.frames) / STRIP_FRAMES
    rows = np.linspace(0, clip.frames.shape[1] - 1, side).astype(int)
    strip = np.concatenate([clip.frames[int(k)][rows][:, rows] for k in times], axis=1)
    seconds = len(clip.frames) / FPS
    parts = [strip]
    for samples, rate_hz in sounds:
        parts += [_marks(clip, seconds), _spectrogram(samples, rate_hz, seconds), np.full((GAP, WIDTH, 3), PAPER, np.uint8)]
    return np.concatenate(parts[:-1] if sounds else parts, axis=0)


def write_picture(picture: np.ndarray, path: Path) -> Path:
    """The picture as PNG; its height is even."""
    even = picture[: picture.shape[0] // 2 * 2]
    return write_silent_video([even], 1, path, codec="png", pix_fmt="rgb24")


def _marks(clip: WorldClip, seconds: float) -> np.ndarray:
    """A band with a mark at every strike, wide where it is hard."""
    out = np.full((12, WIDTH, 3), PAPER, np.uint8)
    for event in clip.events:
        if event.kind == "strike":
            middle = round(event.time_s / seconds * WIDTH)
            half = 1 + round(2 * event.strength)
            out[:, max(middle - half, 0) : middle + half] = MARK
    return out


def _spectrogram(samples: np.ndarray, rate_hz: int, seconds: float) -> np.ndarray:
    wave = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))[None]
    wave = resample(wave, rate_hz, AUDIO_16K.sample_rate_hz)[:, : round(seconds * AUDIO_16K.sample_rate_hz)]
    mel = Mel(MelAnalysis(AUDIO_16K)(wave), seconds)
    picture = mel_picture(mel, SPECTROGRAM_HEIGHT, WIDTH)[0].numpy()
    return np.asarray(np.rint(picture * 255), dtype=np.uint8)
