"""The vocoder as a task: mel distance, adversarial and feature-matching losses (arXiv 2206.04658)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import weight_norm

from mmaudio_core.spec.model import VocoderSpec
from mmaudio_core.vocoder.bigvgan import BigVGAN

from .base import load_base
from .config import VocoderConfig, vocoder_spec
from .discriminators import VocoderDiscriminator
from .losses import MelLoss, feature_matching, least_squares_discriminator, least_squares_generator
from .step import Places


class Piece(NamedTuple):
    """samples: (B, N). mel: their log-mel (B, M, N / hop)."""

    samples: Tensor
    mel: Tensor


class VocoderTask:
    """See ``Task``.

    The weights are trained in weight norm (arXiv 1602.07868), as the published vocoders were: learning rates of the papers
    then mean the same. The result is folded, bit for bit what the last step computed with.
    """

    def __init__(self, config: VocoderConfig, device: torch.device) -> None:
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.train.seed)
            vocoder, self.spec = _vocoder(config)
            judge = config.discriminator
            self.discriminator = VocoderDiscriminator(judge.periods, judge.windows, judge.channels).to(device)
        self.generator: BigVGAN = with_weight_norm_(vocoder.requires_grad_(True).train()).to(device)
        self.adversarial_from = config.loss.adversarial_from
        self.mel_loss = MelLoss(self.spec.audio, config.loss.mel_windows, config.loss.loud).to(device)

    def take(self, samples: Tensor, places: Places) -> Piece:
        return Piece(samples, self.mel_loss.own(samples))

    def make(self, piece: Piece) -> Tensor:
        return self.generator(piece.mel)[:, 0]

    def discriminator_loss(self, piece: Piece, made: Tensor) -> Tensor:
        real, fake = self.discriminator(piece.samples)[0], self.discriminator(made.detach())[0]
        return least_squares_discriminator(real, fake)

    def generator_loss(self, piece: Piece, made: Tensor, playing: bool) -> tuple[Tensor, dict[str, Tensor]]:
        weights = self.config.loss
        parts = {"mel": self.mel_loss(piece.samples, made)}
        loss = weights.mel * parts["mel"]
        if playing:
            scores, inner = self.discriminator(made)
            with torch.no_grad():
                real_inner = self.discriminator(piece.samples)[1]
            parts["adversarial"] = least_squares_generator(scores)
            parts["features"] = feature_matching(real_inner, inner)
            loss = loss + weights.adversarial * parts["adversarial"] + weights.features * parts["features"]
        return loss, parts

    def settle(self) -> None:
        pass

    def result(self) -> dict[str, Tensor]:
        return folded(self.generator)

    @torch.no_grad()
    def listen(self, samples: Tensor) -> tuple[dict[str, float], dict[str, Tensor]]:
        analysis = self.mel_loss.own
        real = analysis(samples)
        made = self.generator(real)[:, 0]
        distance = float((analysis(made) - real).abs().mean())
        shown = {"mel real": real, "mel made": analysis(made), "sound real": samples, "sound made": made}
        return {"listen/mel": distance}, shown


def with_weight_norm_(vocoder: BigVGAN) -> BigVGAN:
    """Gives every convolution weight norm, g and v as in the published files (norms over all dimensions but the first)."""
    for module in list(vocoder.modules()):
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d)):
            weight_norm(module)
    return vocoder


def folded(vocoder: BigVGAN) -> dict[str, Tensor]:
    """Its tensors under published names, with plain weights: those that it computes with."""
    state = {name: value for name, value in vocoder.state_dict().items() if ".parametrizations." not in name}
    for name, module in vocoder.named_modules():
        held: Any = module
        if parametrize.is_parametrized(held, "weight"):
            state[f"{name}.weight"] = held.weight.detach()
    return state


def _vocoder(config: VocoderConfig) -> tuple[BigVGAN, VocoderSpec]:
    if config.model.base:
        return load_base(config.model.base, BigVGAN, VocoderSpec, config.model.audio)
    spec = vocoder_spec(config.model)
    return BigVGAN(spec), spec
