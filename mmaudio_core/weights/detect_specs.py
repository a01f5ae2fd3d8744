"""Reading each part's sizes off tensor shapes; the names are those of our modules (``keymaps.normal_shapes``).

Each reader returns the arguments of its spec. A missing tensor raises LookupError with the end of a sentence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..spec.model import HEAD_DIM, CLIPSpec

Shapes = Mapping[str, tuple[int, ...]]

PUBLISHED_CLIP_GRID = (27, 14)
"""The published CLIP is fed 384 pixels, of which its 27 patches of 14 read 378 (spec section 8, R5)."""


def _dim(shapes: Shapes, name: str, axis: int) -> int:
    if name not in shapes:
        raise LookupError(f"it lacks the tensor {name}")
    try:
        return int(shapes[name][axis])
    except IndexError:
        raise LookupError(f"its tensor {name} has the shape {shapes[name]}") from None


def _count(shapes: Shapes, pattern: str) -> int:
    """How many different numbers stand in the place of the group in ``pattern``."""
    return len({found.group(1) for name in shapes if (found := re.match(pattern, name))})


def _square(tokens: int, name: str) -> int:
    side = math.isqrt(tokens)
    if side < 1 or side * side != tokens:
        raise LookupError(f"its {name} has {tokens} patch positions, which is no square")
    return side


def read_flow(shapes: Shapes) -> dict[str, Any]:
    width = _dim(shapes, "audio_input_proj.0.bias", 0)
    head = _dim(shapes, "joint_blocks.0.latent_block.attn.q_norm.weight", 0)
    return {
        "latent_dim": _dim(shapes, "latent_mean", -1),
        "width": width,
        "heads": width // head,
        "joint_blocks": _count(shapes, r"joint_blocks\.(\d+)\."),
        "audio_blocks": _count(shapes, r"fused_blocks\.(\d+)\."),
        # v2 puts an activation between the projection and its MLP, which moves the MLP from place 1 to 2.
        "v2": "clip_input_proj.2.w1.weight" in shapes,
        "clip_dim": _dim(shapes, "clip_input_proj.0.weight", 1),
        "sync_dim": _dim(shapes, "sync_input_proj.0.weight", 1),
        "text_dim": _dim(shapes, "text_input_proj.0.weight", 1),
        "text_tokens": _dim(shapes, "empty_string_feat", 0),
        "mlp": "linear" if _dim(shapes, "joint_blocks.0.latent_block.ffn.w1.weight", 2) == 1 else "conv",
    }


def read_vae(shapes: Shapes) -> dict[str, Any]:
    return {
        "mel_bins": _dim(shapes, "encoder.conv_in.weight", 1),
        "latent_dim": _dim(shapes, "decoder.conv_in.weight", 1),
        "width": _dim(shapes, "encoder.conv_in.weight", 0),
    }


def read_vocoder(shapes: Shapes) -> dict[str, Any]:
    stages = _count(shapes, r"ups\.(\d+)\.")
    blocks = _count(shapes, r"resblocks\.(\d+)\.") // stages
    kernels = tuple(_dim(shapes, f"ups.{i}.0.weight", 2) for i in range(stages))
    final_bias = "conv_post.bias" in shapes
    steps = _count(shapes, r"resblocks\.0\.convs1\.(\d+)\.")
    return {
        "mel_bins": _dim(shapes, "conv_pre.weight", 1),
        "width": _dim(shapes, "conv_pre.weight", 0),
        # Every published BigVGAN has kernels of twice the rate.
        "rates": tuple(kernel // 2 for kernel in kernels),
        "kernels": kernels,
        "block_kernels": tuple(_dim(shapes, f"resblocks.{i}.convs1.0.weight", 2) for i in range(blocks)),
        "block_dilations": tuple(2 * i + 1 for i in range(steps)),
        "final_bias": final_bias,
        # The first version ends with a bias and tanh; the second (44.1 kHz) dropped both.
        "final_tanh": final_bias,
    }


def read_synchformer(shapes: Shapes) -> dict[str, Any]:
    width = _dim(shapes, "cls_token", -1)
    return {
        "width": width,
        "heads": max(1, width // HEAD_DIM),
        "blocks": _count(shapes, r"blocks\.(\d+)\."),
        "mlp_width": _dim(shapes, "blocks.0.mlp.fc1.weight", 0),
        "patch": _dim(shapes, "patch_embed_3d.proj.weight", -1),
        "grid": _square(_dim(shapes, "pos_embed", 1) - 1, "pos_embed"),
        "tubelet_frames": _dim(shapes, "patch_embed_3d.proj.weight", 2),
        "temporal_tokens": _dim(shapes, "temp_embed", 1),
    }


def read_clip(shapes: Shapes) -> dict[str, Any]:
    width = _dim(shapes, "visual.conv1.weight", 0)
    patch = _dim(shapes, "visual.conv1.weight", -1)
    grid = _square(_dim(shapes, "visual.positional_embedding", 0) - 1, "visual.positional_embedding")
    text_width = _dim(shapes, "token_embedding.weight", 1)
    published = CLIPSpec()
    return {
        "embed_dim": _dim(shapes, "visual.proj", 1),
        "image_size": published.image_size if (grid, patch) == PUBLISHED_CLIP_GRID else grid * patch,
        "vision_layers": _count(shapes, r"visual\.transformer\.resblocks\.(\d+)\."),
        "vision_width": width,
        "vision_head_width": published.vision_head_width if width == published.vision_width else HEAD_DIM,
        "patch": patch,
        "context_length": _dim(shapes, "positional_embedding", 0),
        "vocab_size": _dim(shapes, "token_embedding.weight", 0),
        "text_width": text_width,
        "text_heads": max(1, text_width // HEAD_DIM),
        "text_layers": _count(shapes, r"transformer\.resblocks\.(\d+)\."),
        "quick_gelu": True,
    }


READERS: dict[str, Callable[[Shapes], dict[str, Any]]] = {
    "flow": read_flow,
    "vae": read_vae,
    "vocoder": read_vocoder,
    "synchformer": read_synchformer,
    "clip": read_clip,
}
