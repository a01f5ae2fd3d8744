"""Losses of generators and discriminators; each is a mean, so that equal parts of a batch average to the whole one's."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmaudio_core.autoencoder.mel import MelAnalysis
from mmaudio_core.spec.audio import AudioSpec

Judged = tuple[Tensor, list[Tensor]]
"""A discriminator's scores, of any shape, and the outputs of its inner layers."""
BINS_PER_WINDOW = 16
"""Window samples for each mel bin of a further resolution, which leaves no band of the filter bank far too narrow."""
LEAST_STD = 0.05
"""Of a segment's log-mel: below, it is silence, in which nothing is louder than the rest."""
HOPS = 4
"""Hops in the window of a further resolution."""


def least_squares_discriminator(real: Sequence[Tensor], made: Sequence[Tensor]) -> Tensor:
    """LSGAN (arXiv 1611.04076): real sound is scored 1, made sound 0; summed over discriminators."""
    return torch.stack([(r - 1).square().mean() + m.square().mean() for r, m in zip(real, made, strict=True)]).sum()


def least_squares_generator(made: Sequence[Tensor]) -> Tensor:
    """LSGAN: made sound should be scored 1; summed over discriminators."""
    return torch.stack([(m - 1).square().mean() for m in made]).sum()


def hinge_discriminator(real: Tensor, made: Tensor) -> Tensor:
    """(relu(1 - real) + relu(1 + made)) / 2 (arXiv 1705.02894)."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + made).mean())


def hinge_generator(made: Tensor) -> Tensor:
    """The negative score of what was made."""
    return -made.mean()


def feature_matching(real: Sequence[Sequence[Tensor]], made: Sequence[Sequence[Tensor]]) -> Tensor:
    """Mean absolute difference of the discriminators' inner outputs, summed over layers (arXiv 1910.06711)."""
    pairs = [(r, m) for rs, ms in zip(real, made, strict=True) for r, m in zip(rs, ms, strict=True)]
    return torch.stack([F.l1_loss(m, r.detach()) for r, m in pairs]).sum()


def divergence(mean: Tensor, std: Tensor, values: int) -> Tensor:
    """KL divergence of normal latents (B, L, C) from the standard normal, summed and divided by the ``values`` of a clip's mel.

    Per value of the mel, so that its weight is that of the usual sums over the mel (arXiv 1312.6114, appendix B).
    """
    variance = std.square()
    each = 0.5 * (mean.square() + variance - 1 - variance.log())
    return each.flatten(1).sum(1).mean() / values


def reconstruction(target: Tensor, made: Tensor, log_variance: Tensor | None = None, loud: float = 0.0) -> Tensor:
    """Mean absolute difference; with a trained log-variance s its negative log-likelihood |x - y| / e^s + s.

    loud: a value counts 1 + loud * max(target, 0) times, so that a small VAE spends itself on what is heard rather than on the
    chance of a background's noise.
    """
    difference = ((made - target).abs() * (1 + loud * target.clamp(min=0))).mean()
    return difference if log_variance is None else difference / log_variance.exp() + log_variance


class MelLoss(nn.Module):
    """Mean absolute difference of log-mels: of the format's own and of further windows; a mean over the resolutions.

    Several windows (arXiv 2306.06546) see both the pitch and the moment of a sound. loud: a value counts 1 + loud * d times
    when it lies d > 0 standard deviations above the mean of its segment, so that a small vocoder learns the few lines of a
    ringing thing rather than the chance of the noise between them.
    """

    def __init__(self, audio: AudioSpec, windows: Sequence[int] = (), loud: float = 0.0) -> None:
        super().__init__()
        self.loud = loud
        self.own = MelAnalysis(audio)
        with warnings.catch_warnings():
            # The lowest bands of short windows hold no frequency at all, which torchaudio warns of; they add nothing here.
            warnings.simplefilter("ignore", UserWarning)
            self.further = nn.ModuleList(MelAnalysis(_resolution(audio, window)) for window in windows)

    def forward(self, real: Tensor, made: Tensor) -> Tensor:
        """Samples (B, N) and (B, N) -> scalar."""
        losses = [self._distance(analysis(real), analysis(made)) for analysis in (self.own, *self.further)]
        return torch.stack(losses).mean()

    def _distance(self, real: Tensor, made: Tensor) -> Tensor:
        if not self.loud:
            return F.l1_loss(made, real)
        std, mean = torch.std_mean(real, (1, 2), keepdim=True)
        above = ((real - mean) / std.clamp(min=LEAST_STD)).clamp(min=0)
        return ((made - real).abs() * (1 + self.loud * above)).mean()


def _resolution(audio: AudioSpec, window: int) -> AudioSpec:
    bins = max(4, min(audio.mel_bins, window // BINS_PER_WINDOW))
    high = audio.sample_rate_hz / 2
    return AudioSpec(
        audio.name, audio.sample_rate_hz, window, window // HOPS, bins, audio.f_min_hz, high, audio.log, audio.latent_dim
    )
