"""Adaptive layer norm in CUDA C++; ``mmaudio_core.kernels.adaln`` says what it computes."""

from __future__ import annotations

from ctypes import Structure, c_int, c_int64, c_void_p

import torch
from torch import Tensor

from ..adaln import check_modulation
from . import runtime
from .checks import (
    HELD,
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

SHARED_BYTES = 4 * HELD
"""Two sums of a float for each warp."""


class Arguments(Structure):
    """``AdalnArguments`` of adaln.cu."""

    _fields_ = [
        ("x", Tokens),
        ("shift", Table),
        ("scale", Table),
        ("rows", RowIndex),
        ("out", c_void_p),
        ("tokens", c_int64),
        ("width", c_int),
    ]


def adaln(x: Tensor, shift: Tensor, scale: Tensor, rows: Tensor | None = None) -> Tensor:
    """The reference's result, contiguous. For inference, D up to 4096.

    shift, scale: both in the dtype of ``x``, or both float32.

    Raises:
        InputError: when the shapes do not fit, or the kernel does not take the dtypes or D, or gradients are wanted.
        MMAudioError: when the kernel cannot be built or started; ``available`` tells before.
    """
    check_modulation(x, rows, shift=shift, scale=scale)
    check_inference("adaln", x, shift, scale, rows)
    check_width("adaln", x.shape[2])
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    dtype = table_dtype("adaln", x, shift, scale)
    if not out.numel():
        return out
    width = x.shape[2]
    vector = VECTOR_BYTES // x.element_size()
    wide = aligned(x, shift, scale, out) and width % vector == 0
    arguments = Arguments(tokens(x), table(shift), table(scale), row_index(rows), out.data_ptr(), x.shape[1], width)
    runtime.launch(
        runtime.Launch(
            runtime.Case("adaln", x.dtype, dtype, wide),
            "adaln",
            x.shape[0] * x.shape[1],
            token_threads(width, vector if wide else 1),
            SHARED_BYTES,
            arguments,
        ),
        x.device,
    )
    return out
