"""AUDIO of ComfyUI to the core's Audio and back."""

from __future__ import annotations

from typing import Any

import torch

from ...mmaudio_core.errors import InputError
from ...mmaudio_core.types import Audio


def to_audio(audio: Any) -> Audio:
    """AUDIO, a mapping with "waveform" (B, C, N) and "sample_rate", as the core's value.

    Raises:
        InputError: when it is missing, empty or of another shape.
    """
    if audio is None:
        raise InputError("There is no sound (the video may be silent); connect a node that gives AUDIO.")
    waveform, rate_hz = audio["waveform"], int(audio["sample_rate"])
    if waveform.ndim != 3 or not waveform.numel():
        raise InputError(f"The sound has shape {tuple(waveform.shape)}; (batch, channels, samples) is needed, with samples.")
    if waveform.dtype == torch.int16:
        # ComfyUI 0.3.64 hands out 16-bit sound of videos as it lies in the file, channels interleaved.
        waveform = waveform.float() / 32768
    return Audio(waveform.float().cpu(), rate_hz)


def to_host(audio: Audio) -> dict[str, Any]:
    """The core's value as AUDIO."""
    return {"waveform": audio.samples, "sample_rate": audio.sample_rate_hz}
