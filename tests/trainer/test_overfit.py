"""A tiny network learns eight clips by heart, through the command, and the core generates them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mmaudio_core.pipeline.sample import SampleSettings, sample_latents
from mmaudio_core.transformer.model import FlowNetwork
from mmaudio_core.types import Features
from trainer.cli import main
from trainer.config.checks import spec_of
from trainer.config.load import load_run_config
from trainer.export.weights import averaged

from .helpers_c import made_up_samples, made_up_shards

CLIPS, DURATION_S = 8, 0.8
START = 2.0
"""The loss of a network that predicts nothing: latents and noise have variance 1 each."""
SETTINGS = (
    "train.global_batch=8",
    "optim.lr=3e-3",
    "optim.warmup_steps=20",
    "optim.decay_at=[0.6, 0.85]",
    "optim.decay_by=0.3",
    "ema.sigma_rels=[0.05]",
    "ema.snapshot_every=0",
    "checkpoint.every=0",
    "validation.every=0",
    "preview.every=0",
    "data.validation=",
    "log.every=25",
)


def overfit(folder: Path, steps: int, *more: str) -> tuple[list[float], FlowNetwork]:
    """(losses, means of 25 steps each; the network's average of relative width 0.05 at the end)."""
    shards = made_up_shards(folder / "shards", CLIPS, duration_s=DURATION_S)
    run = folder / "run"
    changes = [f"data.train={shards}", f"train.folder={run}", f"train.steps={steps}", *SETTINGS, *more]
    assert main(["run", "smoke_cpu", "--quiet", "--debug", "--set", *changes]) == 0
    weights = averaged(run, 0.05)
    spec = spec_of(load_run_config(str(run)).model)
    assert spec is not None
    network = FlowNetwork(spec)
    network.load_state_dict(weights.tensors)
    every = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["loss"] for line in every if "loss" in line], network


def correlations(network: FlowNetwork) -> list[float]:
    """Of each clip's own latents with those generated from its features: 25 Euler steps, no guidance."""
    found = []
    for sample, _ in made_up_samples(CLIPS, DURATION_S):
        inputs = {name: getattr(sample, name) for name in ("clip", "sync", "text")}
        features = Features(**{name: value[None].float() for name, value in inputs.items() if value is not None})
        settings = SampleSettings(steps=25, cfg_strength=1.0)
        made = sample_latents(network, features, DURATION_S, [7], settings=settings).tokens[0]
        found.append(torch.corrcoef(torch.stack((made.flatten(), sample.latent_mean.flatten())))[0, 1].item())
    return found


def test_losses_fall_and_clips_come_back(tmp_path: Path) -> None:
    """A third of the way: enough to see that data, objective, averages and sampling agree."""
    losses, network = overfit(tmp_path, 300, "optim.lr=4e-3", "optim.decay_at=[0.8]")
    assert losses[-1] < 0.4 * START
    assert min(correlations(network)) > 0.7


@pytest.mark.slow
def test_eight_clips_are_learned_by_heart(tmp_path: Path) -> None:
    losses, network = overfit(tmp_path, 1000)
    assert losses[-1] < START / 10
    assert min(correlations(network)) > 0.9
