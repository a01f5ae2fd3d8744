"""Adaptive layer norm (arXiv 2212.09748): the reference, and what a table of modulations has to look like."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

LAYER_NORM_EPS = 1e-5


def adaln(x: Tensor, shift: Tensor, scale: Tensor, rows: Tensor | None = None) -> Tensor:
    """LayerNorm of ``x`` without affine, times (1 + scale) plus shift (arXiv 2412.15322, 3.3).

    x: (B, L, D). shift, scale: (R, D), last stride 1, any stride between rows: they are chunks of one table.
    rows: int32 (B, L), the table's row of each token; its values are not checked. None: R is B, one row for each sample.
    Returns (B, L, D) in the dtype of ``x``; computed in float32, or in float64 if that is the dtype of ``x``, rounded once.

    Raises:
        InputError: when the shapes do not fit, or ``rows`` is not int32.
    """
    check_modulation(x, rows, shift=shift, scale=scale)
    wide = widened(x)
    normed = F.layer_norm(wide, wide.shape[-1:], eps=LAYER_NORM_EPS)
    return torch.addcmul(of_tokens(shift, rows, wide), normed, of_tokens(1 + scale.to(wide.dtype), rows, wide)).to(x.dtype)


def widened(x: Tensor) -> Tensor:
    """``x`` in the dtype that it is computed in: float32, or float64 if it is that."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def of_tokens(table: Tensor, rows: Tensor | None, like: Tensor) -> Tensor:
    """The table's rows, in the dtype of ``like``, as (B, L, D), or (B, 1, D) where each sample has one."""
    table = table.to(like.dtype)
    return table[:, None] if rows is None else F.embedding(rows, table)


def check_modulation(x: Tensor, rows: Tensor | None, **tables: Tensor) -> None:
    """Refuses what is no modulation of ``x``.

    Raises:
        InputError: when ``x`` is not (B, L, D), a table is not (R, D) with last stride 1, ``rows`` is not int32 (B, L), or,
            without ``rows``, R is not B.
    """
    if x.ndim != 3:
        raise InputError(f"x has shape {tuple(x.shape)}; tokens of shape (B, L, D) were expected. Add or merge axes.")
    if rows is not None and (rows.dtype != torch.int32 or rows.shape != x.shape[:2]):
        raise InputError(
            f"rows is {rows.dtype} of shape {tuple(rows.shape)}; int32 of shape {tuple(x.shape[:2])} was expected, "
            "one row of the table for each token."
        )
    for name, table in tables.items():
        if table.ndim != 2 or table.shape[1] != x.shape[2] or (table.shape[1] > 1 and table.stride(1) != 1):
            raise InputError(
                f"{name} has shape {tuple(table.shape)} and strides {table.stride()}; (R, {x.shape[2]}) with last stride 1 "
                "was expected. Chunk a contiguous table along its last axis."
            )
        if rows is None and table.shape[0] != x.shape[0]:
            raise InputError(
                f"{name} has {table.shape[0]} rows for {x.shape[0]} samples; give one for each sample, or give rows."
            )
