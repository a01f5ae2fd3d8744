"""LoRA files recognised and matched with a network by names and shapes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmaudio_core.errors import WeightsError
from mmaudio_core.spec.model import FlowSpec
from mmaudio_core.weights.build import build_module
from mmaudio_core.weights.lora import check_lora, looks_like_lora

SPEC = FlowSpec(20, 128, 2, 2, 1, clip_dim=48, sync_dim=24, text_dim=32)


def shapes(spec: FlowSpec = SPEC) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in build_module(spec).state_dict().items()}


def matrices(network: dict[str, tuple[int, ...]]) -> list[str]:
    return [name.removesuffix(".weight") for name, shape in network.items() if name.endswith(".weight") and len(shape) > 1]


def spelled(layer: str, prefix: str, ends: tuple[str, str]) -> tuple[str, str]:
    name = prefix + (layer.replace(".", "_") if prefix == "lora_unet_" else layer)
    return name + ends[0], name + ends[1]


def lora(
    path: Path,
    network: dict[str, tuple[int, ...]],
    layers: list[str],
    prefix: str = "diffusion_model.",
    ends: tuple[str, str] = (".lora_A.weight", ".lora_B.weight"),
    rank: int = 4,
) -> Path:
    tensors = {}
    for layer in layers:
        shape = network[f"{layer}.weight"]
        down, up = spelled(layer, prefix, ends)
        tensors[down], tensors[up] = torch.zeros(rank, *shape[1:]), torch.zeros(shape[0], rank, *(1 for _ in shape[2:]))
    save_file(tensors, path)
    return path


@pytest.mark.parametrize("prefix", ["diffusion_model.", "transformer.", "", "lora_unet_"])
@pytest.mark.parametrize("ends", [(".lora_A.weight", ".lora_B.weight"), (".lora_down.weight", ".lora_up.weight")], ids=str)
def test_every_layer_in_every_spelling(tmp_path: Path, prefix: str, ends: tuple[str, str]) -> None:
    network = shapes()
    layers = matrices(network)
    assert len(layers) > 30
    path = lora(tmp_path / "a.safetensors", network, layers, prefix, ends)
    assert check_lora(path, network) == len(layers)
    assert looks_like_lora(path)


@pytest.mark.parametrize("wrong", ["up", "down", "rank"])
def test_each_misfit_counts(tmp_path: Path, wrong: str) -> None:
    network = shapes()
    layer = next(name for name in matrices(network) if len(network[f"{name}.weight"]) == 2)
    out, inner = network[f"{layer}.weight"]
    down, up = torch.zeros(4, inner + (wrong == "down")), torch.zeros(out + (wrong == "up"), 4 + (wrong == "rank"))
    path = tmp_path / "a.safetensors"
    save_file({f"diffusion_model.{layer}.lora_A.weight": down, f"diffusion_model.{layer}.lora_B.weight": up}, path)
    with pytest.raises(WeightsError, match=r"1 of its 1 layers do not fit this network, such as .*Use it with the variant"):
        check_lora(path, network)


def test_other_variants_and_models(tmp_path: Path) -> None:
    wider, deeper = (
        shapes(FlowSpec(20, 192, 3, 2, 1)),
        shapes(FlowSpec(20, 128, 2, 3, 1, clip_dim=48, sync_dim=24, text_dim=32)),
    )
    path = lora(tmp_path / "a.safetensors", wider, matrices(wider))
    with pytest.raises(WeightsError, match=r"a\.safetensors is a LoRA of another variant"):
        check_lora(path, shapes())
    more = [name for name in matrices(deeper) if name.startswith("joint_blocks.2.")]
    path = lora(tmp_path / "b.safetensors", deeper, ["final_layer.conv", *more])
    with pytest.raises(
        WeightsError, match=r"this network lacks \d+ of its \d+ layers, such as diffusion_model\.joint_blocks\.2\."
    ):
        check_lora(path, shapes())
    path = lora(tmp_path / "c.safetensors", {"down_blocks.0.attn.weight": (8, 8)}, ["down_blocks.0.attn"])
    with pytest.raises(WeightsError, match=r"LoRA of another model: this network has no layer such as .*down_blocks"):
        check_lora(path, shapes())
    assert not looks_like_lora(path)


def test_what_is_no_lora(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"joint_blocks.0.lora_A.weight": torch.zeros(4, 8)}, path)  # half a pair
    with pytest.raises(WeightsError, match="is no LoRA: it has no pairs"):
        check_lora(path, shapes())
    for junk in (b"", b"\0" * 3, b"\0" * 99, b"\xff" * 99, b"{}"):
        path.write_bytes(junk)
        assert not looks_like_lora(path)
        with pytest.raises(WeightsError):
            check_lora(path, shapes())
    assert not looks_like_lora(tmp_path / "absent.safetensors")
    assert not looks_like_lora(tmp_path)
