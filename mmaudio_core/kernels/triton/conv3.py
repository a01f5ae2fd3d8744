"""Convolution of three taps over time as one matrix product that reads its input three times, shifted."""

from __future__ import annotations

from torch import Tensor

from ..conv3 import check_conv3
from .inference import check_inference
from .matmul import matmul


def conv3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """See ``kernels.conv3.conv3``; the three taps are summed in float32 and rounded once, into contiguous memory.

    Raises:
        InputError: as the reference, and when a gradient is wanted or a dtype is none of float16, bfloat16 and float32.
    """
    check_conv3(x, weight, bias)
    check_inference("conv3", x=x, weight=weight, bias=bias)
    return matmul(x, weight, bias, taps=3, quick_gelu=False)
