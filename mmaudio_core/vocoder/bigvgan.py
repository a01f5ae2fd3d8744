"""BigVGAN (arXiv 2206.04658): log-mel to waveform. One class for the 16 kHz and the v2 44.1 kHz vocoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..kernels.keep import Keep, Keeping
from ..kernels.sets import torch_kernels
from ..spec.model import VocoderSpec
from .activations import AntiAliasedSnake


class AMPBlock(nn.Module):
    """Residual steps of dilated convolutions, each convolution after an anti-aliased snake; (B, C, time) kept."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=d, padding=d * (kernel - 1) // 2) for d in dilations
        )
        self.convs2 = nn.ModuleList(nn.Conv1d(channels, channels, kernel, padding=(kernel - 1) // 2) for _ in dilations)
        self.activations = nn.ModuleList(AntiAliasedSnake(channels) for _ in range(2 * len(dilations)))

    def forward(self, x: Tensor) -> Tensor:
        for i, (dilated, plain) in enumerate(zip(self.convs1, self.convs2, strict=True)):
            x = x + plain(self.activations[2 * i + 1](dilated(self.activations[2 * i](x))))
        return x


class BigVGAN(Keeping):
    """Transposed convolutions, each followed by AMP blocks of several kernels that are averaged.

    Parameters carry the published names with weight normalisation folded into ``weight`` at load.
    """

    def __init__(self, spec: VocoderSpec) -> None:
        super().__init__()
        self.spec = spec
        widths = [spec.width >> i for i in range(len(spec.rates) + 1)]
        self.conv_pre = nn.Conv1d(spec.mel_bins, spec.width, 7, padding=3)
        # Published names have an inner list of one element per stage.
        self.ups: Any = nn.ModuleList(
            nn.ModuleList([nn.ConvTranspose1d(widths[i], widths[i + 1], kernel, rate, padding=(kernel - rate) // 2)])
            for i, (rate, kernel) in enumerate(zip(spec.rates, spec.kernels, strict=True))
        )
        self.resblocks = nn.ModuleList(
            AMPBlock(width, kernel, spec.block_dilations) for width in widths[1:] for kernel in spec.block_kernels
        )
        self.activation_post = AntiAliasedSnake(widths[-1])
        self.conv_post = nn.Conv1d(widths[-1], 1, 7, padding=3, bias=spec.final_bias)
        # For the faster vocoders that ``choose.fast_vocoder`` makes from this one.
        self.kernels, self.kept, self.graphs = torch_kernels(), Keep(), False

    def forward(self, mel: Tensor) -> Tensor:
        """Log-mel (B, M, F) -> samples (B, 1, F * hop) in [-1, 1], in the model's dtype.

        Raises:
            InputError: when M is not the model's.
        """
        self.check(mel)
        x = self.conv_pre(mel.to(self.conv_pre.weight.dtype))
        branches = len(self.spec.block_kernels)
        for stage, (up,) in enumerate(self.ups):
            x = up(x)
            blocks = self.resblocks[stage * branches : (stage + 1) * branches]
            total = blocks[0](x)
            for block in blocks[1:]:
                total = total + block(x)
            x = total / branches
        x = self.conv_post(self.activation_post(x))
        return torch.tanh(x) if self.spec.final_tanh else x.clamp(-1, 1)

    def check(self, mel: Tensor) -> None:
        """Raises InputError when ``mel`` is not (B, M, F) with the M of this vocoder."""
        if mel.ndim != 3 or mel.shape[1] != self.spec.mel_bins:
            raise InputError(
                f"A mel spectrogram of shape {tuple(mel.shape)} was given to a {self.spec.audio.name} vocoder; it needs "
                f"(batch, {self.spec.mel_bins}, frames). Use the vocoder of the VAE's sample rate."
            )
