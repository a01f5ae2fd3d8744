"""LoRAs: the network with one equals the merged one, everywhere a LoRA can be applied."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmaudio_core.errors import InputError, WeightsError
from mmaudio_core.spec.model import FlowSpec
from mmaudio_core.spec.timing import SequenceLengths
from mmaudio_core.transformer.model import FlowNetwork
from mmaudio_core.types import Features
from mmaudio_core.weights.build import load_part
from mmaudio_core.weights.convert import convert
from mmaudio_core.weights.inspect import describe
from mmaudio_core.weights.lora import check_lora, looks_like_lora
from mmaudio_core.weights.parts import open_raw_part
from tests.nodes.host import TINY, running_host
from tests.nodes.made_up import weights
from trainer.cli import merge
from trainer.engine.generators import generator_of
from trainer.lora.file import load_lora, lora_state, save_lora
from trainer.lora.inject import add_lora, draw_dropout, lora_parameters, merge_

SPEC = FlowSpec(20, 64, 1, 1, 1, clip_dim=16, sync_dim=16, text_dim=16)
LENGTHS = SequenceLengths(0.5, latent=10, clip=4, sync=8)


def made_up_network(spec: FlowSpec = SPEC) -> FlowNetwork:
    network = FlowNetwork(spec)
    network.load_state_dict(weights(spec))
    return network


def with_lora(targets: tuple[str, ...] = ("*",), **options: Any) -> FlowNetwork:
    """A network whose LoRA changes it."""
    network, made = made_up_network(), torch.Generator().manual_seed(4)
    for up in add_lora(network, 4, 6.0, targets, **options)[1::2]:
        up.data = 0.05 * torch.randn(up.shape, generator=made)
    return network


def velocity(network: FlowNetwork, batch: int = 2) -> Tensor:
    made, like = torch.Generator().manual_seed(5), network.latent_mean
    shapes = (LENGTHS.latent, 20), (LENGTHS.clip, 16), (LENGTHS.sync, 16), (77, 16)
    x, clip, sync, text = (torch.randn(batch, *shape, generator=made).to(like) for shape in shapes)
    return network(x, torch.tensor([0.4]), network.conditions(Features(clip, sync, text), LENGTHS))


def test_it_begins_as_the_network_and_equals_merged_weights() -> None:
    plain = made_up_network()
    network = made_up_network()
    add_lora(network, 4, 6.0, ("*",))
    assert torch.equal(velocity(network), velocity(plain))
    changed = with_lora().double()
    merged = merge_(copy.deepcopy(changed))
    assert set(merged.state_dict()) == set(plain.state_dict())
    assert type(merged) is FlowNetwork
    assert [type(m) for m in merged.modules()] == [type(m) for m in plain.modules()]
    out = velocity(changed)
    assert torch.allclose(out, velocity(merged), atol=1e-6)
    assert torch.allclose(velocity(changed.float()), velocity(merged.float()), atol=1e-5)
    assert not torch.allclose(out.float(), velocity(plain), atol=1e-2)


def test_strength_scales_the_change() -> None:
    network, plain = with_lora(), made_up_network().state_dict()
    full, half, none = (merge_(copy.deepcopy(network), s).state_dict() for s in (1.0, 0.5, 0.0))
    changed = 0
    for name, weight in plain.items():
        assert torch.equal(none[name], weight)
        assert torch.allclose(2 * (half[name] - weight), full[name] - weight, atol=1e-6)
        changed += not torch.equal(full[name], weight)
    assert changed == len(lora_parameters(network)) // 2 > 30


@pytest.mark.parametrize(
    "layer", [nn.Linear(6, 5), nn.Conv1d(6, 5, 3, stride=2, padding=2, dilation=2)], ids=["linear", "conv"]
)
def test_layers_of_torch(layer: nn.Module) -> None:
    network = nn.Sequential(layer)
    for up in add_lora(network, 2, 3.0, ("0",))[1::2]:
        nn.init.ones_(up)
    x = torch.randn(2, 9, 6) if isinstance(layer, nn.Linear) else torch.randn(2, 6, 9)
    assert torch.allclose(network(x), merge_(copy.deepcopy(network))(x), atol=1e-5)


def test_training_changes_nothing_else() -> None:
    network = made_up_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    parameters = add_lora(network, 2, 4.0)
    assert len(parameters) == 24
    assert [id(p) for p in network.parameters() if p.requires_grad] == [id(p) for p in parameters]
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(5):
        loss = velocity(network).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]
    after = network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(torch.count_nonzero(up) for up in parameters[1::2])


def test_seeds_and_patterns() -> None:
    first, same, other = (add_lora(made_up_network(), 2, 4.0, ("*.qkv",), seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, same, strict=True))
    assert not torch.equal(first[0], other[0])
    assert len(first) == 8  # three streams and one audio-only block
    with pytest.raises(InputError, match=r"pattern '\*\.query' matches no layer .* such as audio_input_proj\.0"):
        add_lora(made_up_network(), 2, 4.0, ("*.qkv", "*.query"))
    with pytest.raises(InputError, match="No pattern was given"):
        add_lora(made_up_network(), 2, 4.0, ())
    with pytest.raises(InputError, match="rank 0, alpha 4 and dropout 0"):
        add_lora(made_up_network(), 0, 4.0)
    with pytest.raises(InputError, match="has a LoRA already"):
        add_lora(with_lora(), 2, 4.0)


def test_dropout_depends_on_seed_step_and_place_alone() -> None:
    network = with_lora(dropout=0.5)
    network.eval()
    still = velocity(network)
    network.train()
    with pytest.raises(InputError, match="draw_dropout"):
        velocity(network)
    draw_dropout(network, 7, 3, (0, 1))
    both = velocity(network)
    draw_dropout(network, 7, 3, (0, 1))
    assert torch.equal(velocity(network), both)
    kept = [module.kept.clone() for module in network.modules() if hasattr(module, "kept")]
    draw_dropout(network, 7, 3, (1,))
    assert all(
        torch.equal(a.kept[0], k[1]) for a, k in zip((m for m in network.modules() if hasattr(m, "kept")), kept, strict=True)
    )
    draw_dropout(network, 7, 4, (0, 1))
    assert not torch.allclose(velocity(network), both, atol=1e-3)
    assert not torch.allclose(both, still, atol=1e-3)
    assert set(torch.cat([k.flatten() for k in kept]).tolist()) == {0.0, 2.0}
    masks = torch.cat([k[0] for k in kept])
    noise = torch.rand(len(masks), generator=generator_of(7, 3, 0))
    assert not torch.equal(masks, 2.0 * (noise >= 0.5)), "the step's noise is drawn from these numbers"


def test_the_file(tmp_path: Path) -> None:
    network, path = with_lora(("*.attn.qkv", "*.ffn.w?", "*.linear1")), tmp_path / "a.safetensors"
    save_lora(network, path, {"step": 7})
    plain = made_up_network()
    assert check_lora(path, {name: tuple(value.shape) for name, value in plain.state_dict().items()}) == 12
    assert looks_like_lora(path)
    tensors = load_file(path)
    name = "diffusion_model.fused_blocks.0.ffn.w1"
    assert tensors[f"{name}.lora_A.weight"].shape == (4, 64, 3)
    assert tensors[f"{name}.lora_B.weight"].shape == (256, 4, 1)
    assert float(tensors[f"{name}.alpha"]) == 6.0
    assert set(tensors) == set(lora_state(network))
    again = load_lora(plain, path)
    assert all(torch.equal(a, b) for a, b in zip(again, lora_parameters(network), strict=True))
    assert torch.equal(velocity(plain), velocity(network))
    with pytest.raises(WeightsError, match="is a LoRA"):
        describe(path)
    with pytest.raises(InputError, match="has no LoRA to save"):
        save_lora(made_up_network(), tmp_path / "b.safetensors")


def run_merge(*arguments: Any) -> int:
    import argparse

    parser = argparse.ArgumentParser()
    merge.add_arguments(parser)
    return merge.run(argparse.Namespace(**vars(parser.parse_args([str(a) for a in arguments])), quiet=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_merge(tmp_path: Path, dtype: torch.dtype) -> None:
    base, lora, out = (tmp_path / f"{name}.safetensors" for name in ("base", "lora", "out"))
    save_file(weights(SPEC), tmp_path / "plain.safetensors")
    convert(tmp_path / "plain.safetensors", base, dtype)
    network = with_lora()
    save_lora(network, lora)
    assert run_merge(base, lora, "--strength", "0.8", "-o", out) == 0
    loaded, spec = load_part(out, "flow")
    assert spec == SPEC
    expected = merge_(network, 0.8).state_dict()
    for name, value in loaded.state_dict().items():
        assert value.dtype == dtype
        assert torch.allclose(value.float(), expected[name], atol=1e-6 if dtype == torch.float32 else 5e-3), name
    values = open_raw_part(out).values
    assert values["merged"] == [{"lora": "lora.safetensors", "strength": 0.8}]
    assert values["licence"] == open_raw_part(base).values["licence"]
    with pytest.raises(WeightsError, match="exists"):
        run_merge(base, lora, "-o", out)
    run_merge(out, lora, "-o", tmp_path / "twice.safetensors")
    assert len(open_raw_part(tmp_path / "twice.safetensors").values["merged"]) == 2


def test_what_is_refused(tmp_path: Path) -> None:
    base, lora = tmp_path / "base.safetensors", tmp_path / "lora.safetensors"
    save_file(weights(FlowSpec(20, 128, 2, 1, 1, clip_dim=16, sync_dim=16, text_dim=16)), base)
    save_lora(with_lora(), lora)
    with pytest.raises(WeightsError, match=r"LoRA of another variant: .*Use it with the variant") as caught:
        run_merge(base, lora, "-o", tmp_path / "out.safetensors")
    assert "\n" not in str(caught.value)
    with pytest.raises(WeightsError, match="another variant"):
        load_lora(made_up_network(FlowSpec(20, 128, 2, 1, 1, clip_dim=16, sync_dim=16, text_dim=16)), lora)
    save_file(weights(SPEC), base)
    tensors = load_file(lora)
    save_file(tensors | {"diffusion_model.fused_blocks.0.linear1.dora_scale": torch.ones(1)}, lora)
    with pytest.raises(WeightsError, match="no plain LoRA"):
        run_merge(base, lora, "-o", tmp_path / "out.safetensors")
    with pytest.raises(WeightsError, match="flow network"):
        run_merge(lora, lora, "-o", tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_our_node_applies_it(tmp_path: Path) -> None:
    """The file in the pack's loader gives the velocity of the merged network."""
    with running_host(tmp_path) as host:
        model = host.run("LoadModel", model_file=TINY)[0]
        native = model.model.diffusion_model
        shapes = {"clip_dim": 64, "sync_dim": 128, "text_dim": 64}
        network = FlowNetwork(FlowSpec(20, 128, 2, 2, 2, v2=True, **shapes))
        network.load_state_dict({name: value.clone() for name, value in native.state_dict().items()})
        made = torch.Generator().manual_seed(6)
        for up in add_lora(network, 3, 1.5)[1::2]:
            up.data = 0.3 * torch.randn(up.shape, generator=made)
        save_lora(network, host.loras / "trained.safetensors")
        patched = host.run("LoadLoRA", model=model, lora_file="trained.safetensors", strength=0.7)[0]
        x, clip, sync, text = (torch.randn(1, *s, generator=made) for s in ((20, 63), (16, 64), (40, 128), (77, 64)))
        inputs = {"context": text, "mmaudio_clip": clip, "mmaudio_sync": sync}
        with torch.inference_mode():
            plain = native(x, torch.tensor([0.4]), **inputs)
            host.fake("comfy.model_management").load_models_gpu([patched])
            applied = patched.model.diffusion_model(x, torch.tensor([0.4]), **inputs)
            merge_(network, 0.7)
            native.load_state_dict(network.state_dict())
            merged = native(x, torch.tensor([0.4]), **inputs)
    assert torch.allclose(applied, merged, atol=1e-5)
    assert (applied - plain).abs().max() > 1e-2
