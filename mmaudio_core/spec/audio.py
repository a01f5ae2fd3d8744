"""The two audio formats of the published model (arXiv 2412.15322, section 3; spec section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import SpecError

LATENT_STRIDE = 2
"""Mel frames per latent token: the VAE halves time once."""


@dataclass(frozen=True)
class AudioSpec:
    """How sound becomes a mel spectrogram and a mel spectrogram becomes latent tokens.

    ``win`` equals ``n_fft`` (periodic Hann window); mel filters are Slaney's with Slaney normalisation.
    """

    name: str
    sample_rate_hz: int
    n_fft: int
    hop_samples: int
    mel_bins: int
    f_min_hz: float
    f_max_hz: float
    log: Literal["log10", "ln"]
    latent_dim: int

    @property
    def latent_rate_hz(self) -> float:
        """Latent tokens per second."""
        return self.sample_rate_hz / self.hop_samples / LATENT_STRIDE

    def samples_of_latents(self, latent_tokens: int) -> int:
        """N samples that the vocoder returns for ``latent_tokens`` L."""
        return latent_tokens * LATENT_STRIDE * self.hop_samples


AUDIO_16K = AudioSpec("16k", 16_000, 1024, 256, 80, 0.0, 8_000.0, "log10", 20)
AUDIO_44K = AudioSpec("44k", 44_100, 2048, 512, 128, 0.0, 22_050.0, "ln", 40)
AUDIO_SPECS: dict[str, AudioSpec] = {spec.name: spec for spec in (AUDIO_16K, AUDIO_44K)}


def audio_for_latent_dim(latent_dim: int) -> AudioSpec:
    """The format whose VAE has ``latent_dim`` channels (20: 16 kHz, 40: 44.1 kHz).

    Raises:
        SpecError: for any other width.
    """
    for spec in AUDIO_SPECS.values():
        if spec.latent_dim == latent_dim:
            return spec
    raise SpecError(f"A latent width of {latent_dim} belongs to no audio format; 20 means 16 kHz and 40 means 44.1 kHz.")


def audio_for_mel_bins(mel_bins: int) -> AudioSpec:
    """The format with ``mel_bins`` M (80: 16 kHz, 128: 44.1 kHz).

    Raises:
        SpecError: for any other number.
    """
    for spec in AUDIO_SPECS.values():
        if spec.mel_bins == mel_bins:
            return spec
    raise SpecError(f"{mel_bins} mel bins belong to no audio format; 80 means 16 kHz and 128 means 44.1 kHz.")
