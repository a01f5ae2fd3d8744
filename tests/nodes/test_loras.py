"""MMAudio: Load LoRA: what is listed, what is applied, what is refused."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from mmaudio_core.spec.model import FlowSpec

from .host import TINY, Host
from .made_up import weights, write_part, write_plain

RANK = 4


@pytest.fixture
def model(host: Host) -> Any:
    return host.run("LoadModel", model_file=TINY)[0]


def lora(net: Any, layers: tuple[str, ...], style: str = "peft", alpha: float | None = None) -> dict[str, torch.Tensor]:
    """A LoRA on ``layers`` of ``net`` in one of two spellings."""
    made, tensors = torch.Generator().manual_seed(3), {}
    for layer in layers:
        shape = net.state_dict()[f"{layer}.weight"].shape
        down = 0.3 * torch.randn(RANK, *shape[1:], generator=made)
        up = 0.3 * torch.randn(shape[0], RANK, *(1 for _ in shape[2:]), generator=made)
        if style == "peft":
            names = f"diffusion_model.{layer}.lora_A.weight", f"diffusion_model.{layer}.lora_B.weight"
        else:
            flat = "lora_unet_" + layer.replace(".", "_")
            names = f"{flat}.lora_down.weight", f"{flat}.lora_up.weight"
            if alpha is not None:
                tensors[f"{flat}.alpha"] = torch.tensor(alpha)
        tensors |= dict(zip(names, (down, up), strict=True))
    return tensors


def existing(net: Any) -> tuple[str, ...]:
    """A linear and a convolution layer of every kind of block."""
    names = [n.removesuffix(".weight") for n, p in net.state_dict().items() if n.endswith(".weight") and p.ndim >= 2]
    linear = [n for n in names if n.startswith("joint_blocks") and net.state_dict()[f"{n}.weight"].ndim == 2]
    conv = [n for n in names if net.state_dict()[f"{n}.weight"].ndim == 3]
    return linear[0], linear[-1], conv[0], conv[-1]


def velocity(host: Host, model: Any) -> torch.Tensor:
    net, made = model.model.diffusion_model, torch.Generator().manual_seed(9)
    x, clip, sync, text = (0.1 * torch.randn(1, *shape, generator=made) for shape in ((20, 63), (16, 64), (40, 128), (77, 64)))
    with torch.inference_mode():
        host.fake("comfy.model_management").load_models_gpu([model])
        return net(x, torch.tensor([0.4]), context=text, mmaudio_clip=clip, mmaudio_sync=sync)


@pytest.mark.parametrize(("style", "alpha", "scale"), [("peft", None, 1.0), ("flat", 2.0, 0.5), ("flat", None, 1.0)])
def test_it_equals_merged_weights(host: Host, model: Any, style: str, alpha: float | None, scale: float) -> None:
    net = model.model.diffusion_model
    layers = existing(net)
    tensors = lora(net, layers, style, alpha)
    write_plain(host.loras / "good.safetensors", tensors)
    plain = velocity(host, model)
    patched = host.run("LoadLoRA", model=model, lora_file="good.safetensors", strength=0.7)[0]
    with_lora = velocity(host, patched)
    assert torch.equal(velocity(host, model), plain)  # the model itself is as it was
    pairs = [tensors[name] for name in tensors if "alpha" not in name]
    with torch.inference_mode():
        for layer, down, up in zip(layers, pairs[::2], pairs[1::2], strict=True):
            weight = net.get_parameter(f"{layer}.weight")
            weight.data = weight + 0.7 * scale * (up.flatten(1) @ down.flatten(1)).reshape(weight.shape)
    merged = velocity(host, model)
    assert torch.allclose(with_lora, merged, atol=1e-5)
    assert (merged - plain).abs().max() > 1e-2


def test_strengths_and_two_at_once(host: Host, model: Any) -> None:
    net = model.model.diffusion_model
    write_plain(host.loras / "a.safetensors", lora(net, existing(net)))
    plain = velocity(host, model)
    assert host.run("LoadLoRA", model=model, lora_file="a.safetensors", strength=0.0)[0] is model
    full = host.run("LoadLoRA", model=model, lora_file="a.safetensors")[0]
    half = host.run("LoadLoRA", model=model, lora_file="a.safetensors", strength=0.5)[0]
    twice = host.run("LoadLoRA", model=half, lora_file="a.safetensors", strength=0.5)[0]
    back = host.run("LoadLoRA", model=full, lora_file="a.safetensors", strength=-1.0)[0]
    assert torch.allclose(velocity(host, twice), velocity(host, full), atol=1e-5)
    assert not torch.allclose(velocity(host, half), velocity(host, full), atol=1e-3)
    assert torch.allclose(velocity(host, back), plain, atol=1e-4)


def test_the_sampler_uses_it(host: Host, model: Any) -> None:
    net = model.model.diffusion_model
    write_plain(host.loras / "a.safetensors", lora(net, existing(net)))
    patched = host.run("LoadLoRA", model=model, lora_file="a.safetensors")[0]
    pack, none = host.of("nodes.host.conditioning").pack, host.of("mmaudio_core.types").Features()
    sides = {"positive": pack(none, 77, 64), "negative": pack(none, 77, 64)}
    start = host.run("EmptyLatent", model=patched, duration_s=1.0)[0]
    outs = [host.run("Sampler", model=m, latent=start, steps=2, **sides)[0]["samples"] for m in (model, patched, model)]
    assert torch.equal(outs[0], outs[2])
    assert not torch.allclose(outs[0], outs[1], atol=1e-2)


def test_only_ours_are_listed(host: Host, model: Any) -> None:
    net = model.model.diffusion_model
    write_plain(host.loras / "sub" / "ours.safetensors", lora(net, existing(net)))
    write_plain(host.loras / "sdxl.safetensors", {"lora_unet_down_blocks_1.lora_down.weight": torch.zeros(4, 8)})
    write_plain(host.loras / "weights.safetensors", weights(FlowSpec(20, 64, 1, 1, 1)))
    (host.loras / "junk.safetensors").write_bytes(b"\0" * 7)
    (host.loras / "old.pt").write_bytes(b"x")
    (host.loras / "away.safetensors").symlink_to(host.loras / "nowhere")
    assert host.of("nodes.host.loras").lora_names() == ["sub/ours.safetensors"]
    options = next(i.options for i in host.nodes["LoadLoRA"].define_schema().inputs if i.id == "lora_file")
    assert options == ["sub/ours.safetensors"]


def refused(host: Host, model: Any, name: str, **inputs: Any) -> str:
    with pytest.raises(ValueError, match=re.escape(name)) as caught:
        host.run("LoadLoRA", model=model, lora_file=name, **inputs)
    assert type(caught.value) is ValueError
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_lora_of_another_model(host: Host, model: Any) -> None:
    stranger = {f"lora_unet_down_blocks_1.{end}.weight": torch.zeros(8, 8) for end in ("lora_down", "lora_up")}
    write_plain(host.loras / "sdxl.safetensors", stranger)
    assert "is a LoRA of another model: this network has no layer such as" in refused(host, model, "sdxl.safetensors")


def test_a_lora_of_another_variant(host: Host, model: Any) -> None:
    write_part(host.models / "wide.safetensors", FlowSpec(20, 192, 3, 2, 2, v2=True, clip_dim=64, sync_dim=128, text_dim=64))
    write_part(host.models / "deep.safetensors", FlowSpec(20, 128, 2, 3, 2, v2=True, clip_dim=64, sync_dim=128, text_dim=64))
    wide, deep = (host.run("LoadModel", model_file=f"{n}.safetensors")[0].model.diffusion_model for n in ("wide", "deep"))
    write_plain(host.loras / "wide.safetensors", lora(wide, existing(wide)))
    write_plain(host.loras / "deep.safetensors", lora(deep, existing(deep)))
    said = refused(host, model, "wide.safetensors")
    assert "LoRA of another variant: 4 of its 4 layers do not fit" in said
    assert "Use it with the variant that it was trained on" in said
    assert "lacks 1 of its 4 layers" in refused(host, model, "deep.safetensors")


def test_what_is_no_lora(host: Host, model: Any) -> None:
    write_plain(host.loras / "weights.safetensors", weights(FlowSpec(20, 64, 1, 1, 1)))
    assert "is no LoRA: it has no pairs of lora_A and lora_B" in refused(host, model, "weights.safetensors")
    for junk in (b"", b"\0" * 7, b"\0" * 200, bytes(range(1, 256)) * 9, b"\xff\xd8\xff" + b"\7" * 50):
        (host.loras / "junk.safetensors").write_bytes(junk)
        refused(host, model, "junk.safetensors")
    torch.save({"a": torch.zeros(2)}, host.loras / "old.pt")
    assert "no safetensors file" in refused(host, model, "old.pt")
    assert "put a LoRA trained on MMAudio there" in refused(host, model, "gone.safetensors")
    with pytest.raises(ValueError, match="There is no LoRA '' in models/loras"):
        host.run("LoadLoRA", model=model, lora_file="")


def test_a_layer_that_the_host_leaves_out_is_said(host: Host, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    net = model.model.diffusion_model
    write_plain(host.loras / "a.safetensors", lora(net, existing(net)))
    patcher = host.fake("comfy.model_patcher").ModelPatcher
    add = patcher.add_patches
    monkeypatch.setattr(patcher, "add_patches", lambda *a: add(*a)[1:])
    assert "Of the 4 layers of the LoRA a.safetensors this ComfyUI applied 3" in refused(host, model, "a.safetensors")


def test_no_mmaudio_model(host: Host) -> None:
    with pytest.raises(ValueError, match="not an MMAudio flow network; connect the output of 'MMAudio: Load Model'"):
        host.run("LoadLoRA", model=object(), lora_file="")
