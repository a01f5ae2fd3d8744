"""The gate of SwiGLU on the output of the joint projection."""

from __future__ import annotations

import torch

from mmaudio_core.kernels.swiglu import swiglu
from mmaudio_core.layers.mlp import swiglu_width

from .flow_shapes import random, shapes
from .timing import Row, bytes_of, measure, variants


def run(device: str, dtype: torch.dtype, quick: bool) -> list[Row]:
    functions = variants("swiglu", "swiglu", swiglu, device)
    result = []
    for shape in shapes(quick):
        packed = random(shape.batch, shape.length, 2 * swiglu_width(shape.width), device=device, dtype=dtype)
        result += measure(shape.case, functions, (packed,), bytes_of(packed) * 3 // 2, quick)
    return result
