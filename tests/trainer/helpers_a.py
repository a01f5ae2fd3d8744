"""Made-up media files for the tests of scanning and checking."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from mmaudio_core.media.audio_out import save_audio
from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.media.mux import mux_audio

RATE_HZ = 8000


def tone(seconds: float, level: float = 0.5, rate_hz: int = RATE_HZ) -> torch.Tensor:
    """A 440 Hz sine float32 (N,)."""
    n = torch.arange(round(seconds * rate_hz))
    return level * torch.sin(2 * torch.pi * 440 * n / rate_hz)


def write_sound(path: Path, seconds: float = 8.0, level: float = 0.5) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return save_audio((tone(seconds, level), RATE_HZ), path)


def write_clip(path: Path, seconds: float = 8.0, sound_s: float | None = None) -> Path:
    """A tiny video of 5 frames per second with a tone of ``sound_s`` seconds; 0 is a video without a sound track."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = (np.full((16, 16, 3), 40 + i % 200, np.uint8) for i in range(round(5 * seconds)))
    write_silent_video(frames, 5, path)
    sound_s = seconds if sound_s is None else sound_s
    if sound_s:
        mux_audio(path, (tone(sound_s), RATE_HZ), path)
    return path
