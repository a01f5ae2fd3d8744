"""Gated residual connections in CUDA C++; ``mmaudio_core.kernels.gate`` says what they compute."""

from __future__ import annotations

from ctypes import Structure, c_int, c_int64, c_void_p

import torch
from torch import Tensor

from ...errors import InputError
from ..adaln import check_modulation
from ..gate import check_same_shape
from . import runtime
from .adaln import SHARED_BYTES
from .checks import (
    VECTOR_BYTES,
    RowIndex,
    Table,
    Tokens,
    aligned,
    check_inference,
    check_width,
    row_index,
    table,
    table_dtype,
    token_threads,
    tokens,
)


class Arguments(Structure):
    """``GateArguments`` of gate.cu."""

    _fields_ = [
        ("x", Tokens),
        ("y", Tokens),
        ("gate", Table),
        ("shift", Table),
        ("scale", Table),
        ("rows", RowIndex),
        ("total", c_void_p),
        ("normed", c_void_p),
        ("tokens", c_int64),
        ("width", c_int),
    ]


def gated_add(x: Tensor, y: Tensor, gate: Tensor, rows: Tensor | None = None) -> Tensor:
    """The reference's result, contiguous. For inference, D up to 4096.

    y: in the dtype of ``x``. gate: in that one or float32.

    Raises:
        InputError: when the shapes do not fit, or the kernel does not take the dtypes or D, or gradients are wanted.
        MMAudioError: when the kernel cannot be built or started; ``available`` tells before.
    """
    check_modulation(x, rows, gate=gate)
    return _add("gated_add", x, y, gate, None, None, rows)[0]


def gated_add_adaln(
    x: Tensor, y: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The reference's results, contiguous, in one pass. For inference, D up to 4096.

    y: in the dtype of ``x``. gate, shift, scale: all in that one, or all float32.

    Raises:
        InputError: when the shapes do not fit, or the kernel does not take the dtypes or D, or gradients are wanted.
        MMAudioError: when the kernel cannot be built or started; ``available`` tells before.
    """
    check_modulation(x, rows, gate=gate, shift=shift, scale=scale)
    return _add("gated_add_adaln", x, y, gate, shift, scale, rows)


def _add(
    name: str, x: Tensor, y: Tensor, gate: Tensor, shift: Tensor | None, scale: Tensor | None, rows: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The sum and, where ``shift`` is given, its norm; else the sum twice."""
    check_same_shape(x, y)
    check_inference(name, x, y, gate, shift, scale, rows)
    check_width(name, x.shape[2])
    if y.dtype != x.dtype:
        raise InputError(f"{name} was given x in {x.dtype} and y in {y.dtype}; give both in one dtype.")
    dtype = table_dtype(name, x, gate, shift, scale)
    total = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    normed = total if shift is None else torch.empty_like(total)
    if not total.numel():
        return total, normed
    width = x.shape[2]
    vector = VECTOR_BYTES // x.element_size()
    wide = aligned(x, y, gate, shift, scale, total, normed) and width % vector == 0
    arguments = Arguments(
        tokens(x),
        tokens(y),
        table(gate),
        table(shift),
        table(scale),
        row_index(rows),
        total.data_ptr(),
        normed.data_ptr(),
        x.shape[1],
        width,
    )
    runtime.launch(
        runtime.Launch(
            runtime.Case("gate", x.dtype, dtype, wide),
            name,
            x.shape[0] * x.shape[1],
            token_threads(width, vector if wide else 1),
            SHARED_BYTES,
            arguments,
        ),
        x.device,
    )
    return total, normed
