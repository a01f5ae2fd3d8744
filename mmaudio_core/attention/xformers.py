"""xFormers' memory_efficient_attention, which chooses among kernels of its own."""

from __future__ import annotations

import torch
from torch import Tensor

from .protocol import HALVES, Backend, Needs, Package, of_package, tokens_first

PACKAGE = Package(("xformers.ops",), "memory_efficient_attention", "xformers")


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q (B, H, Nq, d), k and v (B, H, Nk, d) -> (B, Nq, H * d)."""
    out: Tensor = PACKAGE.load()(*tokens_first(q, k, v))
    return out.flatten(2)


BACKENDS = (Backend("xformers", of_package(PACKAGE, Needs((5, 0), dtypes=(*HALVES, torch.float32))), attend),)
