"""Made-up weights for the tests in ComfyUI: any configuration, and LoRAs on it."""

from __future__ import annotations

import math
import zlib
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mmaudio_core.spec.model import FlowSpec, PartSpec
from mmaudio_core.weights.build import build_module


def made_up(spec: PartSpec, seed: str = "") -> dict[str, Tensor]:
    """A state dictionary whose every number reaches the output, float32."""
    with torch.device("meta"):
        shapes = {name: tuple(tensor.shape) for name, tensor in build_module(spec).state_dict().items()}
    tensors = {}
    for name, shape in shapes.items():
        generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}{name}".encode()))
        value = torch.randn(shape, generator=generator)
        if name.endswith("latent_std"):
            value = 1 + 0.2 * value.abs()
        elif len(shape) >= 2:
            value = value / math.sqrt(math.prod(shape[1:]))
        elif name.endswith("weight"):
            value = 1 + 0.1 * value
        else:
            value = 0.1 * value
        tensors[name] = value
    return tensors


def write_flow(path: Path, spec: FlowSpec, seed: str = "") -> dict[str, Tensor]:
    """A flow network's file as the published ones are; returns its tensors."""
    tensors = made_up(spec, seed)
    save_file(tensors, path)
    return tensors


def write_lora(path: Path, weights: dict[str, Tensor], rank: int = 4, strength: float = 0.7) -> dict[str, Tensor]:
    """A LoRA on every second matrix of the blocks; returns ``weights`` with it merged at ``strength``."""
    lora, merged = {}, dict(weights)
    names = [name for name, value in weights.items() if "blocks." in name and name.endswith(".weight") and value.ndim >= 2]
    for name in names[::2]:
        value = weights[name]
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        shape = value.shape
        down = torch.randn((rank, *shape[1:]), generator=generator) / math.sqrt(math.prod(shape[1:]))
        up = 0.2 * torch.randn((shape[0], rank, *[1] * (len(shape) - 2)), generator=generator)
        module = f"diffusion_model.{name.removesuffix('.weight')}"
        lora |= {f"{module}.lora_A.weight": down, f"{module}.lora_B.weight": up}
        change = (up.flatten(1) @ down.flatten(1)).reshape(shape)
        merged[name] = value + strength * change
    save_file(lora, path)
    return merged
