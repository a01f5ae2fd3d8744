"""A beginning for small networks and short trainings: what the inputs become has unit spread, as the data have it.

Features of CLIP have the length 1, so each of their values is small and mostly the same in all clips; and the projections of
the inputs end in gated layers, which multiply two numbers below 1. At random weights what is seen thus reaches the blocks a
thousand times smaller than what they work on, and long training has to make up for it. Here mean and spread of the features are
folded into the layers that take them, and every layer on the way to the blocks is scaled by what it gives for some samples of
the data (Mishkin and Matas, arXiv 1511.06422, with the layers' own random weights).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mmaudio_core.transformer.model import FlowNetwork

from ..data.index import Index
from ..data.shards import Sample
from .statistics import Moments

SHARDS, SAMPLES = 4, 64
"""Shards, spread over the data, of which the statistics are taken; samples by which the layers are scaled."""
LEAST_SHARE = 0.1
"""Of the mean spread of all channels: a channel that varies less is not made to vary as much as the others."""
LEAST = 1e-6


@torch.no_grad()
def standardise_(network: FlowNetwork, index: Index) -> None:
    """Scales the layers before the blocks; missing videos begin as the mean where they are trained.

    The latents' statistics and the empty text's feature must be set. The same on every rank; data without video or text leave
    the layers that take it as they are.
    """
    samples = _samples(index)
    empty = {"clip": network.empty_clip_feat, "sync": network.empty_sync_feat}
    for name in ("clip", "sync", "text"):
        rows = [getattr(sample, name) for sample in samples if getattr(sample, name) is not None]
        if not rows:
            continue
        moments = Moments.of(torch.cat(rows))
        _fold(getattr(network, f"{name}_input_proj")[0], moments)
        if name in empty and empty[name].requires_grad:
            empty[name].copy_(moments.mean)
    whole = [s for s in samples if s.clip is not None and s.sync is not None and s.text is not None][:SAMPLES]
    if whole:
        _scale(network, whole)


def _samples(index: Index) -> list[Sample]:
    shards = [shard for shard in index.shards if len(shard)]
    with_video = [shard for shard in shards if shard.count("av")] or shards
    chosen = with_video[:: max(1, len(with_video) // SHARDS)][:SHARDS]
    return [sample for info in chosen for sample in info.open()]


def _fold(layer: Any, moments: Moments) -> None:
    """What ``layer`` made of standardised features it then makes of the features."""
    std = moments.std
    scale = 1 / std.clamp(min=max(LEAST, LEAST_SHARE * float(std.mean())))
    weight = layer.weight.double() * (scale if layer.weight.ndim == 2 else scale[:, None])
    summed = weight if weight.ndim == 2 else weight.sum(-1)
    layer.bias.copy_(layer.bias.double() - summed @ moments.mean)
    layer.weight.copy_(weight)


def _scale(network: FlowNetwork, samples: list[Sample]) -> None:
    """Runs what comes before the blocks, and divides each layer by the spread of what it gives."""
    parts: list[Any] = [network.audio_input_proj, network.clip_input_proj, network.sync_input_proj, network.text_input_proj]
    parts += [network.clip_cond_proj, network.text_cond_proj, network.global_cond_mlp, network.t_embed]
    layers = [m for part in parts for m in part.modules() if isinstance(m, (nn.Linear, nn.Conv1d))]
    hooks = [layer.register_forward_hook(_divide) for layer in layers]
    try:
        latents = torch.stack([sample.latent_mean for sample in samples])
        clip, sync, text = (torch.stack([getattr(s, name).float() for s in samples]) for name in ("clip", "sync", "text"))
        given = network.project(clip, sync, text, latents.shape[1])
        network.global_cond_mlp(given.clip_pooled + given.text_pooled)
        network.audio_input_proj(network.normalize(latents))
        network.t_embed(torch.linspace(0, 1, len(samples)), torch.float32)
    finally:
        for hook in hooks:
            hook.remove()


def _divide(layer: Any, _: Any, out: Tensor) -> Tensor:
    """Hook: the layer by the spread of its output over everything but channels; convolutions here are channel-last too."""
    spread = float(out.flatten(0, -2).std(0).square().mean().sqrt())
    if spread < LEAST:
        return out
    layer.weight.div_(spread)
    if layer.bias is not None:
        layer.bias.div_(spread)
    return out / spread
