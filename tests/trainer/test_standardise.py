"""A standardised beginning: what is seen and read reaches the blocks with unit spread, and the network is what it says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from mmaudio_core.spec.model import FlowSpec
from mmaudio_core.transformer.model import FlowNetwork
from trainer.data.index import Index
from trainer.flow.initialise import initialise_
from trainer.flow.standardise import standardise_
from trainer.flow.statistics import latent_statistics

from .helpers_c import ONE, made_up_shards

SPEC = FlowSpec(20, 64, 1, 1, 1, v2=True, clip_dim=64, sync_dim=128, text_dim=64)


def network(index: Index, standardised: bool, video: bool = True) -> FlowNetwork:
    net = FlowNetwork(SPEC)
    initialise_(net, 0)
    for empty in (net.empty_clip_feat, net.empty_sync_feat):
        empty.requires_grad_(video)
    with torch.no_grad():
        mean, std = latent_statistics(index, ONE)
        net.latent_mean.copy_(mean)
        net.latent_std.copy_(std)
    if standardised:
        standardise_(net, index)
    return net.eval()


@torch.no_grad()
def spreads(net: FlowNetwork, index: Index) -> dict[str, float]:
    samples = [sample for info in index.shards for sample in info.open() if sample.clip is not None]
    features = [torch.stack([getattr(s, name).float() for s in samples]) for name in ("clip", "sync", "text")]
    latents = torch.stack([s.latent_mean for s in samples])
    given = net.project(*features, latents.shape[1])
    whole = {"clip": given.clip, "sync": given.sync_rows, "text": given.text, "clip_pooled": given.clip_pooled}
    whole["global"] = net.global_cond_mlp(given.clip_pooled + given.text_pooled)
    whole["audio"] = net.audio_input_proj(net.normalize(latents))
    whole["t"] = net.t_embed(torch.linspace(0, 1, 64), torch.float32)
    return {name: float(value.flatten(0, -2).std(0).square().mean().sqrt()) for name, value in whole.items()}


def test_everything_before_the_blocks_has_unit_spread(tmp_path: Path) -> None:
    index = Index.load(made_up_shards(tmp_path, 12))
    plain, standardised = (spreads(network(index, done), index) for done in (False, True))
    assert plain["clip"] < plain["global"] * 1e6
    assert max(plain[name] for name in ("clip", "text", "global")) < 0.05, "what it is there for"
    assert all(0.8 < value < 1.25 for value in standardised.values()), standardised


def test_it_is_the_same_every_time_and_missing_videos_are_the_mean(tmp_path: Path) -> None:
    index = Index.load(made_up_shards(tmp_path, 12))
    first, second = network(index, True), network(index, True)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    clips = torch.cat([s.clip for info in index.shards for s in info.open() if s.clip is not None]).float()
    assert torch.allclose(first.empty_clip_feat[0], clips.mean(0), atol=1e-4)
    frozen = network(index, True, video=False)
    assert not frozen.empty_clip_feat.any()


def test_data_without_video_leave_its_layers(tmp_path: Path) -> None:
    whole = Index.load(made_up_shards(tmp_path, 9, per_shard=1))
    index = replace(whole, shards=tuple(shard for shard in whole.shards if not shard.count("av")))
    plain, net = network(index, False), network(index, True)
    assert torch.equal(plain.clip_input_proj[0].weight, net.clip_input_proj[0].weight)
    assert not torch.equal(plain.text_input_proj[0].weight, net.text_input_proj[0].weight)
