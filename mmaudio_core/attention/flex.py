"""FlexAttention (arXiv 2412.05496): a kernel that torch.compile writes for the shape, through Triton."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from .protocol import HALVES, Backend, Needs, Package, dense

FLEX = Package(("torch.nn.attention.flex_attention",), "flex_attention", "torch")
TRITON = Package(("triton",), "compile", "triton")


@functools.lru_cache(maxsize=1)
def _compiled(flex: Any) -> Any:
    return torch.compile(flex)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q (B, H, Nq, d), k and v (B, H, Nk, d) -> (B, Nq, H * d); the first calls of a process compile, for seconds."""
    out: Tensor = _compiled(FLEX.load())(dense(q), dense(k), dense(v))
    return out.transpose(1, 2).flatten(2)


def _reason(device: torch.device, dtype: torch.dtype, head_dim: int) -> str | None:
    needs = Needs((7, 0), dtypes=(*HALVES, torch.float32), multiple=1)
    unmet = needs.reason(device, dtype, head_dim)
    if unmet is not None:
        return unmet
    if head_dim < 16:
        return f"its heads are at least 16 wide, not {head_dim}"
    if FLEX.reason() is not None:
        return f"torch {torch.__version__} has no FlexAttention; 2.5 and newer have"
    return TRITON.reason()


BACKENDS = (Backend("flex", _reason, attend, measured=False, note="compiles for seconds at first; auto leaves it out"),)
