"""The flow network's convolutions of three taps, both guidance branches in one batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmaudio_core.kernels.conv3 import conv3
from mmaudio_core.layers.mlp import swiglu_width

from .flow_shapes import random, shapes
from .timing import Row, bytes_of, measure, variants


def conv1d(x: Tensor, weight: Tensor) -> Tensor:
    """torch's own on the channel-last tensor; its weight is a view, so its layout costs what it costs in the model."""
    return F.conv1d(x.transpose(1, 2), weight.unflatten(1, (3, -1)).transpose(1, 2), padding=1).transpose(1, 2)


def run(device: str, dtype: torch.dtype, quick: bool) -> list[Row]:
    functions = variants("conv3", "conv3", conv3, device) | {"conv1d": conv1d}
    result = []
    for shape in shapes(quick)[:3]:
        inner = swiglu_width(shape.width)
        for name, channels, outputs in (("in", shape.width, 2 * inner), ("out", inner, shape.width)):
            x = random(shape.batch, shape.length, channels, device=device, dtype=dtype)
            weight = random(outputs, 3 * channels, device=device, dtype=dtype, seed=1) / (3 * channels) ** 0.5
            moved = bytes_of(x, weight) + bytes_of(x) * outputs // channels
            result += measure(f"{shape.case}, {name}: {channels} -> {outputs}", functions, (x, weight), moved, quick)
    return result
