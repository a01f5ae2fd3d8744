"""The first linear layer of CLIP's blocks: QuickGELU in its epilogue, or after the library's product."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mmaudio_core.kernels.quick_gelu import linear_quick_gelu

from .flow_shapes import random
from .timing import Row, bytes_of, kernel, measure, variants

CASES = (  # name, rows, width
    ("image, 8 frames", 8 * 730, 1280),
    ("image, 64 frames", 64 * 730, 1280),
    ("text, 2 prompts", 2 * 77, 1024),
)


def in_turn(device: str) -> Callable[..., Tensor] | None:
    """The library's product, then the activation in place by one kernel."""
    activate = kernel("triton", "quick_gelu", "quick_gelu_", device)
    return None if activate is None else lambda x, weight, bias: activate(F.linear(x, weight, bias))


def run(device: str, dtype: torch.dtype, quick: bool) -> list[Row]:
    functions = variants("quick_gelu", "linear_quick_gelu", linear_quick_gelu, device)
    functions["linear, triton in place"] = in_turn(device)
    result = []
    for case, rows, width in CASES[2:] if quick or device == "cpu" else CASES:
        x = random(rows, width, device=device, dtype=dtype)
        weight = random(4 * width, width, device=device, dtype=dtype, seed=1) / width**0.5
        bias = random(4 * width, device=device, dtype=dtype, seed=2)
        moved = bytes_of(x, weight, bias) + 4 * bytes_of(x)
        result += measure(case, functions, (x, weight, bias), moved, quick)
    return result
