"""One optimiser step against the same step written in plain PyTorch, and the schedule."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch

from mmaudio_core.spec.model import VARIANTS, FlowSpec
from mmaudio_core.spec.timing import sequence_lengths
from trainer.config.schema import DropoutConfig, OptimConfig
from trainer.data.batch import Batch
from trainer.flow.objective import Draws, draws
from trainer.flow.optim import learning_rate, make_optimizer
from trainer.flow.step import train_step
from trainer.flow.trainable import TrainableFlow, prepare_blocks

from . import plain_flow
from .helpers_c import ONE, TINY, TINY_V2, made_up_batch, made_up_network

CLIP_NORM = 1.0
HALF = DropoutConfig(video=0.5, text=0.5)
EMPTY = {"clip": "empty_clip_feat", "sync": "empty_sync_feat", "text": "empty_string_feat"}


def plain_step(
    weights: dict[str, torch.Tensor], trained: set[str], batch: Batch, drawn: Draws, config: OptimConfig, rate: float, v2: bool
) -> tuple[float, float, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """(loss, norm of the whole gradient, clipped gradients, weights after the step), sample by sample."""
    w = {name: value.clone().requires_grad_(name in trained) for name, value in weights.items()}
    total = torch.zeros(())
    for i in range(len(batch)):
        inputs = {}
        for name, has, drop in (
            ("clip", batch.has_video, drawn.drop_clip),
            ("sync", batch.has_video, drawn.drop_sync),
            ("text", batch.has_text, drawn.drop_text),
        ):
            value = getattr(batch, name)[i].float()
            used = bool(has[i]) and not bool(drop[i])
            inputs[name] = (value if used else w[EMPTY[name]].expand_as(value))[None]
        z = batch.latent_mean[i] + batch.latent_std[i] * drawn.latent_noise[i]
        x1 = ((z - w["latent_mean"][0]) / w["latent_std"][0])[None]
        x0, t = drawn.x0[i][None], drawn.t[i]
        v = plain_flow.velocity(w, (1 - t) * x0 + t * x1, t[None], **inputs, v2=v2)
        total = total + ((v - (x1 - x0)) ** 2).mean()
    loss = total / len(batch)
    loss.backward()
    gradients = {name: torch.as_tensor(w[name].grad) for name in trained}
    whole = torch.stack([g.double().norm() for g in gradients.values()]).norm().item()
    after = {name: value.detach() for name, value in w.items()}
    betas = (config.betas[0], config.betas[1])
    for name in trained:
        gradients[name] = gradients[name] * min(1.0, CLIP_NORM / (whole + 1e-6))
        after[name] = plain_flow.adamw(after[name], gradients[name], rate, betas, config.eps, config.weight_decay)
    return loss.item(), whole, gradients, after


def compare_step(spec: FlowSpec, lengths: tuple[int, int, int], count: int, step: int, pieces: int = 1) -> None:
    network = made_up_network(spec)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trained = {name for name, parameter in network.named_parameters() if parameter.requires_grad}
    batch = made_up_batch(spec, *lengths, count)
    config, steps = OptimConfig(), 300_000
    drawn = draws(7, step, batch.positions, (lengths[0], spec.latent_dim), spec, HALF)
    rate = learning_rate(step, steps, config)
    loss, norm, gradients, after = plain_step(before, trained, batch, drawn, config, rate, spec.v2)

    module = TrainableFlow(network, "float32")
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = make_optimizer(parameters, config, torch.device("cpu"))
    seen: dict[str, float] = {}
    held = optimizer.step

    def watched() -> None:
        seen.update({n: p.grad.double().norm().item() for n, p in network.named_parameters() if p.grad is not None})
        held()

    optimizer.step = watched  # type: ignore[assignment, method-assign]
    size = count // pieces
    split = [(rows(batch, slice(i, i + size)), rows(drawn, slice(i, i + size))) for i in range(0, count, size)]
    result = train_step(module, parameters, optimizer, split, pieces, rate, CLIP_NORM, ONE)

    assert result.taken
    assert result.loss == pytest.approx(loss, rel=1e-5)
    assert result.grad_norm == pytest.approx(norm, rel=1e-4)
    assert set(seen) == trained
    for name, value in seen.items():
        assert value == pytest.approx(gradients[name].double().norm().item(), rel=1e-4), name
    wrong = moved = 0.0
    for name, value in network.state_dict().items():
        if name not in trained:
            assert torch.equal(value, before[name]), name
            continue
        # What the last joint block asks for visual and text tokens goes nowhere.
        unused = name.startswith(f"joint_blocks.{spec.joint_blocks - 1}.") and name.endswith("q_norm.weight")
        unused = unused and "latent" not in name
        assert torch.equal(after[name], before[name]) == unused, name
        # The first update of AdamW is g / (|g| + eps): where |g| is near eps, rounding of g weighs more.
        gradient = gradients[name].abs()
        off = 1e-3 * gradient.square().mean().sqrt() / (gradient + config.eps)
        bound = rate * (1e-3 + off) + 2**-22 * value.abs()
        assert bool(((value - after[name]).abs() <= bound).all()), name
        wrong += float((value - after[name]).double().square().sum())
        moved += float((after[name] - before[name]).double().square().sum())
    assert (wrong / moved) ** 0.5 < 1e-3


def rows(value, part: slice):  # type: ignore[no-untyped-def]
    """A slice of the samples of a Batch or Draws."""
    return replace(value, **{name: item[part] for name, item in vars(value).items()})


@pytest.mark.parametrize("spec", [TINY, TINY_V2], ids=["v1", "v2"])
@pytest.mark.parametrize("pieces", [1, 2])
def test_a_step_equals_plain_pytorch(spec: FlowSpec, pieces: int) -> None:
    compare_step(spec, (25, 8, 16), 4, step=999, pieces=pieces)


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 999, 1000, 240_000, 270_000])
def test_a_step_of_small_16k_equals_plain_pytorch(step: int) -> None:
    spec = VARIANTS["small_16k"]
    lengths = sequence_lengths(2.0, spec.audio)
    compare_step(spec, (lengths.latent, lengths.clip, lengths.sync), 2, step)


@pytest.mark.parametrize(
    ("step", "rate"), [(0, 1e-7), (999, 1e-4), (1000, 1e-4), (239_999, 1e-4), (240_000, 1e-5), (269_999, 1e-5), (270_000, 1e-6)]
)
def test_learning_rates_of_the_paper(step: int, rate: float) -> None:
    assert learning_rate(step, 300_000, OptimConfig()) == pytest.approx(rate, rel=1e-12)


def test_learning_rate_without_warm_up_and_decay() -> None:
    config = OptimConfig(warmup_steps=0, decay_at=())
    assert {learning_rate(step, 10, config) for step in range(10)} == {1e-4}


def test_limits_of_zero_leave_the_gradient() -> None:
    network = made_up_network(TINY)
    batch = made_up_batch(TINY, 25, 8, 16, 4)
    drawn = draws(0, 0, batch.positions, (25, 20), TINY, HALF)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = make_optimizer(parameters, OptimConfig(), torch.device("cpu"))
    result = train_step(TrainableFlow(network), parameters, optimizer, [(batch, drawn)], 1, 1e-4, 0.0, ONE)
    left = torch.cat([p.grad.double().flatten() for p in parameters if p.grad is not None]).norm().item()
    assert result.grad_norm > CLIP_NORM
    assert left == pytest.approx(result.grad_norm, rel=1e-5)


def test_a_refused_step_changes_nothing() -> None:
    network = made_up_network(TINY)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    batch = made_up_batch(TINY, 25, 8, 16, 2)
    drawn = draws(0, 0, batch.positions, (25, 20), TINY, HALF)
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = make_optimizer(parameters, OptimConfig(), torch.device("cpu"))
    asked = []

    def judge(loss: float, norm: float, ids: list[str], losses: list[float]) -> bool:
        asked.append((loss, norm))
        assert ids == ["clip 0", "clip 1"]
        assert sum(losses) / 2 == pytest.approx(loss, rel=1e-6)
        return False

    result = train_step(TrainableFlow(network), parameters, optimizer, [(batch, drawn)], 1, 1e-4, 1.0, ONE, judge)
    assert asked == [(result.loss, result.grad_norm)]
    assert not result.taken
    assert not optimizer.state
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_checkpointed_blocks_give_the_same_gradients_under_the_same_names() -> None:
    batch = made_up_batch(TINY, 25, 8, 16, 4)
    drawn = draws(0, 0, batch.positions, (25, 20), TINY, HALF)
    found = []
    for checkpointing in (False, True):
        network = made_up_network(TINY)
        calls = []
        network.fused_blocks[0].attn.register_forward_hook(lambda *_, calls=calls: calls.append(1))
        prepare_blocks(network, checkpointing=checkpointing)
        module = TrainableFlow(network)
        module(batch, drawn).mean().backward()
        found.append((module.state_dict().keys(), {n: p.grad for n, p in module.named_parameters()}, len(calls)))
    (names, plain, once), (other_names, again, twice) = found
    assert names == other_names
    assert (once, twice) == (1, 2)
    assert plain.keys() == again.keys()
    for name, gradient in plain.items():
        assert (gradient is None) == (again[name] is None)
        assert gradient is None or torch.equal(gradient, again[name])


def test_compiled_blocks_keep_names_and_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and derived by torch.compile; code for them takes minutes to make here, so each operation runs as it is."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    batch = made_up_batch(TINY, 25, 8, 16, 4)
    drawn = draws(0, 0, batch.positions, (25, 20), TINY, HALF)
    found = []
    for compiled in (False, True):
        network = made_up_network(TINY)
        prepare_blocks(network, checkpointing=compiled, compiled=compiled)
        network_loss = TrainableFlow(network)(batch, drawn).mean()
        network_loss.backward()
        found.append({n: p.grad for n, p in network.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-3, atol=1e-5)


def test_bf16_computes_near_float32_and_keeps_float32_weights() -> None:
    batch = made_up_batch(TINY, 25, 8, 16, 4)
    drawn = draws(0, 0, batch.positions, (25, 20), TINY, HALF)
    network = made_up_network(TINY)
    exact = TrainableFlow(network, "float32")(batch, drawn)
    rough = TrainableFlow(network, "bf16")(batch, drawn)
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.05)
    rough.mean().backward()
    assert {p.grad.dtype for p in network.parameters() if p.grad is not None} == {torch.float32}
