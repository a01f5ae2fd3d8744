"""Gated residual connections, alone and in one pass with the adaptive layer norm that follows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..adaln import check_modulation
from ..gate import check_same_shape
from . import adaln as norm
from .tokens import check_dtypes, check_size, token_sums


class _GatedAdd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, gate: Tensor, rows: Tensor | None) -> Tensor:
        ctx.save_for_backward(y, gate, rows)
        total = norm.forward(x, y, gate, None, None, rows)[0]
        assert total is not None
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        y, gate, rows = ctx.saved_tensors
        wants_x, wants_y, wants_gate, _ = ctx.needs_input_grad
        grad_y = norm.gated(grad, gate, rows, y.dtype) if wants_y else None
        grad_gate = norm.new_like(gate, wants_gate)
        token_sums(grad, y, rows, None, grad_gate)
        return grad if wants_x else None, grad_y, grad_gate, None


class _GatedAddAdaLN(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, y: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, rows: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        statistics = norm.new_statistics(x)
        total, normed = norm.forward(x, y, gate, shift, scale, rows, statistics)
        assert total is not None
        assert normed is not None
        ctx.save_for_backward(total, y, gate, shift, scale, rows, *statistics)
        return total, normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_total: Tensor, grad: Tensor) -> tuple[Tensor | None, ...]:
        total, y, gate, shift, scale, rows, *statistics = ctx.saved_tensors
        wants_x, wants_y, wants_gate, wants_shift, wants_scale, _ = ctx.needs_input_grad
        grad_x: Tensor | None = None
        grad_y: Tensor | None = None
        grad_gate = norm.new_like(gate, wants_gate)
        if wants_x or wants_y or wants_gate:
            grad_x, grad_y = norm.backward(total, grad, grad_total, scale, gate, rows, tuple(statistics), y.dtype)
            token_sums(grad_x, y, rows, None, grad_gate)
        grad_shift, grad_scale = norm.new_like(shift, wants_shift), norm.new_like(scale, wants_scale)
        token_sums(grad, total, rows, grad_shift, grad_scale, tuple(statistics))
        return grad_x, grad_y, grad_gate, grad_shift, grad_scale, None


def gated_add(x: Tensor, y: Tensor, gate: Tensor, rows: Tensor | None = None) -> Tensor:
    """``mmaudio_core.kernels.gate.gated_add`` for float16, bfloat16 and float32, with a backward pass of its own.

    Raises:
        InputError: as the reference, and for other dtypes and D above 8192.
    """
    check_modulation(x, rows, gate=gate)
    _check(x, y, rows, gate=gate)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, y, gate)):
        return _GatedAdd.apply(x, y, gate, rows)
    total = norm.forward(x, y, gate, None, None, rows)[0]
    assert total is not None
    return total


def gated_add_adaln(
    x: Tensor, y: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``mmaudio_core.kernels.gate.gated_add_adaln`` for float16, bfloat16 and float32, with a backward pass of its own.

    Raises:
        InputError: as the reference, and for other dtypes and D above 8192.
    """
    check_modulation(x, rows, gate=gate, shift=shift, scale=scale)
    _check(x, y, rows, gate=gate, shift=shift, scale=scale)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, y, gate, shift, scale)):
        return _GatedAddAdaLN.apply(x, y, gate, shift, scale, rows)
    total, normed = norm.forward(x, y, gate, shift, scale, rows)
    assert total is not None
    assert normed is not None
    return total, normed


def _check(x: Tensor, y: Tensor, rows: Tensor | None, **tables: Tensor) -> None:
    check_same_shape(x, y)
    check_dtypes(rows, x=x, y=y, **tables)
    check_size(x)
