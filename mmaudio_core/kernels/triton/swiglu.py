"""The gate of SwiGLU in one pass over the joint projection."""

# mypy: disallow-untyped-defs=False

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...devices import on_device_of
from ...errors import InputError
from ..swiglu import check_halves
from .tokens import MAX_TOKENS, check_dtypes

ROWS, COLUMNS = 4, 256
"""A tile of a program: eight elements for each thread of four warps, 16 bytes in half precision."""


@triton.jit
def forward_kernel(packed, out, rows, packed_r, packed_c, INNER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None].to(tl.int64)
    column = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    mask = (row < rows) & (column < INNER)
    at = packed + row * packed_r
    gate = tl.load(at + column.to(tl.int64) * packed_c, mask=mask, other=0.0).to(tl.float32)
    value = tl.load(at + (column + INNER).to(tl.int64) * packed_c, mask=mask, other=0.0).to(tl.float32)
    result = gate * tl.sigmoid(gate) * value
    tl.store(out + row * INNER + column, result.to(out.dtype.element_ty), mask=mask)


@triton.jit
def backward_kernel(
    packed, grad, grad_packed, rows, packed_r, packed_c, grad_r, grad_c,
    INNER: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[:, None].to(tl.int64)
    column = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    mask = (row < rows) & (column < INNER)
    at = packed + row * packed_r
    gate = tl.load(at + column.to(tl.int64) * packed_c, mask=mask, other=0.0).to(tl.float32)
    value = tl.load(at + (column + INNER).to(tl.int64) * packed_c, mask=mask, other=0.0).to(tl.float32)
    g = tl.load(grad + row * grad_r + column.to(tl.int64) * grad_c, mask=mask, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    out = grad_packed + row * (2 * INNER) + column
    grad_gate = g * value * sigmoid * (1.0 + gate * (1.0 - sigmoid))
    tl.store(out, grad_gate.to(grad_packed.dtype.element_ty), mask=mask)
    tl.store(out + INNER, (g * gate * sigmoid).to(grad_packed.dtype.element_ty), mask=mask)


def _grid(rows: int, inner: int) -> tuple[int, int]:
    return triton.cdiv(rows, ROWS), triton.cdiv(inner, COLUMNS)


def _forward(packed: Tensor) -> Tensor:
    inner = packed.shape[-1] // 2
    out = torch.empty((*packed.shape[:-1], inner), dtype=packed.dtype, device=packed.device)
    if out.numel():
        flat = packed.reshape(-1, 2 * inner)
        with on_device_of(packed):
            forward_kernel[_grid(len(flat), inner)](
                flat, out, len(flat), *flat.stride(), INNER=inner, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=4
            )
    return out


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, packed: Tensor) -> Tensor:
        ctx.save_for_backward(packed)
        return _forward(packed)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (packed,) = ctx.saved_tensors
        inner = grad.shape[-1]
        grad_packed = torch.empty(packed.shape, dtype=packed.dtype, device=packed.device)
        if grad.numel():
            flat, grad = packed.reshape(-1, 2 * inner), grad.reshape(-1, inner)
            with on_device_of(packed):
                backward_kernel[_grid(len(flat), inner)](
                    flat, grad, grad_packed, len(flat), *flat.stride(), *grad.stride(),
                    INNER=inner, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=4,
                )  # fmt: skip
        return grad_packed


def swiglu(packed: Tensor) -> Tensor:
    """``mmaudio_core.kernels.swiglu.swiglu`` for float16, bfloat16 and float32, with a backward pass of its own.

    Raises:
        InputError: as the reference, and for other dtypes and more than 2**30 rows.
    """
    check_halves(packed)
    check_dtypes(packed=packed)
    if packed.numel() > MAX_TOKENS * packed.shape[-1]:
        raise InputError(f"packed has shape {tuple(packed.shape)}; the Triton kernel takes up to {MAX_TOKENS} rows. Split it.")
    if torch.is_grad_enabled() and packed.requires_grad:
        return _SwiGLU.apply(packed)
    return _forward(packed)
