"""The squared sine of a vocoder's activations on a CPU: torch's sine and a square, and the polynomial."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmaudio_core.kernels.sin_squared import SCALE, sin_squared_

from .flow_shapes import random
from .timing import Row, bytes_of, measure


def sine(x: Tensor) -> Tensor:
    return torch.mul(x, math.pi).sin_().square_()


def polynomial(x: Tensor) -> Tensor:
    return sin_squared_(x * 1).mul_(SCALE)


def run(device: str, dtype: torch.dtype, quick: bool) -> list[Row]:
    result = []
    for elements in (1 << 14,) if quick else (1 << 16, 1 << 19):
        x = random(elements, device=device, dtype=dtype)
        result += measure(f"{elements} elements", {"sine": sine, "polynomial": polynomial}, (x,), 2 * bytes_of(x), quick)
    return result
