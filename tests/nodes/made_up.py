"""Small weights files, pictures and sounds for the nodes."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import torch
from safetensors.torch import save_file

from mmaudio_core.spec.model import CLIPSpec, FlowSpec, PartSpec, SynchformerSpec, VAESpec, VocoderSpec
from mmaudio_core.weights.build import build_module
from mmaudio_core.weights.convert import write_family

SPECS_44K: dict[str, PartSpec] = {
    "flow": FlowSpec(40, 64, 1, joint_blocks=1, audio_blocks=1, clip_dim=64, sync_dim=128, text_dim=64),
    "vae": VAESpec(128, 40, 16),
    "vocoder": VocoderSpec(128, 64, (8, 4, 2, 2, 2, 2), (16, 8, 4, 4, 4, 4), final_bias=False, final_tanh=False),
}
"""44.1 kHz parts that the embedded model's encoders serve."""
OTHERS: dict[str, PartSpec] = {
    "synchformer": SynchformerSpec(width=64, heads=1, blocks=1, mlp_width=64),
    "clip": CLIPSpec(32, 28, 1, 64, 64, 14, 77, 100, 16, 1, 1),
}


@functools.cache
def _weights(spec: PartSpec) -> dict[str, torch.Tensor]:
    """Values with which numbers neither vanish nor grow on their way through the layers."""
    torch.manual_seed(0)
    made = {}
    for name, value in build_module(spec).state_dict().items():
        if not value.is_floating_point() or name.endswith(("_mean", "_std")):
            made[name] = value
        elif value.ndim > 1:
            made[name] = torch.randn(value.shape) / math.sqrt(math.prod(value.shape[1:])) * (0.01 if "conv_post" in name else 1)
        else:
            made[name] = 0.1 * torch.randn(value.shape) + (1 if name.endswith("weight") else 0)
    return made


def weights(spec: PartSpec) -> dict[str, torch.Tensor]:
    """Made-up tensors for ``spec`` under the module's names."""
    return dict(_weights(spec))


def write_part(path: Path, spec: PartSpec) -> Path:
    """A file as this project writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_family({spec.kind: (spec, weights(spec))}, path, {}, overwrite=True)
    return path


def write_plain(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """A safetensors file without metadata, as other people write them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, path)
    return path


def write_44k(folder: Path) -> dict[str, Path]:
    """The 44.1 kHz parts as files with plain names."""
    return {kind: write_part(folder / f"{kind}_44k.safetensors", spec) for kind, spec in SPECS_44K.items()}


def pictures(count: int, shift: int = 0) -> torch.Tensor:
    """IMAGE (count, 48, 64, 3): a bar that moves."""
    frames = torch.zeros(count, 48, 64, 3)
    for index, frame in enumerate(frames):
        left = (index + shift) % 56
        frame[:, left : left + 8] = torch.tensor([1.0, (index % 6) / 6, 0.35])
    return frames


def tone(duration_s: float, rate_hz: int = 16_000, batch: int = 1, channels: int = 1) -> dict:
    """AUDIO: a quiet tone, another one for every clip and channel."""
    t = torch.arange(round(duration_s * rate_hz)) / rate_hz
    hz = 200.0 * (1 + torch.arange(batch * channels).reshape(batch, channels, 1))
    return {"waveform": 0.3 * torch.sin(2 * math.pi * hz * t), "sample_rate": rate_hz}
