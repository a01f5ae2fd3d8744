"""What is drawn for a sample, and the loss, against the formulas written out."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from mmaudio_core.errors import InputError
from mmaudio_core.spec.timing import SequenceLengths
from mmaudio_core.transformer.model import FlowNetwork
from mmaudio_core.types import Features
from trainer.config.schema import DropoutConfig, TimesConfig
from trainer.flow.initialise import initialise_
from trainer.flow.objective import Draws, draws, kept, loss, velocity
from trainer.flow.trainable import TrainableFlow

from .helpers_c import TINY, TINY_V2, made_up_batch, made_up_network

SHAPE = (25, 20)
DROPOUT = DropoutConfig()


def test_draws_depend_on_seed_step_and_position_alone() -> None:
    whole = draws(3, 17, range(6), SHAPE, TINY, DROPOUT)
    later = draws(3, 17, (4, 5), SHAPE, TINY, DROPOUT)
    torch.manual_seed(99)
    again = draws(3, 17, range(6), SHAPE, TINY, DROPOUT)
    for name, value in vars(whole).items():
        assert torch.equal(value, getattr(again, name))
        assert torch.equal(value[4:], getattr(later, name))
    for other in (draws(4, 17, range(6), SHAPE, TINY, DROPOUT), draws(3, 18, range(6), SHAPE, TINY, DROPOUT)):
        assert not torch.equal(whole.x0, other.x0)
        assert not torch.equal(whole.latent_noise, other.latent_noise)
        assert not torch.equal(whole.t, other.t)
    assert not torch.equal(whole.x0[0], whole.x0[1])
    assert not torch.equal(whole.x0, whole.latent_noise)


def many(spec=TINY, dropout: DropoutConfig = DROPOUT, count: int = 4000) -> Draws:  # type: ignore[no-untyped-def]
    return draws(0, 0, range(count), (1, 2), spec, dropout)


def test_distributions() -> None:
    drawn = many()
    logit = torch.logit(drawn.t)
    assert bool(((drawn.t > 0) & (drawn.t < 1)).all())
    assert abs(logit.mean().item()) < 0.06
    assert logit.std().item() == pytest.approx(1, abs=0.05)
    for noise in (drawn.x0, drawn.latent_noise):
        assert abs(noise.mean().item()) < 0.05
        assert noise.std().item() == pytest.approx(1, abs=0.05)
    pairs = torch.stack((drawn.x0.flatten(), drawn.latent_noise.flatten()))
    assert abs(torch.corrcoef(pairs)[0, 1].item()) < 0.05


def test_times_as_a_configuration_says() -> None:
    usual = many()
    moved = draws(0, 0, range(4000), (1, 2), TINY, DROPOUT, TimesConfig(-0.7, 1.2))
    assert torch.allclose(torch.logit(moved.t), 1.2 * torch.logit(usual.t) - 0.7, atol=1e-3)
    assert torch.equal(moved.x0, usual.x0)


@pytest.mark.parametrize("spec", [TINY, TINY_V2], ids=["v1", "v2"])
def test_modalities_are_dropped_as_the_variant_asks(spec) -> None:  # type: ignore[no-untyped-def]
    drawn = many(spec)
    for dropped in (drawn.drop_clip, drawn.drop_sync, drawn.drop_text):
        assert dropped.float().mean().item() == pytest.approx(0.1, abs=0.02)
    both = (drawn.drop_clip & drawn.drop_sync).float().mean().item()
    assert both == pytest.approx(0.01 if spec.v2 else 0.1, abs=0.01 if spec.v2 else 0.02)
    assert torch.equal(drawn.drop_clip, drawn.drop_sync) == (not spec.v2)
    with_text = (drawn.drop_clip & drawn.drop_text).float().mean().item()
    assert with_text == pytest.approx(0.01, abs=0.01)


def test_a_configuration_decides_what_goes_together() -> None:
    always = many(TINY_V2, replace(DROPOUT, together="always"))
    never = many(TINY, replace(DROPOUT, together="never"))
    assert torch.equal(always.drop_clip, always.drop_sync)
    assert not torch.equal(never.drop_clip, never.drop_sync)
    nothing, everything = many(TINY, DropoutConfig(0.0, 0.0)), many(TINY, DropoutConfig(1.0, 1.0))
    assert not bool((nothing.drop_clip | nothing.drop_sync | nothing.drop_text).any())
    assert bool((everything.drop_clip & everything.drop_sync & everything.drop_text).all())


def test_loss_is_that_of_the_straight_path() -> None:
    """With a network whose velocity is known (zero), and sample by sample through the core's own conditions."""
    network = made_up_network(TINY)
    batch = made_up_batch(TINY, 25, 8, 16, 4)
    drawn = draws(0, 5, batch.positions, SHAPE, TINY, DropoutConfig(0.5, 0.5))
    losses = loss(network, batch, drawn)
    assert losses.shape == (4,)
    lengths = SequenceLengths(0.0, 25, 8, 16)
    for i in range(4):
        features = Features(
            clip=None if drawn.drop_clip[i] or not batch.has_video[i] else batch.clip[i : i + 1].float(),
            sync=None if drawn.drop_sync[i] or not batch.has_video[i] else batch.sync[i : i + 1].float(),
            text=None if drawn.drop_text[i] or not batch.has_text[i] else batch.text[i : i + 1].float(),
        )
        x1 = (batch.latent_mean[i] + batch.latent_std[i] * drawn.latent_noise[i] - network.latent_mean[0]) / network.latent_std[
            0
        ]
        x0, t = drawn.x0[i], drawn.t[i]
        with torch.no_grad():
            v = network((t * x1 + (1 - t) * x0)[None], t, network.conditions(features, lengths))[0]
        assert losses[i].item() == pytest.approx((v - x1 + x0).square().mean().item(), rel=1e-4)


