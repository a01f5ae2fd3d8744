"""Conditional flow matching (arXiv 2210.02747; arXiv 2412.15322, sections 3.1 and 3.5): what is drawn, and the loss.

Everything drawn for a sample comes from a generator of its own, made from the seed, the step and the sample's place in the
global batch: the same for any number of ranks, any accumulation, and after any restart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from mmaudio_core.spec.model import FlowSpec
from mmaudio_core.transformer.model import FlowNetwork

from ..config.schema import DropoutConfig, TimesConfig
from ..data.batch import Batch
from ..engine.generators import generator_of


@dataclass(frozen=True)
class Draws:
    """What chance says of B samples.

    latent_noise: (B, L, C), for mean + std * noise of the latent. x0: (B, L, C), the noise that the flow starts from.
    t: (B,) in (0, 1). drop_clip, drop_sync, drop_text: bool (B,), inputs that are left out.
    """

    latent_noise: Tensor
    x0: Tensor
    t: Tensor
    drop_clip: Tensor
    drop_sync: Tensor
    drop_text: Tensor

    def to(self, device: torch.device | str) -> Draws:
        """The same on ``device``; copies from pinned memory do not wait."""
        return replace(self, **{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def pinned(self) -> Draws:
        """The same in page-locked memory; needs a CUDA device."""
        return replace(self, **{f.name: getattr(self, f.name).pin_memory() for f in fields(self)})


def draws(
    seed: int,
    step: int,
    positions: Sequence[int],
    latent_shape: tuple[int, int],
    spec: FlowSpec,
    dropout: DropoutConfig,
    at: TimesConfig | None = None,
) -> Draws:
    """Draws for the samples at ``positions`` of the global batch of ``step``, on the CPU; latent_shape: (L, C).

    t = sigmoid(N(mean, std)) (arXiv 2403.03206), as ``at`` says, by default N(0, 1). Video is dropped as a whole in v1, its two
    features independently in v2.
    """
    at = at or TimesConfig()
    together = not spec.v2 if dropout.together == "auto" else dropout.together == "always"
    noise, starts, times, chances = [], [], [], []
    for position in positions:
        generator = generator_of(seed, step, position)
        noise.append(torch.randn(latent_shape, generator=generator))
        starts.append(torch.randn(latent_shape, generator=generator))
        times.append(torch.randn((), generator=generator))
        chances.append(torch.rand(3, generator=generator))
    of_clip, of_sync, of_text = torch.stack(chances).unbind(1)
    drop_clip = of_clip < dropout.video
    return Draws(
        latent_noise=torch.stack(noise),
        x0=torch.stack(starts),
        t=(at.mean + at.std * torch.stack(times)).sigmoid(),
        drop_clip=drop_clip,
        drop_sync=drop_clip if together else of_sync < dropout.video,
        drop_text=of_text < dropout.text,
    )


def without_captions(draws: Draws, batch: Batch, captions: str) -> Draws:
    """The same draws, with text left out where ``captions`` (see ``captions_used``) says so."""
    return replace(draws, drop_text=draws.drop_text | ~captions_used(batch, captions))


def captions_used(batch: Batch, captions: str) -> Tensor:
    """bool (B,): whether a sample's text is used: of "all", of those with "video", of those with "sound" alone, of "none"."""
    return {
        "all": torch.ones_like(batch.has_video),
        "video": batch.has_video,
        "sound": ~batch.has_video,
        "none": torch.zeros_like(batch.has_video),
    }[captions]


def kept(draws: Draws) -> Draws:
    """The same draws with every input left in, as for validation."""
    none = torch.zeros_like(draws.drop_clip)
    return replace(draws, drop_clip=none, drop_sync=none, drop_text=none)


def loss(network: FlowNetwork, batch: Batch, draws: Draws) -> Tensor:
    """Per-sample losses (B,): mean over tokens and channels of (v - (x1 - x0))^2 at x_t = (1 - t) x0 + t x1."""
    x1 = network.normalize(batch.latent_mean + batch.latent_std * draws.latent_noise)
    t = draws.t[:, None, None]
    x_t = (1 - t) * draws.x0 + t * x1
    dropped = (draws.drop_clip, draws.drop_sync, draws.drop_text)
    v = velocity(network, batch, x_t, draws.t, dropped)
    return (v.float() - (x1 - draws.x0)).square().mean(dim=(1, 2))


def velocity(
    network: FlowNetwork, batch: Batch, x: Tensor, t: Tensor, dropped: tuple[Tensor, Tensor, Tensor] | None = None
) -> Tensor:
    """Velocity (B, L, C) of normalised ``x`` (B, L, C) at ``t`` (B,) under the batch's inputs.

    What is missing or ``dropped`` (bool (B,) for CLIP, sync, text) takes the learned empty tokens, text the stored feature of
    the empty string. The empty tokens are part of every batch's graph, so that all ranks agree on what has gradients.
    """
    has_clip, has_sync, has_text = batch.has_video, batch.has_video, batch.has_text
    if dropped is not None:
        has_clip, has_sync, has_text = (has & ~drop for has, drop in zip((has_clip, has_sync, has_text), dropped, strict=True))
    conditions = network.project(
        _filled(batch.clip, has_clip, network.empty_clip_feat),
        _filled(batch.sync, has_sync, network.empty_sync_feat),
        _filled(batch.text, has_text, network.empty_string_feat),
        x.shape[1],
    )
    return network(x, t, conditions)


def _filled(feature: Tensor, has: Tensor, empty: Tensor) -> Tensor:
    """``feature`` (B, tokens, width) where ``has`` (B,), else ``empty`` (1 or tokens, width), in the format of ``empty``."""
    return torch.where(has[:, None, None], feature.to(empty.dtype), empty)
