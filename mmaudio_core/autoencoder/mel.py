"""Waveform to log-mel spectrogram, as the VAE and vocoders were trained on (spec section 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import DependencyError, InputError
from ..spec.audio import AudioSpec

POWER_FLOOR = 1e-9
MEL_FLOOR = 1e-5


def mel_filters(audio: AudioSpec) -> Tensor:
    """Slaney filters with Slaney normalisation, float32 (M, n_fft / 2 + 1), from torchaudio.

    Raises:
        DependencyError: when torchaudio is missing or broken.
    """
    try:
        from torchaudio.functional import melscale_fbanks
    except Exception as error:  # a mismatched torchaudio raises OSError or RuntimeError at import
        raise DependencyError(
            f"Mel analysis needs torchaudio, which cannot be imported ({error}); install the torchaudio that fits your torch."
        ) from error
    filters = melscale_fbanks(
        audio.n_fft // 2 + 1,
        audio.f_min_hz,
        audio.f_max_hz,
        audio.mel_bins,
        audio.sample_rate_hz,
        norm="slaney",
        mel_scale="slaney",
    )
    return filters.T.contiguous()


class MelAnalysis(nn.Module):
    """(B, N) samples in [-1, 1] at the format's rate -> log-mel (B, M, N // hop), always float32."""

    filters: Tensor
    window: Tensor

    def __init__(self, audio: AudioSpec) -> None:
        super().__init__()
        self.audio = audio
        self.register_buffer("filters", mel_filters(audio), persistent=False)
        self.register_buffer("window", torch.hann_window(audio.n_fft), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        """Samples beyond [-1, 1] are clamped.

        Raises:
            InputError: when there are too few samples to reflect at the ends, or the shape is not (B, N).
        """
        audio = self.audio
        padding = (audio.n_fft - audio.hop_samples) // 2
        if samples.ndim != 2 or samples.shape[1] <= max(padding, audio.hop_samples):
            raise InputError(
                f"Samples of shape {tuple(samples.shape)} were given for mel analysis; (batch, samples) with more than "
                f"{max(padding, audio.hop_samples)} samples at {audio.sample_rate_hz} Hz are needed."
            )
        x = F.pad(samples.float().clamp(-1, 1)[:, None], (padding, padding), mode="reflect")[:, 0]
        spectrum = torch.stft(
            x, audio.n_fft, audio.hop_samples, audio.n_fft, self.window, center=False, onesided=True, return_complex=True
        )
        magnitude = torch.view_as_real(spectrum).square().sum(-1).add(POWER_FLOOR).sqrt()
        mel = (self.filters @ magnitude).clamp(min=MEL_FLOOR)
        return mel.log10() if audio.log == "log10" else mel.log()
