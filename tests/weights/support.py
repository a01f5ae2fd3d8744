"""Small parts, files and manifests for the tests of this folder."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import pytest
import torch

from mmaudio_core.spec.model import CLIPSpec, FlowSpec, PartSpec, SynchformerSpec, VAESpec, VocoderSpec
from mmaudio_core.weights.build import build_module

GOLDENS = Path(os.environ.get("MMAUDIO_GOLDENS", Path(__file__).parents[2].parent / "shared" / "goldens"))

TINY: dict[str, PartSpec] = {
    "flow": FlowSpec(40, 128, 2, 2, 3, v2=True),
    "vae": VAESpec(128, 40, 16),
    "vocoder": VocoderSpec(128, 64, (8, 4, 2, 2, 2, 2), (16, 8, 4, 4, 4, 4), final_bias=False, final_tanh=False),
    "synchformer": SynchformerSpec(width=128, heads=2, blocks=2, mlp_width=256),
    "clip": CLIPSpec(32, 28, 2, 64, 16, 14, 77, 100, 64, 4, 2),
}
"""One small configuration per kind; CLIP's head widths and image size are such that shapes alone do not give them."""


def manifest(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a published file; skips the test where the manifests are absent."""
    path = GOLDENS / "manifests.json"
    if name == "synchformer_full":
        path = GOLDENS / "manifest_synchformer_full.json"
    if not path.is_file():
        pytest.skip(f"no {path.name}: the manifests of the published files are not here (MMAUDIO_GOLDENS)")
    values = json.loads(path.read_text())
    shapes = values if name == "synchformer_full" else values[name]
    return {key: tuple(shape) for key, shape in shapes.items()}


def clip_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published CLIP, from open_clip's own model of that layout."""
    open_clip = pytest.importorskip("open_clip", reason="open_clip gives the names of the published CLIP")
    config = open_clip.get_model_config("ViT-H-14-378-quickgelu")
    with torch.device("meta"):
        model = open_clip.model.CLIP(
            config["embed_dim"],
            open_clip.model.CLIPVisionCfg(**config["vision_cfg"]),
            open_clip.model.CLIPTextCfg(**config["text_cfg"]),
            quick_gelu=True,
        )
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def meta(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def spelled(shapes: dict[str, tuple[int, ...]], spelling: str) -> dict[str, tuple[int, ...]]:
    """A vocoder's manifest (weight_g, weight_v) in one of the three spellings."""
    result = {}
    for name, shape in shapes.items():
        if spelling == "parametrized":
            name = name.replace("weight_g", "parametrizations.weight.original0")
            name = name.replace("weight_v", "parametrizations.weight.original1")
        elif spelling == "folded":
            if name.endswith("weight_g"):
                continue
            name = name.replace("weight_v", "weight")
        result[name] = shape
    return result


@functools.cache
def _tiny(kind: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    state = build_module(TINY[kind]).state_dict()
    return {name: torch.randn_like(tensor) if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def tiny(kind: str) -> dict[str, torch.Tensor]:
    """Random tensors of ``TINY[kind]`` under our modules' names."""
    return dict(_tiny(kind))
