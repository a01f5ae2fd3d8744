"""The gated sum, alone and with the adaptive layer norm that follows; the latter also beside both in turn."""

from __future__ import annotations

import torch
from torch import Tensor

from mmaudio_core.kernels.gate import gated_add, gated_add_adaln

from .flow_shapes import random, shapes, table
from .timing import Row, bytes_of, kernel, measure, variants


def in_turn(kind: str, device: str):
    """``gated_add_adaln`` made of two kernels: what the joint one saves."""
    add, norm = kernel(kind, "gate", "gated_add", device), kernel(kind, "adaln", "adaln", device)
    if add is None or norm is None:
        return None

    def both(x: Tensor, y: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        total = add(x, y, gate, rows)
        return total, norm(total, shift, scale, rows)

    return both


def run(device: str, dtype: torch.dtype, quick: bool) -> list[Row]:
    alone = variants("gate", "gated_add", gated_add, device)
    joint = variants("gate", "gated_add_adaln", gated_add_adaln, device)
    joint |= {f"{kind}, two kernels": in_turn(kind, device) for kind in ("triton", "cuda")}
    result = []
    for shape in shapes(quick):
        x, y = (random(shape.batch, shape.length, shape.width, device=device, dtype=dtype, seed=i) for i in range(2))
        (gate, shift, scale, *_), rows = table(shape, device, dtype)
        moved = bytes_of(x, x, y, gate, rows)
        result += measure(f"{shape.case}, sum", alone, (x, y, gate, rows), moved, quick)
        moved += bytes_of(x, shift, scale)
        result += measure(f"{shape.case}, sum and norm", joint, (x, y, gate, shift, scale, rows), moved, quick)
    return result
