"""Gated residual connections (arXiv 2212.09748), alone and with the adaptive layer norm that follows: the references."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import InputError
from .adaln import adaln, check_modulation, of_tokens, widened


def gated_add(x: Tensor, y: Tensor, gate: Tensor, rows: Tensor | None = None) -> Tensor:
    """x + gate * y (arXiv 2412.15322, 3.3).

    x, y: (B, L, D). gate: (R, D), last stride 1, any stride between rows.
    rows: int32 (B, L), the table's row of each token; its values are not checked. None: R is B, one row for each sample.
    Returns (B, L, D) in the dtype of ``x``; computed in float32, or in float64 if that is the dtype of ``x``, rounded once.

    Raises:
        InputError: when the shapes do not fit, or ``rows`` is not int32.
    """
    check_modulation(x, rows, gate=gate)
    check_same_shape(x, y)
    wide = widened(x)
    return torch.addcmul(wide, of_tokens(gate, rows, wide), y.to(wide.dtype)).to(x.dtype)


def gated_add_adaln(
    x: Tensor, y: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, rows: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The sum x + gate * y, and ``adaln`` of that sum as it was rounded to the dtype of ``x``.

    Shapes as in ``gated_add`` and ``adaln``; gate, shift and scale are looked up with the same ``rows``.
    Returns two tensors (B, L, D) in the dtype of ``x``.

    Raises:
        InputError: when the shapes do not fit, or ``rows`` is not int32.
    """
    total = gated_add(x, y, gate, rows)
    return total, adaln(total, shift, scale, rows)


def check_same_shape(x: Tensor, y: Tensor) -> None:
    """Refuses a residual branch of another shape.

    Raises:
        InputError: when the shapes differ.
    """
    if y.shape != x.shape:
        raise InputError(f"y has shape {tuple(y.shape)}; it is added to x and needs its shape {tuple(x.shape)}.")
