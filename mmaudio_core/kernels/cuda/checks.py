"""What all launchers ask of their tensors, and how they tell the kernels where those are."""

from __future__ import annotations

from ctypes import Structure, c_int64, c_void_p

import torch
from torch import Tensor

from ...errors import InputError
from .runtime import ELEMENTS

VECTOR_BYTES = 16
WARP = 32
MOST_THREADS, HELD = 256, 16
"""Of a block that has one token, and the channels that each of its threads keeps (rows.cuh)."""
WIDEST = MOST_THREADS * HELD


class Tokens(Structure):
    """``Tokens`` of rows.cuh: address and strides of (B, L, D)."""

    _fields_ = [("data", c_void_p), ("batch", c_int64), ("token", c_int64), ("channel", c_int64)]


class Table(Structure):
    """``Table`` of rows.cuh: address and row stride of (R, D)."""

    _fields_ = [("data", c_void_p), ("row", c_int64)]


class RowIndex(Structure):
    """``RowIndex`` of rows.cuh: address and strides of int32 (B, L), or null."""

    _fields_ = [("data", c_void_p), ("batch", c_int64), ("token", c_int64)]


def tokens(x: Tensor) -> Tokens:
    return Tokens(x.data_ptr(), *x.stride())


def table(x: Tensor | None) -> Table:
    return Table(None, 0) if x is None else Table(x.data_ptr(), x.stride(0))


def row_index(rows: Tensor | None) -> RowIndex:
    return RowIndex(None, 0, 0) if rows is None else RowIndex(rows.data_ptr(), *rows.stride())


def check_inference(name: str, x: Tensor, *others: Tensor | None) -> None:
    """Refuses what no CUDA kernel does.

    Raises:
        InputError: when gradients are wanted, ``x`` is of a dtype without kernels, or the tensors are on several devices.
    """
    given = [x, *(other for other in others if other is not None)]
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        raise InputError(
            f"{name} was asked for gradients; the CUDA kernel has none. Use torch.no_grad(), or another implementation."
        )
    if x.dtype not in ELEMENTS:
        raise InputError(f"{name} was given {x.dtype}; the CUDA kernel takes float32, float16 and bfloat16.")
    if any(tensor.device != x.device for tensor in given):
        devices = ", ".join(sorted({str(tensor.device) for tensor in given}))
        raise InputError(f"{name} was given tensors on {devices}; put all of them on one device.")


def table_dtype(name: str, x: Tensor, *tables: Tensor | None) -> torch.dtype:
    """The dtype of modulations or weights beside activations ``x``.

    Raises:
        InputError: when they are neither all of x's dtype nor all float32.
    """
    dtypes = {table.dtype for table in tables if table is not None}
    if len(dtypes) != 1 or not dtypes <= {x.dtype, torch.float32}:
        found = ", ".join(sorted(str(dtype) for dtype in dtypes))
        raise InputError(f"{name} was given {x.dtype} with scales of {found}; give all in {x.dtype}, or all in float32.")
    return dtypes.pop()


def check_width(name: str, width: int) -> None:
    """Refuses tokens that do not fit into a block's registers.

    Raises:
        InputError: when D is too large.
    """
    if width > WIDEST:
        raise InputError(
            f"{name} was given {width} channels; the CUDA kernel takes up to {WIDEST}. Use another implementation."
        )


def aligned(*tensors: Tensor | None) -> bool:
    """Whether each tensor's last axis is contiguous and starts on 16 bytes wherever the others are."""
    return all(tensor is None or _aligned(tensor) for tensor in tensors)


def _aligned(tensor: Tensor) -> bool:
    if tensor.data_ptr() % VECTOR_BYTES:
        return False
    *outer, last = tensor.stride()
    if last != 1 and tensor.shape[-1] != 1:
        return False
    elements = VECTOR_BYTES // tensor.element_size()
    for axis, stride in enumerate(outer):  # noqa: SIM110 - plain loops: this runs at every launch
        if stride % elements and tensor.shape[axis] > 1:
            return False
    return True


def token_threads(width: int, vector: int) -> int:
    """Threads of a block that has one token of ``width`` channels, read ``vector`` at a time."""
    groups = -(-width // vector)
    return min(MOST_THREADS, -(-groups // WARP) * WARP)
