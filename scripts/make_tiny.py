"""Writes the embedded model ``mmaudio_core/assets/tiny.safetensors``: every part, tiny and UNTRAINED, from a fixed seed.

    python scripts/make_tiny.py [--output FILE]

The numbers are made up so that every input reaches the output (no zero-initialised gates) and the sound is quiet noise.
"""

from __future__ import annotations

import argparse
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mmaudio_core.spec.model import CLIPSpec, FlowSpec, PartSpec, SynchformerSpec, VAESpec, VocoderSpec
from mmaudio_core.weights.build import build_module
from mmaudio_core.weights.convert import write_family

SEED = 20_241_219
ASSET = Path(__file__).resolve().parents[1] / "mmaudio_core" / "assets" / "tiny.safetensors"
SPECS: dict[str, PartSpec] = {
    "flow": FlowSpec(20, 64, 1, joint_blocks=2, audio_blocks=1, v2=True, clip_dim=64, sync_dim=64, text_dim=16),
    "vae": VAESpec(mel_bins=80, latent_dim=20, width=16),
    "vocoder": VocoderSpec(80, 64, (4, 4, 2, 2, 2, 2), (8, 8, 4, 4, 4, 4)),
    "synchformer": SynchformerSpec(width=64, heads=1, blocks=2, mlp_width=128),
    "clip": CLIPSpec(
        embed_dim=64,
        image_size=224,
        vision_layers=2,
        vision_width=64,
        vision_head_width=64,
        patch=32,
        text_width=16,
        text_heads=1,
        text_layers=2,
    ),
}
MEL_LOG10_MEAN, MEL_LOG10_STD = -3.5, 0.5
"""A quiet room in log10 mel units, so that untrained noise does not hurt."""


def made_up(name: str, shape: tuple[int, ...]) -> Tensor:
    """One tensor: fan-in scaled normal for weights, near one for norms, near zero for biases."""
    x = np.random.RandomState(zlib.crc32(f"{SEED}:{name}".encode())).standard_normal(shape)
    if name.endswith("data_mean"):
        x = np.full(shape, MEL_LOG10_MEAN)
    elif name.endswith("data_std"):
        x = np.full(shape, MEL_LOG10_STD)
    elif name.endswith("latent_mean"):
        x = np.zeros(shape)
    elif name.endswith("latent_std"):
        x = np.ones(shape)
    elif "conv_post" in name:
        x = 0.001 * x
    elif len(shape) >= 2:
        x = x / math.sqrt(math.prod(shape[1:]))
    elif name.endswith("weight"):
        x = 1 + 0.1 * x
    else:
        x = 0.1 * x
    return torch.from_numpy(np.ascontiguousarray(x, dtype=np.float32)).reshape(shape).half()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ASSET)
    output = parser.parse_args().output
    parts = {}
    for kind, spec in SPECS.items():
        with torch.device("meta"):
            shapes = {name: tuple(t.shape) for name, t in build_module(spec).state_dict().items()}
        parts[kind] = (spec, {name: made_up(f"{kind}.{name}", shape) for name, shape in shapes.items()})
    write_family(parts, output, {"variant": "tiny", "licence": "MIT", "trained": False}, overwrite=True)
    print(f"{output}: {output.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
