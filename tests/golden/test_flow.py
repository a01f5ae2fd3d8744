"""Flow network: conditions, one velocity, guidance, Euler steps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmaudio_core.pipeline.accelerate import Accelerator, Speed
from mmaudio_core.sampling.guidance import Velocity
from mmaudio_core.sampling.solvers import euler
from mmaudio_core.spec.audio import AUDIO_SPECS
from mmaudio_core.spec.model import FlowSpec
from mmaudio_core.spec.timing import sequence_lengths
from mmaudio_core.transformer.conditions import Conditions
from mmaudio_core.transformer.model import FlowNetwork
from mmaudio_core.types import Features

from .drawing import Golden, draw_input, each_golden, load_drawn

ONE_PASS, SAMPLED = 1e-5, 1e-4


def flow_spec(config: dict[str, Any]) -> FlowSpec:
    return FlowSpec(
        latent_dim=config["latent_dim"],
        width=config["hidden_dim"],
        heads=config["num_heads"],
        joint_blocks=config["depth"] - config["fused_depth"],
        audio_blocks=config["fused_depth"],
        v2=config.get("v2", False),
        clip_dim=config["clip_dim"],
        sync_dim=config["sync_dim"],
        text_dim=config["text_dim"],
    )


class Run:
    """A golden flow file with its network and inputs."""

    def __init__(self, path: Path) -> None:
        self.golden = golden = Golden(path)
        spec = flow_spec(golden.meta["config"])
        self.net = load_drawn(lambda: FlowNetwork(spec), golden.seed)
        audio = next(a for a in AUDIO_SPECS.values() if a.sample_rate_hz == golden.meta["sampling_rate"])
        self.lengths = lengths = sequence_lengths(golden.meta["duration"], audio)
        assert [lengths.latent, lengths.clip, lengths.sync] == golden.meta["seq"]

        self.batch = golden["flow"].shape[0]
        self.latent = self.drawn("latent", lengths.latent, spec.latent_dim)
        self.text = self.drawn("text", spec.text_tokens, spec.text_dim)
        self.negative = self.drawn("negative_text", spec.text_tokens, spec.text_dim)
        self.features = Features(
            clip=self.drawn("clip", lengths.clip, spec.clip_dim),
            sync=self.drawn("sync", lengths.sync, spec.sync_dim),
            text=self.text,
        )

    def drawn(self, name: str, tokens: int, width: int) -> Tensor:
        return draw_input(self.golden.seed, name, (self.batch, tokens, width))

    def conditions(self, **features: Tensor | None) -> Conditions:
        return self.net.conditions(Features(**features), self.lengths, self.batch)

    def given(self) -> Conditions:
        return self.net.conditions(self.features, self.lengths)


SAVINGS = {"none": Speed("plain"), "all": Speed("torch")}
"""The network as it is written, and with every saving on."""


@torch.no_grad()
@pytest.mark.parametrize("savings", SAVINGS)
@each_golden("flow_*.safetensors", is_large=lambda meta: meta["config"]["hidden_dim"] > 512)
def test_flow(path: Path, savings: str) -> None:
    run = Run(path)
    golden, net = run.golden, run.net
    accelerator = Accelerator(SAVINGS[savings])

    def guided(wanted: Conditions, empty: Conditions | None, strength: float) -> Velocity:
        return accelerator.velocity(net, wanted, empty, strength, run.batch)

    conditions = run.given()
    checked = {"flow"}
    times = torch.tensor(golden.meta["t"])
    velocity = guided(conditions, None, 1.0)
    # A sampler asks for one time at a time, a golden for one per sample.
    each = [velocity(run.latent, time)[i if times.ndim else slice(None)] for i, time in enumerate(times.reshape(-1))]
    golden.check("flow", torch.stack(each) if times.ndim else each[0], ONE_PASS)
    if savings == "none":
        golden.check("flow", net(run.latent, times, conditions), ONE_PASS)

    for name in ("clip", "clip_pooled", "sync", "text", "text_pooled"):
        if f"cond_{name}" in golden:
            golden.check(f"cond_{name}", getattr(conditions, name), ONE_PASS)
            checked.add(f"cond_{name}")

    strength, t = golden.meta["cfg_strength"], torch.tensor(golden.meta["cfg_t"])
    empty = run.conditions()
    if "flow_cfg" in golden:
        golden.check("flow_cfg", guided(conditions, empty, strength)(run.latent, t), ONE_PASS)
    if "flow_cfg_negative" in golden:
        negative = run.conditions(text=run.negative)
        golden.check("flow_cfg_negative", guided(conditions, negative, strength)(run.latent, t), ONE_PASS)
    checked |= {"flow_cfg", "flow_cfg_negative"}

    for name in golden.tensors:
        match = re.fullmatch(r"euler(\d+)(_text_only|_unnormalized)?", name)
        if not match:
            continue
        wanted = run.conditions(text=run.text) if match[2] == "_text_only" else conditions
        x = euler(guided(wanted, empty, strength), run.latent, int(match[1]))
        golden.check(name, net.unnormalize(x) if match[2] == "_unnormalized" else x, SAMPLED)
        checked.add(name)

    assert not set(golden.tensors) - checked, "tensors of the golden that no check reads"
