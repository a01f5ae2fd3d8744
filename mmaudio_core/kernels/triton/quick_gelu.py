"""QuickGELU in the epilogue of a linear layer's matrix product, and alone."""

# mypy: disallow-untyped-defs=False

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ...devices import on_device_of
from ..quick_gelu import check_in_place, check_linear
from .inference import check_inference
from .matmul import SHARPNESS_CONST, matmul

BLOCK = 1024


def linear_quick_gelu(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """See ``kernels.quick_gelu.linear_quick_gelu``; one kernel, which activates the float32 sums and rounds once.

    Raises:
        InputError: as the reference, and when a gradient is wanted or a dtype is none of float16, bfloat16 and float32.
    """
    check_linear(x, weight, bias)
    check_inference("linear_quick_gelu", x=x, weight=weight, bias=bias)
    rows = x.reshape(1, -1, x.shape[-1]) if x.numel() else x.new_empty((1, x.shape[:-1].numel(), x.shape[-1]))
    return matmul(rows, weight, bias, taps=1, quick_gelu=True).reshape(*x.shape[:-1], weight.shape[0])


@triton.jit
def quick_gelu_kernel(y, length, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(y + at, mask=at < length, other=0.0).to(tl.float32)
    tl.store(y + at, (value * tl.sigmoid(value * SHARPNESS_CONST)).to(y.dtype.element_ty), mask=at < length)


def quick_gelu_(y: Tensor) -> Tensor:
    """See ``kernels.quick_gelu.quick_gelu_``. What has gaps in memory is copied to and fro.

    Raises:
        InputError: as the reference, and when the dtype is none of float16, bfloat16 and float32.
    """
    check_in_place(y)
    check_inference("quick_gelu_", y=y)
    order = sorted(range(y.ndim), key=y.stride, reverse=True)
    if not y.permute(order).is_contiguous():
        return y.copy_(quick_gelu_(y.contiguous()))
    if y.numel():
        with on_device_of(y):
            quick_gelu_kernel[(triton.cdiv(y.numel(), BLOCK),)](y, y.numel(), BLOCK=BLOCK, num_warps=4)
    return y
