"""The mel VAE as a task: reconstruction, divergence from the standard normal, and a judge of mel patches (spec section 5)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmaudio_core.autoencoder.mel import MelAnalysis
from mmaudio_core.autoencoder.mp_layers import MPConv1d
from mmaudio_core.autoencoder.vae import VAE
from mmaudio_core.spec.model import VAESpec, VocoderSpec
from mmaudio_core.vocoder.bigvgan import BigVGAN

from ..engine.generators import generator_of
from .base import load_base
from .config import VAEConfig, vae_spec
from .discriminators import PatchDiscriminator
from .losses import divergence, hinge_discriminator, hinge_generator, reconstruction
from .step import Places

NOISE = 1
"""Distinguishes the draws of the latents' noise from those of the segments."""
LEAST_STD = 1e-3
"""A mel bin that never changes (above a recording's bandwidth) is not divided by less."""


class Piece(NamedTuple):
    """mel: normalised log-mel (B, M, F). noise: (B, L, C)."""

    mel: Tensor
    noise: Tensor


class Made(NamedTuple):
    """mel: what the decoder gives, normalised (B, M, F). mean, std: of the latents (B, L, C)."""

    mel: Tensor
    mean: Tensor
    std: Tensor


class Generator(nn.Module):
    """The VAE, and the variance of what it leaves unexplained where that is trained."""

    def __init__(self, vae: VAE, learned_variance: bool) -> None:
        super().__init__()
        self.vae = vae
        self.log_variance = nn.Parameter(torch.zeros(())) if learned_variance else None

    def forward(self, piece: Piece) -> Made:
        x = self.vae.encoder(piece.mel).transpose(1, 2).float()
        mean, log_variance = x.chunk(2, dim=-1)
        std = torch.exp(0.5 * log_variance.clamp(-30.0, 20.0))
        made = self.vae.decoder((mean + std * piece.noise).transpose(1, 2))
        return Made(made.float(), mean, std)


class VAETask:
    """See ``Task``."""

    def __init__(self, config: VAEConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.train.seed)
            vae, self.spec = _vae(config)
            self.discriminator = PatchDiscriminator(config.discriminator.channels, config.discriminator.layers).to(device)
        self.generator = Generator(vae.requires_grad_(True).train(), config.loss.learned_variance).to(device)
        self.adversarial_from = config.loss.adversarial_from
        self.analysis = MelAnalysis(self.spec.audio).to(device)
        self._half = torch.autocast(device.type, torch.bfloat16, enabled=config.train.precision == "bf16")
        self._vocoder: BigVGAN | None = None
        if config.log.vocoder:
            vocoder, _ = load_base(config.log.vocoder, BigVGAN, VocoderSpec, config.model.audio)
            self._vocoder = vocoder.to(device)
        self.settle()

    def take(self, samples: Tensor, places: Places) -> Piece:
        vae = self.generator.vae
        mel = (self.analysis(samples) - vae.data_mean) / vae.data_std
        shape = (mel.shape[2] // 2, self.spec.latent_dim)
        noise = [
            torch.randn(shape, generator=generator_of(places.seed, places.step, position, NOISE))
            for position in places.positions
        ]
        return Piece(mel, torch.stack(noise).to(self.device))

    def make(self, piece: Piece) -> Made:
        with self._half:
            return self.generator(piece)

    def discriminator_loss(self, piece: Piece, made: Made) -> Tensor:
        with self._half:
            real, fake = self.discriminator(piece.mel), self.discriminator(made.mel.detach())
        return hinge_discriminator(real.float(), fake.float())

    def generator_loss(self, piece: Piece, made: Made, playing: bool) -> tuple[Tensor, dict[str, Tensor]]:
        weights = self.config.loss
        explained = reconstruction(piece.mel, made.mel, self.generator.log_variance, weights.loud)
        kl = divergence(made.mean, made.std, piece.mel[0].numel())
        loss = weights.reconstruction * explained + weights.kl * kl
        parts = {"mel": (made.mel - piece.mel).detach().abs().mean(), "kl": kl}
        if playing:
            with self._half:
                scores = self.discriminator(made.mel)
            parts["adversarial"] = hinge_generator(scores.float())
            loss = loss + weights.adversarial * parts["adversarial"]
        return loss, parts

    def settle(self) -> None:
        force_norms_(self.generator.vae)

    def result(self) -> dict[str, Tensor]:
        return self.generator.vae.state_dict()

    @torch.no_grad()
    def listen(self, samples: Tensor) -> tuple[dict[str, float], dict[str, Tensor]]:
        vae, real = self.generator.vae, self.analysis(samples)
        real = real[..., : real.shape[-1] // 2 * 2]
        with self._half:
            made = vae.decode(vae.encode(real).mean).float()
        shown = {"mel real": real, "mel made": made}
        if self._vocoder is not None:
            shown |= {"sound real": samples, "sound made": self._vocoder(made)[:, 0]}
        return {"listen/mel": float((made - real).abs().mean())}, shown

    @torch.no_grad()
    def measure_(self, batches: Iterable[Tensor]) -> None:
        """Sets the mel statistics, mean and standard deviation per bin over all frames, from batches of samples (B, N)."""
        count, total, squares = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for samples in batches:
            mel = self.analysis(samples.to(self.device)).cpu().double()
            count += mel.shape[0] * mel.shape[2]
            total = total + mel.sum((0, 2))
            squares = squares + mel.square().sum((0, 2))
        mean = total / count
        std = (squares / count - mean.square()).clamp(min=0).sqrt().clamp(min=LEAST_STD)
        self.generator.vae.data_mean.copy_(mean[None, :, None])
        self.generator.vae.data_std.copy_(std[None, :, None])


@torch.no_grad()
def force_norms_(module: nn.Module) -> None:
    """Scales the stored weights of every output channel of a magnitude-preserving layer to norm sqrt(fan-in), in place.

    Forced weight normalisation (arXiv 2312.02696, section 2.3). What the layers convolve with stays as it is up to the 1e-4 in
    their own normalisation; without it the stored weights, whose gradients stand at right angles to them, would grow with every
    step and the effective learning rate would fall.
    """
    for layer in module.modules():
        if isinstance(layer, MPConv1d):
            norm = torch.linalg.vector_norm(layer.weight.float(), dim=(1, 2), keepdim=True)
            fan_in = layer.weight[0].numel()
            layer.weight.mul_(math.sqrt(fan_in) / norm.clamp(min=1e-12))


def _vae(config: VAEConfig) -> tuple[VAE, VAESpec]:
    if config.model.base:
        return load_base(config.model.base, VAE, VAESpec, config.model.audio)
    spec = vae_spec(config.model)
    return VAE(spec), spec
