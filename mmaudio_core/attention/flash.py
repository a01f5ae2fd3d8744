"""FlashAttention 2 (arXiv 2307.08691), 3 (arXiv 2407.08608) and 4, each in a package of its own."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from .protocol import Backend, Needs, Package, of_package, tokens_first

FLASH2 = Package(("flash_attn",), "flash_attn_func", "flash-attn")
FLASH3 = Package(("flash_attn_interface", "flash_attn_3.flash_attn_interface"), "flash_attn_func", "flash-attn-3")
FLASH4 = Package(("flash_attn.cute",), "flash_attn_func", "flash-attn-4")


def attend(package: Package, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q (B, H, Nq, d), k and v (B, H, Nk, d) -> (B, Nq, H * d); the package writes that order, so nothing is copied."""
    out: Any = package.load()(*tokens_first(q, k, v))
    # Flash 4, and Flash 3 before 2025, give (output, log-sum-exp).
    return (out[0] if isinstance(out, tuple) else out).flatten(2)


BACKENDS = (
    Backend("flash2", of_package(FLASH2, Needs()), partial(attend, FLASH2)),
    Backend("flash3", of_package(FLASH3, Needs((9, 0), below=(10, 0), nvidia=True)), partial(attend, FLASH3)),
    Backend("flash4", of_package(FLASH4, Needs((9, 0), widest=128, nvidia=True)), partial(attend, FLASH4)),
)
