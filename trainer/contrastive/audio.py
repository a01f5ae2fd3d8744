"""The audio side of the contrast, for training only: log-mels of a segment to one token for each of the visual tower's."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmaudio_core.autoencoder.mel import MelAnalysis
from mmaudio_core.spec.timing import SYNC_TOKENS_PER_SEGMENT

from .sync_data import AUDIO, MARGIN_FRAMES, SEGMENT_SAMPLES

FRAMES_PER_TOKEN = SEGMENT_SAMPLES // AUDIO.hop_samples // SYNC_TOKENS_PER_SEGMENT
CENTRE, SPREAD = -2.5, 1.25
"""Log10 mels lie between -5 and 0, about."""
BLOCKS = 3
REFLECTED_FRAMES = 2
"""Mel frames at each end of which the analysis has made up a part."""


BANDS = 8
"""Of neighbouring mel bins, in an outline."""


class Outline(nn.Module):
    """Segments of samples (B, N), with their margins -> what each token's 80 ms sound like (B, 8, ``values``): 5 frames of 8
    bands of log-mel, normalised. No parameters."""

    values = FRAMES_PER_TOKEN * BANDS

    def __init__(self) -> None:
        super().__init__()
        self.analysis = MelAnalysis(AUDIO)

    @torch.no_grad()
    def forward(self, samples: Tensor) -> Tensor:
        inner = self.analysis(samples)[..., MARGIN_FRAMES:-MARGIN_FRAMES]
        bands = ((inner - CENTRE) / SPREAD).unflatten(1, (BANDS, -1)).mean(2)
        return bands.unflatten(2, (SYNC_TOKENS_PER_SEGMENT, FRAMES_PER_TOKEN)).permute(0, 2, 3, 1).flatten(2)


class Block(nn.Module):
    """Residual: norm over channels, convolution over time, GELU, linear."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.conv = nn.Conv1d(width, width, 3)
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, F, D) -> (B, F - 2, D)."""
        inner = self.conv(self.norm(x).transpose(1, 2)).transpose(1, 2)
        return x[:, 1:-1] + self.linear(F.gelu(inner))


class AudioTower(nn.Module):
    """Segments of samples (B, N), with their margins -> tokens (B, 8, D).

    It sees no further than 64 ms to both sides of a token, so that tokens tell the time, and nothing is padded: the edges of a
    segment would tell the place in it, which the visual tower knows, and both would agree on that in place of what happens.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.analysis = MelAnalysis(AUDIO)
        self.embed = nn.Conv1d(AUDIO.mel_bins, width, 3)
        self.blocks = nn.ModuleList(Block(width) for _ in range(BLOCKS))
        self.pool = nn.Conv1d(width, width, FRAMES_PER_TOKEN, stride=FRAMES_PER_TOKEN)
        self.norm = nn.LayerNorm(width)

    def forward(self, samples: Tensor) -> Tensor:
        mel = self.analysis(samples)[..., REFLECTED_FRAMES:-REFLECTED_FRAMES]
        x = self.embed((mel - CENTRE) / SPREAD).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.norm(self.pool(x.transpose(1, 2)).transpose(1, 2))
