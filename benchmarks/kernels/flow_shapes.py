"""Sizes of the flow network in the published variants, for 8 s, both guidance branches in one batch; and of training."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Shape(NamedTuple):
    """``table_rows`` are the distinct modulations of the latent's tokens: one for each sync token, 18 of the empty branch."""

    case: str
    batch: int
    length: int
    width: int
    table_rows: int

    @property
    def heads(self) -> int:
        return self.width // 64


SHAPES = (
    Shape("small_16k", 2, 250, 448, 210),
    Shape("small_44k", 2, 345, 448, 210),
    Shape("medium, large_44k", 2, 345, 896, 210),
    Shape("training, 16 samples", 16, 345, 448, 16 * 192),
)


def shapes(quick: bool) -> tuple[Shape, ...]:
    return SHAPES[:2] if quick else SHAPES


def random(*shape: int, device: str, dtype: torch.dtype, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(device, dtype)


def table(shape: Shape, device: str, dtype: torch.dtype) -> tuple[tuple[Tensor, ...], Tensor]:
    """The six chunks (R, D) of a modulation table, and int32 (B, L) rows of it, each sample's own rising ones."""
    chunks = random(shape.table_rows, 6 * shape.width, device=device, dtype=dtype, seed=9).chunk(6, dim=-1)
    per_sample = shape.table_rows // shape.batch
    rows = torch.arange(shape.length, device=device) * per_sample // shape.length
    return chunks, (rows + torch.arange(shape.batch, device=device)[:, None] * per_sample).to(torch.int32)
