"""Adaptive layer norm in one pass over the tokens, alone or after a gated residual connection."""

# mypy: disallow-untyped-defs=False

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...devices import on_device_of
from ..adaln import LAYER_NORM_EPS, check_modulation
from .tokens import check_dtypes, check_size, load_rows, load_tile, row_launch, strides, table_row, token_sums


@triton.jit
def forward_kernel(
    x, y, gate, shift, scale, rows, total, normed, means, inverses, tokens, length, x_b, x_l, x_d, y_b, y_l, y_d,
    gate_r, shift_r, scale_r, rows_b, rows_l, D: tl.constexpr, EPS: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``ROWS`` tokens per program. Without ``y`` no sum, without ``shift`` no norm, without ``means`` nothing for ``backward``.

    Without ``x`` the sum has the gated branch alone, which is a gradient of ``gated_add``.
    """
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = token < tokens
    column = tl.arange(0, BLOCK)
    mask = live[:, None] & (column < D)[None, :]
    out = token[:, None].to(tl.int64) * D + column[None, :]
    row = table_row(rows, token, live, length, rows_b, rows_l)
    zero = tl.zeros((ROWS, BLOCK), tl.float32)
    value = zero if x is None else load_tile(x, token, column, mask, length, x_b, x_l, x_d)
    # The table's loads come before the sums over the row, so that their latencies overlap.
    if shift is not None:
        shifts = load_rows(shift, row, column, mask, shift_r)
        scales = load_rows(scale, row, column, mask, scale_r)
    if y is not None:
        value += load_rows(gate, row, column, mask, gate_r) * load_tile(y, token, column, mask, length, y_b, y_l, y_d)
        rounded = value.to(total.dtype.element_ty)
        tl.store(total + out, rounded, mask=mask)
        value = rounded.to(tl.float32)
    if shift is not None:
        mean = tl.sum(value, 1) / D
        centred = tl.where(mask, value - mean[:, None], 0.0)
        inverse = tl.rsqrt(tl.sum(centred * centred, 1) / D + EPS)
        result = centred * inverse[:, None] * (1.0 + scales) + shifts
        tl.store(normed + out, result.to(normed.dtype.element_ty), mask=mask)
        if means is not None:
            tl.store(means + token, mean, mask=live)
            tl.store(inverses + token, inverse, mask=live)


def forward(
    x: Tensor,
    y: Tensor | None,
    gate: Tensor | None,
    shift: Tensor | None,
    scale: Tensor | None,
    rows: Tensor | None,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor | None, Tensor | None]:
    """(sum, normed) of checked inputs; ``statistics``, float32 (B * L,) each, are written for the backward pass."""
    total = _new_tokens(x, x.dtype) if y is not None else None
    normed = _new_tokens(x, x.dtype) if shift is not None else None
    _launch_forward(x, x, y, gate, shift, scale, rows, total, normed, *(statistics or (None, None)))
    return total, normed


def gated(y: Tensor, gate: Tensor, rows: Tensor | None, dtype: torch.dtype) -> Tensor:
    """gate * y of checked inputs, in ``dtype``."""
    product = _new_tokens(y, dtype)
    _launch_forward(y, None, y, gate, None, None, rows, product, None, None, None)
    return product


def _launch_forward(like: Tensor, *tensors: Tensor | None) -> None:
    batch, length, width = like.shape
    launch = row_launch(width, batch * length)
    x, y, gate, shift, scale, rows = tensors[:6]
    if not like.numel():
        return
    with on_device_of(like):
        forward_kernel[(triton.cdiv(batch * length, launch["ROWS"]),)](
            *tensors, batch * length, length, *strides(x, 3), *strides(y, 3),
            *strides(gate, 1), *strides(shift, 1), *strides(scale, 1), *strides(rows, 2),
            D=width, EPS=LAYER_NORM_EPS, **launch,
        )  # fmt: skip


@triton.jit
def backward_kernel(
    x, grad, grad_total, scale, gate, rows, means, inverses, grad_x, grad_y, tokens, length,
    x_b, x_l, x_d, grad_b, grad_l, grad_d, total_b, total_l, total_d, scale_r, gate_r, rows_b, rows_l,
    D: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """``grad_total`` is what reaches the normalised tensor past the norm; ``grad_y`` is for the branch behind the gate."""
    token = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    live = token < tokens
    column = tl.arange(0, BLOCK)
    mask = live[:, None] & (column < D)[None, :]
    out = token[:, None].to(tl.int64) * D + column[None, :]
    row = table_row(rows, token, live, length, rows_b, rows_l)
    value = load_tile(x, token, column, mask, length, x_b, x_l, x_d)
    g = load_tile(grad, token, column, mask, length, grad_b, grad_l, grad_d)
    g *= 1.0 + load_rows(scale, row, column, mask, scale_r)
    mean = tl.load(means + token, mask=live, other=0.0)
    inverse = tl.load(inverses + token, mask=live, other=0.0)
    normed = tl.where(mask, (value - mean[:, None]) * inverse[:, None], 0.0)
    along = tl.sum(g * normed, 1) / D
    result = (g - (tl.sum(g, 1) / D)[:, None] - normed * along[:, None]) * inverse[:, None]
    if grad_total is not None:
        result += load_tile(grad_total, token, column, mask, length, total_b, total_l, total_d)
    tl.store(grad_x + out, result.to(grad_x.dtype.element_ty), mask=mask)
    if gate is not None:
        result *= load_rows(gate, row, column, mask, gate_r)
        tl.store(grad_y + out, result.to(grad_y.dtype.element_ty), mask=mask)


def backward(
    x: Tensor,
    grad: Tensor,
    grad_total: Tensor | None,
    scale: Tensor,
    gate: Tensor | None,
    rows: Tensor | None,
    statistics: tuple[Tensor, Tensor],
    y_dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the normalised tensor ``x`` and, with ``gate``, of the branch that was added to it."""
    batch, length, width = x.shape
    grad_x = _new_tokens(x, x.dtype)
    grad_y = None if gate is None else _new_tokens(x, y_dtype or x.dtype)
    launch = row_launch(width, batch * length)
    if x.numel():
        with on_device_of(x):
            backward_kernel[(triton.cdiv(batch * length, launch["ROWS"]),)](
                x, grad, grad_total, scale, gate, rows, *statistics, grad_x, grad_y, batch * length, length,
                *strides(x, 3), *strides(grad, 3), *strides(grad_total, 3),
                *strides(scale, 1), *strides(gate, 1), *strides(rows, 2), D=width, **launch,
            )  # fmt: skip
    return grad_x, grad_y


def _new_tokens(like: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.empty(like.shape, dtype=dtype, device=like.device)


def new_statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Room for mean and inverse deviation of each token, float32 (B * L,)."""
    tokens = x.shape[0] * x.shape[1]
    return (
        torch.empty(tokens, dtype=torch.float32, device=x.device),
        torch.empty(tokens, dtype=torch.float32, device=x.device),
    )


def new_like(table: Tensor, wanted: bool) -> Tensor | None:
    """Room for a table's gradient, contiguous, where it is wanted."""
    return torch.empty(table.shape, dtype=table.dtype, device=table.device) if wanted else None


class _AdaLN(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, shift: Tensor, scale: Tensor, rows: Tensor | None) -> Tensor:
        statistics = new_statistics(x)
        _, normed = forward(x, None, None, shift, scale, rows, statistics)
        ctx.save_for_backward(x, shift, scale, rows, *statistics)
        assert normed is not None
        return normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, shift, scale, rows, *statistics = ctx.saved_tensors
        wants_x, wants_shift, wants_scale, _ = ctx.needs_input_grad
        grad_x = backward(x, grad, None, scale, None, rows, tuple(statistics))[0] if wants_x else None
        grad_shift, grad_scale = new_like(shift, wants_shift), new_like(scale, wants_scale)
        token_sums(grad, x, rows, grad_shift, grad_scale, tuple(statistics))
        return grad_x, grad_shift, grad_scale, None


def adaln(x: Tensor, shift: Tensor, scale: Tensor, rows: Tensor | None = None) -> Tensor:
    """``mmaudio_core.kernels.adaln.adaln`` for float16, bfloat16 and float32, with a backward pass of its own.

    Raises:
        InputError: as the reference, and for other dtypes and D above 8192.
    """
    check_modulation(x, rows, shift=shift, scale=scale)
    check_dtypes(rows, x=x, shift=shift, scale=scale)
    check_size(x)
    if torch.is_grad_enabled() and (x.requires_grad or shift.requires_grad or scale.requires_grad):
        return _AdaLN.apply(x, shift, scale, rows)
    normed = forward(x, None, None, shift, scale, rows)[1]
    assert normed is not None
    return normed
