"""The mel VAE and the vocoder of one sample rate as one module."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...mmaudio_core.errors import InputError, WeightsError
from ...mmaudio_core.media.resample import resample
from ...mmaudio_core.pipeline.memory import decode_bytes, vae_bytes
from ...mmaudio_core.pipeline.sound import decode_latents, encode_audio, vocode_mel
from ...mmaudio_core.types import Audio, Latents, Mel
from ...mmaudio_core.weights.build import load_part


class SoundModule(nn.Module):
    """``vae`` and ``vocoder`` of one format, with what both ways need."""

    def __init__(self, vae: Any, vocoder: Any) -> None:
        super().__init__()
        self.vae, self.vocoder = vae, vocoder
        self.spec = vae.spec.audio

    def decode(self, latents: Latents, progress: Any = None) -> tuple[Mel, Audio]:
        """Latents (B, L, C) -> log-mel and sound, cut to the duration.

        Raises:
            InputError: for latents of another sample rate.
        """
        spec = self.spec
        if latents.tokens.shape[-1] != spec.latent_dim:
            raise InputError(
                f"The latent has {latents.tokens.shape[-1]} channels and the {spec.name} VAE of MMAudio needs "
                f"{spec.latent_dim}; load the VAE and vocoder of the model's sample rate."
            )
        mel = decode_latents(self.vae, latents)
        return mel, vocode_mel(self.vocoder, mel, *([progress] if progress else []))

    def decode_samples(self, latents: Tensor) -> Tensor:
        """Latents (B, C, L) -> all their samples (B, 1, N) at the model's rate."""
        seconds = self.spec.samples_of_latents(latents.shape[2]) / self.spec.sample_rate_hz
        return self.decode(Latents(latents.transpose(1, 2), seconds))[1].samples

    def encode_samples(self, samples: Tensor, rate_hz: int, duration_s: float | None = None) -> Tensor:
        """Sound (B, channels, N) -> latents (B, C, L) on the CPU."""
        return encode_audio(self.vae, Audio(samples, rate_hz), duration_s).tokens.transpose(1, 2)

    def to_rate(self, samples: Tensor, rate_hz: int) -> Tensor:
        """``samples`` at the model's rate -> at ``rate_hz``."""
        return resample(samples, self.spec.sample_rate_hz, rate_hz)

    def decode_bytes(self, latent_tokens: int) -> int:
        """Activations for one clip of L tokens, an upper bound."""
        return decode_bytes(self.vae.spec, self.vocoder.spec, latent_tokens, self.vae.data_mean.dtype)

    def encode_bytes(self, samples: float) -> int:
        """Activations for one clip of N samples at the model's rate, an upper bound."""
        tokens = round(samples / self.spec.samples_of_latents(1)) + 1
        return vae_bytes(self.vae.spec, tokens, self.vae.data_mean.dtype)


def load_sound_module(vae: Path, vocoder: Path, dtype: torch.dtype, device: torch.device, progress: Any = None) -> SoundModule:
    """Both parts from their files.

    Raises:
        WeightsError: for wrong or damaged files, or parts of different sample rates.
    """
    first, _ = load_part(vae, "vae", dtype=dtype, device=device, progress=progress)
    second, _ = load_part(vocoder, "vocoder", dtype=dtype, device=device, progress=progress)
    one, other = (module.spec.audio.name for module in (first, second))  # type: ignore[union-attr]
    if one != other:
        raise WeightsError(
            f"The VAE {vae.name} is a {one} one and the vocoder {vocoder.name} a {other} one; choose two of the same rate."
        )
    return SoundModule(first, second)
