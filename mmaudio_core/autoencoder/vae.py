"""The mel autoencoder: log-mel (B, M, F) <-> latents (B, L, C), L = F / 2 (spec section 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..kernels.keep import Keep, Keeping, stamp
from ..kernels.sets import torch_kernels
from ..spec.audio import LATENT_STRIDE
from ..spec.model import VAESpec
from .blocks import Downsample, Level, Middle, Upsample
from .fast import FastDecoder
from .mp_layers import MPConv1d, mp_silu

MULTIPLIERS = (1, 2, 4)
ENCODER_BLOCKS, DECODER_BLOCKS = 2, 3
LOG_VARIANCE_RANGE = (-30.0, 20.0)


@dataclass(frozen=True)
class LatentDistribution:
    """Diagonal normal over latents: ``mean`` and ``std``, both (B, L, C)."""

    mean: Tensor
    std: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """mean + std * ``noise`` (B, L, C)."""
        return self.mean + self.std * noise


class Encoder(nn.Module):
    """Normalised mel (B, M, F) -> (B, 2 C, F / 2): mean and log-variance."""

    def __init__(self, spec: VAESpec) -> None:
        super().__init__()
        widths = [spec.width * m for m in MULTIPLIERS]
        self.learnable_gain = nn.Parameter(torch.zeros([]))
        self.conv_in = MPConv1d(spec.mel_bins, widths[0], 3)
        self.down: Any = nn.ModuleList(
            Level(w_in, w_out, ENCODER_BLOCKS) for w_in, w_out in zip(widths[:1] + widths[:-1], widths, strict=True)
        )
        self.down[0].downsample = Downsample(widths[0])
        self.mid = Middle(widths[-1])
        self.conv_out = MPConv1d(widths[-1], 2 * spec.latent_dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
            if level.downsample is not None:
                x = level.downsample(x)
        return self.conv_out(mp_silu(self.mid(x)), gain=self.learnable_gain + 1)


class Decoder(nn.Module):
    """Latents (B, C, L) -> normalised mel (B, M, 2 L)."""

    def __init__(self, spec: VAESpec) -> None:
        super().__init__()
        widths = [spec.width * m for m in MULTIPLIERS]
        self.learnable_gain = nn.Parameter(torch.zeros([]))
        self.conv_in = MPConv1d(spec.latent_dim, widths[-1], 3)
        self.mid = Middle(widths[-1])
        self.up: Any = nn.ModuleList(
            Level(w_in, w_out, DECODER_BLOCKS) for w_in, w_out in zip(widths[1:] + widths[-1:], widths, strict=True)
        )
        self.up[1].upsample = Upsample(widths[1])
        self.conv_out = MPConv1d(widths[0], spec.mel_bins, 3)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid(self.conv_in(z))
        for level in reversed(self.up):
            x = level(x)
            if level.upsample is not None:
                x = level.upsample(x)
        return self.conv_out(mp_silu(x), gain=self.learnable_gain + 1)


class VAE(Keeping):
    """Encoder and decoder with the mel statistics ``data_mean`` and ``data_std`` (1, M, 1) of the published files."""

    data_mean: Tensor
    data_std: Tensor

    def __init__(self, spec: VAESpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("data_mean", torch.zeros(1, spec.mel_bins, 1))
        self.register_buffer("data_std", torch.ones(1, spec.mel_bins, 1))
        self.encoder = Encoder(spec)
        self.decoder = Decoder(spec)
        self.kernels = torch_kernels()
        self._fast = Keep()

    def fast_decoder(self) -> FastDecoder:
        """The fast path of ``decode``, for inference; made anew when weights or ``kernels`` changed."""
        kernel = self.kernels.pixel_norm_silu
        key = (stamp(self.decoder), self.data_mean.data_ptr(), kernel)
        return self._fast.get(key, lambda: FastDecoder(self, kernel))

    def fold_weights_(self) -> VAE:
        """Normalise every convolution weight once, for inference.

        Afterwards the state dictionary holds normalised weights: load with ``fold=False`` what is to be trained or saved.
        """
        for module in self.modules():
            if isinstance(module, MPConv1d):
                module.fold_()
        return self

    def encode(self, mel: Tensor) -> LatentDistribution:
        """Log-mel (B, M, F), F even, -> distribution over latents (B, F / 2, C).

        Raises:
            InputError: when M is not the model's, or F is odd or 0.
        """
        if mel.ndim != 3 or mel.shape[1] != self.spec.mel_bins or not mel.shape[2] or mel.shape[2] % LATENT_STRIDE:
            raise InputError(
                f"A mel spectrogram of shape {tuple(mel.shape)} was given to the VAE; it needs "
                f"(batch, {self.spec.mel_bins}, frames) with an even number of frames."
            )
        x = (mel.to(self.data_mean.dtype) - self.data_mean) / self.data_std
        mean, log_variance = self.encoder(x).transpose(1, 2).chunk(2, dim=-1)
        return LatentDistribution(mean, torch.exp(0.5 * log_variance.clamp(*LOG_VARIANCE_RANGE)))

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (B, L, C) -> log-mel (B, M, 2 L).

        Raises:
            InputError: when C is not the model's.
        """
        self._check(latents)
        x = self.decoder(latents.to(self.data_mean.dtype).transpose(1, 2))
        return x * self.data_std + self.data_mean

    def decode_fast(self, latents: Tensor) -> Tensor:
        """``decode`` for inference: the same up to rounding, and for long clips in pieces.

        Raises:
            InputError: when C is not the model's.
        """
        self._check(latents)
        return self.fast_decoder()(latents)

    def _check(self, latents: Tensor) -> None:
        if latents.ndim != 3 or latents.shape[2] != self.spec.latent_dim:
            raise InputError(
                f"Latents of shape {tuple(latents.shape)} were given to a {self.spec.audio.name} VAE; it needs "
                f"(batch, tokens, {self.spec.latent_dim}). Use the VAE of the flow network's sample rate."
            )
