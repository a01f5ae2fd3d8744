"""What the kernels on tokens with a table of modulations share: addresses, checks, and sums over the tokens of a row."""

# mypy: disallow-untyped-defs=False

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...devices import on_device_of
from ...errors import InputError

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
MAX_WIDTH = 8192
"""A row stays in the registers of one program."""
MAX_TOKENS = 2**30
"""Tokens are counted in int32, elements in int64."""


def check_dtypes(rows: Tensor | None = None, **tensors: Tensor | None) -> None:
    """Refuses what the kernels do not compute in.

    Raises:
        InputError: when one of ``tensors`` is not float16, bfloat16 or float32, or all, with ``rows``, are not on one device.
    """
    given = {name: t for name, t in tensors.items() if t is not None}
    for name, tensor in given.items():
        if tensor.dtype not in DTYPES:
            raise InputError(
                f"{name} is {tensor.dtype}; the Triton kernels take float16, bfloat16 and float32. Use the plain PyTorch ones."
            )
    if rows is not None:
        given["rows"] = rows
    if len({t.device for t in given.values()}) > 1:
        places = ", ".join(f"{name} on {t.device}" for name, t in given.items())
        raise InputError(f"The tensors are on different devices ({places}); a kernel needs all on one. Move them.")


def check_size(x: Tensor) -> None:
    """Refuses tokens (B, L, D) that are too wide or too many.

    Raises:
        InputError: when D is above ``MAX_WIDTH`` or B * L above ``MAX_TOKENS``.
    """
    if x.shape[2] > MAX_WIDTH or x.shape[0] * x.shape[1] > MAX_TOKENS:
        raise InputError(
            f"x has shape {tuple(x.shape)}; the Triton kernels take widths up to {MAX_WIDTH} and up to {MAX_TOKENS} tokens. "
            "Use the plain PyTorch ones."
        )


def row_launch(width: int, tokens: int) -> dict[str, int]:
    """Tile of a program and its warps: one token, so that a short clip reaches all of a GPU, or four where there are many.

    Eight elements for each thread are one load of 16 bytes in half precision.
    """
    block = triton.next_power_of_2(width)
    rows = 1 if tokens < 8192 else 4
    return {"ROWS": rows, "BLOCK": block, "num_warps": max(1, min(8, rows * block // 256))}


def strides(x: Tensor | None, axes: int) -> tuple[int, ...]:
    """The first strides of ``x``, or as many zeros where it is not given."""
    return (0,) * axes if x is None else x.stride()[:axes]


@triton.jit
def token_offset(token, length, stride_b, stride_l):
    """Where ``token``, counted over all samples, begins in a (B, L, D) tensor, in elements."""
    sample = token // length
    return sample.to(tl.int64) * stride_b + (token - sample * length).to(tl.int64) * stride_l


@triton.jit
def load_tile(x, token, column, mask, length, stride_b, stride_l, stride_d):
    """The columns of some tokens of a (B, L, D) tensor, in float32."""
    at = token_offset(token, length, stride_b, stride_l)[:, None] + column[None, :].to(tl.int64) * stride_d
    return tl.load(x + at, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def load_rows(table, row, column, mask, stride_r):
    """The columns of some rows of a table (R, D), in float32."""
    return tl.load(table + row[:, None] * stride_r + column[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def table_row(rows, token, live, length, stride_b, stride_l):
    """The table's row of each token; without ``rows``, its sample."""
    at = token_offset(token, length, stride_b, stride_l)
    row = token // length if rows is None else tl.load(rows + at, mask=live, other=0)
    return row.to(tl.int64)


@triton.jit
def token_sums_kernel(
    grad, factor, means, inverses, order, starts, plain, product, length, grad_b, grad_l, grad_d, factor_b, factor_l, factor_d,
    D: tl.constexpr, TOKENS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """One program per table row and ``COLUMNS`` columns; ``starts`` says where the row's tokens begin in ``order``."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    start = tl.load(starts + row)
    end = tl.load(starts + row + 1)
    plain_sum = tl.zeros((TOKENS, COLUMNS), tl.float32)
    product_sum = tl.zeros((TOKENS, COLUMNS), tl.float32)
    for first in range(start, end, TOKENS):
        at = first + tl.arange(0, TOKENS)
        live = at < end
        token = at if order is None else tl.load(order + at, mask=live, other=0)
        mask = live[:, None] & (column < D)[None, :]
        g = load_tile(grad, token, column, mask, length, grad_b, grad_l, grad_d)
        f = load_tile(factor, token, column, mask, length, factor_b, factor_l, factor_d)
        if means is not None:
            f -= tl.load(means + token, mask=live, other=0.0)[:, None]
            f *= tl.load(inverses + token, mask=live, other=0.0)[:, None]
        plain_sum += g
        product_sum += g * f
    if plain is not None:
        tl.store(plain + row * D + column, tl.sum(plain_sum, 0).to(plain.dtype.element_ty), mask=column < D)
    if product is not None:
        tl.store(product + row * D + column, tl.sum(product_sum, 0).to(product.dtype.element_ty), mask=column < D)


def token_sums(
    grad: Tensor,
    factor: Tensor,
    rows: Tensor | None,
    plain: Tensor | None,
    product: Tensor | None,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Gradients of a table: for each of its rows, the sums over its tokens of ``grad`` and of ``grad`` times ``factor``.

    grad, factor: (B, L, D). plain, product: (R, D), contiguous, written where not None. With ``statistics``, mean and inverse
    deviation of each token as float32 (B * L,), the factor is normalised with them. Each row is summed by one program in
    the order of the tokens, so the result is the same every time, unlike that of atomic additions.
    """
    made = plain if plain is not None else product
    if made is None or not made.numel():
        return
    batch, length, width = grad.shape
    table_rows = made.shape[0]
    order: Tensor | None = None
    if rows is None:
        starts = torch.arange(batch + 1, device=grad.device, dtype=torch.int64) * length
    else:
        ordered, order = torch.sort(rows.flatten(), stable=True)
        starts = torch.searchsorted(ordered, torch.arange(table_rows + 1, device=grad.device, dtype=rows.dtype))
    means, inverses = statistics if statistics is not None else (None, None)
    columns = 64
    with on_device_of(grad):
        token_sums_kernel[(table_rows, triton.cdiv(width, columns))](
            grad, factor, means, inverses, order, starts, plain, product, length, *strides(grad, 3), *strides(factor, 3),
            D=width, TOKENS=32 if rows is None else 4, COLUMNS=columns, num_warps=4 if rows is None else 1,
        )  # fmt: skip
