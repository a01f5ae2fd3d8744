"""Discriminators: of mel patches for the VAE; of periods and of resolutions for the vocoder.

All are weight-normed (arXiv 1602.07868), which, unlike norms over the batch, leaves samples independent of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from .losses import Judged

SLOPE = 0.1
MAX_WIDENING = 8
RESOLUTION_HOPS = 8
"""Hops in a window: about those of the paper, whose window of 1024 samples has a hop of 120 and a length of 600."""


class Layers(nn.Module):
    """Convolutions with leaky ReLUs and a last one that scores; gives the scores and the inner outputs."""

    def __init__(self, layers: Sequence[nn.Conv2d], score: nn.Conv2d, slope: float = SLOPE) -> None:
        super().__init__()
        self.slope = slope
        self.layers = nn.ModuleList(weight_norm(layer) for layer in layers)
        self.score = weight_norm(score)

    def forward(self, x: Tensor) -> Judged:
        inner = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), self.slope)
            inner.append(x)
        return self.score(x).flatten(1), inner


class PatchDiscriminator(nn.Module):
    """Scores patches of a normalised mel (B, M, F) as an image (arXiv 1611.07004, section 3.2.2): scores (B, patches)."""

    def __init__(self, channels: int = 64, layers: int = 3) -> None:
        super().__init__()
        widths = [1, *(channels * min(2**i, MAX_WIDENING) for i in range(layers + 1))]
        convolutions = [
            nn.Conv2d(w_in, w_out, 4, stride=2 if i < layers else 1, padding=1)
            for i, (w_in, w_out) in enumerate(pairwise(widths))
        ]
        self.inner = Layers(convolutions, nn.Conv2d(widths[-1], 1, 4, padding=1), slope=0.2)

    def forward(self, mel: Tensor) -> Tensor:
        return self.inner(mel[:, None])[0]


class PeriodDiscriminator(nn.Module):
    """Looks at every ``period``-th sample (arXiv 2010.05646, section 2.3); samples (B, N)."""

    def __init__(self, period: int, channels: int = 32) -> None:
        super().__init__()
        self.period = period
        widths = [1, channels, 4 * channels, 16 * channels, 32 * channels, 32 * channels]
        layers = [
            nn.Conv2d(w_in, w_out, (5, 1), stride=(3 if i < 4 else 1, 1), padding=(2, 0))
            for i, (w_in, w_out) in enumerate(pairwise(widths))
        ]
        self.inner = Layers(layers, nn.Conv2d(widths[-1], 1, (3, 1), padding=(1, 0)))

    def forward(self, samples: Tensor) -> Judged:
        missing = -samples.shape[1] % self.period
        padded = F.pad(samples[:, None], (0, missing), mode="reflect")
        return self.inner(padded.unflatten(2, (-1, self.period)))


class ResolutionDiscriminator(nn.Module):
    """Looks at the magnitudes of one short-time Fourier transform (arXiv 2106.07889); samples (B, N)."""

    window: Tensor

    def __init__(self, window_samples: int, channels: int = 32) -> None:
        super().__init__()
        self.n_fft = window_samples
        self.register_buffer("window", torch.hann_window(window_samples), persistent=False)
        layers = [nn.Conv2d(1, channels, (3, 9), padding=(1, 4))]
        layers += [nn.Conv2d(channels, channels, (3, 9), stride=(1, 2), padding=(1, 4)) for _ in range(3)]
        layers += [nn.Conv2d(channels, channels, 3, padding=1)]
        self.inner = Layers(layers, nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, samples: Tensor) -> Judged:
        hop = self.n_fft // RESOLUTION_HOPS
        padding = (self.n_fft - hop) // 2
        padded = F.pad(samples[:, None], (padding, padding), mode="reflect")[:, 0]
        spectrum = torch.stft(padded, self.n_fft, hop, self.n_fft, self.window, center=False, return_complex=True)
        magnitude = torch.view_as_real(spectrum).square().sum(-1).add(1e-9).sqrt()
        return self.inner(magnitude.transpose(1, 2)[:, None])


class VocoderDiscriminator(nn.Module):
    """Several periods and several resolutions (arXiv 2206.04658)."""

    def __init__(self, periods: Sequence[int], windows: Sequence[int], channels: int = 32) -> None:
        super().__init__()
        self.parts = nn.ModuleList(
            [
                *(PeriodDiscriminator(period, channels) for period in periods),
                *(ResolutionDiscriminator(window, channels) for window in windows),
            ]
        )

    def forward(self, samples: Tensor) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Samples (B, N) -> for each part its scores (B, ...) and inner outputs."""
        judged = [part(samples) for part in self.parts]
        return [scores for scores, _ in judged], [inner for _, inner in judged]
