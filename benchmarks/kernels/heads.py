"""Packed projection to heads, in both packings, into the tensors that all streams of a joint block share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mmaudio_core.kernels.heads import split_heads_into
from mmaudio_core.layers.rope import rope_table

from .flow_shapes import random, shapes
from .timing import Row, bytes_of, measure, variants

OTHER_TOKENS = 64 + 77
"""Visual and text tokens, which the latent's come before."""


def into(function: Callable[..., None] | None, shared: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]] | None:
    """``function`` on ``shared``, which it fills in part and which it returns."""
    if function is None:
        return None

    def fill(*given: Any) -> Sequence[Tensor]:
        function(*given, *shared, 0)
        return shared

    return fill


def run(device: str, dtype: torch.dtype, quick: bool) -> list[Row]:
    functions = variants("heads", "split_heads_into", split_heads_into, device)
    result = []
    for shape in shapes(quick):
        packed = random(shape.batch, shape.length, 3 * shape.width, device=device, dtype=dtype)
        weights = [random(64, device=device, dtype=dtype, seed=1 + i) + 1 for i in range(2)]
        rope = rope_table(shape.length, 64, device=torch.device(device))
        size = (shape.batch, shape.heads, shape.length + OTHER_TOKENS, 64)
        for name, interleaved in (("interleaved", True), ("part by part", False)):
            calls = {
                n: into(f, [torch.zeros(size, device=device, dtype=dtype) for _ in range(3)]) for n, f in functions.items()
            }
            expected = [torch.zeros(size, device=device, dtype=torch.float64) for _ in range(3)]

            def judge(packed: Tensor, heads: int, q: Tensor, k: Tensor, rope: Tensor, interleaved: bool, into=expected) -> Any:
                split_heads_into(packed, heads, q, k, rope.float(), interleaved, *into, 0)
                return into

            given = (packed, shape.heads, *weights, rope, interleaved)
            moved = bytes_of(packed, packed, rope, *weights)
            result += measure(f"{shape.case}, {name}", calls, given, moved, quick, judge)
    return result
