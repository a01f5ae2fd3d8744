"""Synchformer's divided attention over time and over space, for the 24 segments of 8 s."""

from __future__ import annotations

import torch

from mmaudio_core.kernels.divided_attention import divided_attention

from .flow_shapes import random
from .timing import Row, bytes_of, measure, variants

HEADS, FRAMES, PATCHES = 12, 8, 196


def run(device: str, dtype: torch.dtype, quick: bool) -> list[Row]:
    functions = variants("divided_attention", "divided_attention", divided_attention, device)
    result = []
    for segments in (1,) if quick or device == "cpu" else (1, 8, 24):
        qkv = random(segments, 1 + FRAMES * PATCHES, 3 * HEADS * 64, device=device, dtype=dtype)
        for name, over_time in (("time", True), ("space", False)):
            inputs = (qkv, HEADS, FRAMES, over_time)
            result += measure(f"{segments} segments, over {name}", functions, inputs, bytes_of(qkv) * 4 // 3, quick)
    return result