def test_a_network_at_step_0_has_the_loss_of_no_prediction() -> None:
    network = FlowNetwork(TINY)
    initialise_(network, 0)
    batch = made_up_batch(TINY, 25, 8, 16, 4)
    drawn = draws(0, 0, batch.positions, SHAPE, TINY, DROPOUT)
    x1 = batch.latent_mean + batch.latent_std * drawn.latent_noise
    expected = (x1 - drawn.x0).square().mean(dim=(1, 2))
    torch.testing.assert_close(loss(network, batch, drawn), expected)


def test_validation_leaves_every_input_in() -> None:
    drawn = kept(many(dropout=DropoutConfig(1.0, 1.0), count=3))
    assert not bool((drawn.drop_clip | drawn.drop_sync | drawn.drop_text).any())


def test_every_trained_parameter_gets_a_gradient_from_any_batch() -> None:
    """Also the empty tokens where nothing is missing, so that ranks agree."""
    network = made_up_network(TINY)
    batch = made_up_batch(TINY, 25, 8, 16, 1)
    module = TrainableFlow(network)
    module(batch, draws(0, 0, batch.positions, SHAPE, TINY, DropoutConfig(0.0, 0.0))).mean().backward()
    without = {name for name, p in network.named_parameters() if p.grad is None}
    assert without == {"latent_mean", "latent_std", "empty_string_feat"}
    assert not bool(network.empty_clip_feat.grad.any())  # type: ignore[union-attr]


def test_one_forward_serves_losses_and_velocities() -> None:
    network = made_up_network(TINY)
    module, batch = TrainableFlow(network), made_up_batch(TINY, 25, 8, 16, 2)
    x, t = torch.randn(2, 25, 20, generator=torch.Generator().manual_seed(0)), torch.tensor([0.2, 0.9])
    assert torch.equal(module(batch, at=(x, t)), velocity(network, batch, x, t))
    with pytest.raises(InputError):
        module(batch)


def test_initialisation() -> None:
    network = FlowNetwork(TINY)
    initialise_(network, 0)
    state = network.state_dict()
    zero = {name for name, value in state.items() if not bool(value.any())}
    expected = {name for name in state if "adaLN_modulation" in name or "final_layer" in name}
    expected |= {"empty_clip_feat", "empty_sync_feat", "empty_string_feat", "latent_mean", "sync_pos_emb"}
    assert expected <= zero
    linear_biases = {n for n, v in state.items() if n.endswith("bias") and state[n.replace("bias", "weight")].ndim == 2}
    assert zero == expected | linear_biases
    for name in ("t_embed.mlp.0.weight", "t_embed.mlp.2.weight"):
        assert state[name].std().item() == pytest.approx(0.02, rel=0.05)
    qkv = state["fused_blocks.0.attn.qkv.weight"]
    bound = math.sqrt(6 / (qkv.shape[0] + qkv.shape[1]))
    assert bound * 0.99 < qkv.abs().max().item() <= bound
    conv = state["fused_blocks.0.ffn.w1.weight"]
    bound = 1 / math.sqrt(conv.shape[1] * conv.shape[2])
    assert bound * 0.99 < conv.abs().max().item() <= bound
    assert 0 < state["audio_input_proj.0.bias"].abs().max().item() <= 1 / math.sqrt(20 * 7)
    assert bool((state["fused_blocks.0.attn.q_norm.weight"] == 1).all())

    torch.manual_seed(5)
    again, other = FlowNetwork(TINY), FlowNetwork(TINY)
    initialise_(again, 0)
    initialise_(other, 1)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in state.items())
    assert not torch.equal(other.state_dict()["clip_cond_proj.weight"], state["clip_cond_proj.weight"])
