"""QuickGELU of CLIP (open_clip's name for it): y * sigmoid(1.702 y), after a linear layer or alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError

SHARPNESS = 1.702
"""Of the sigmoid that stands for the normal distribution's, from GELU's paper (arXiv 1606.08415, section 2)."""


def linear_quick_gelu(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """QuickGELU of a linear layer: (..., K) -> (..., N).

    Args:
        x: (..., K).
        weight: (N, K), of ``x``'s dtype.
        bias: (N,), of ``x``'s dtype, or None.

    Raises:
        InputError: when the shapes or dtypes do not fit together.
    """
    check_linear(x, weight, bias)
    y = F.linear(x, weight, bias)
    wide = y if y.dtype == torch.float64 else y.float()
    return (wide * torch.sigmoid(SHARPNESS * wide)).to(x.dtype)


def quick_gelu_(y: Tensor) -> Tensor:
    """QuickGELU in place, for any shape; returns ``y``. Inference only.

    Raises:
        InputError: when ``y`` is not floating point, or needs a gradient, which what is overwritten cannot give.
    """
    check_in_place(y)
    wide = y if y.dtype == torch.float64 else y.float()
    return y.copy_(wide * torch.sigmoid(SHARPNESS * wide))


def check_linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Refuses what ``linear_quick_gelu`` is not defined for."""
    if (
        x.ndim < 1
        or weight.ndim != 2
        or x.shape[-1] != weight.shape[1]
        or (bias is not None and bias.shape != weight.shape[:1])
    ):
        raise InputError(
            f"linear_quick_gelu was given x {tuple(x.shape)}, weight {tuple(weight.shape)} and bias "
            f"{None if bias is None else tuple(bias.shape)}; it needs (..., K), (N, K) and (N,)."
        )
    dtypes = [t.dtype for t in (x, weight, bias) if t is not None]
    if len(set(dtypes)) > 1 or not x.is_floating_point():
        raise InputError(f"linear_quick_gelu was given dtypes {dtypes}; it needs one floating-point dtype for all.")


def check_in_place(y: Tensor) -> None:
    """Refuses what ``quick_gelu_`` is not defined for."""
    if not y.is_floating_point():
        raise InputError(f"quick_gelu_ was given {y.dtype}; it needs a floating-point tensor.")
    if y.requires_grad and torch.is_grad_enabled():
        raise InputError(
            "quick_gelu_ was given a tensor that needs a gradient, but overwrites it; run it under torch.no_grad()."
        )
