"""The adaptive layer norm: a row of the table for each token, and one for each sample."""

from __future__ import annotations

import torch

from mmaudio_core.kernels.adaln import adaln

from .flow_shapes import random, shapes, table
from .timing import Row, bytes_of, measure, variants


def run(device: str, dtype: torch.dtype, quick: bool) -> list[Row]:
    functions = variants("adaln", "adaln", adaln, device)
    result = []
    for shape in shapes(quick):
        x = random(shape.batch, shape.length, shape.width, device=device, dtype=dtype)
        (shift, scale, *_), rows = table(shape, device, dtype)
        moved = bytes_of(x, x, shift, scale, rows)
        result += measure(f"{shape.case}, row per token", functions, (x, shift, scale, rows), moved, quick)
        one = shift[: shape.batch], scale[: shape.batch]
        result += measure(f"{shape.case}, row per sample", functions, (x, *one), bytes_of(x, x, *one), quick)
    return result
