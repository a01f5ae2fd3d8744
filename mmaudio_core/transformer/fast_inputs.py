"""The conditions of a run as the fast path wants them: branches in one batch, each distinct row once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..spec.timing import SYNC_TOKENS_PER_SEGMENT
from .blocks import Rotations
from .conditions import Conditions
from .model import FlowNetwork, rotations

EDGE_ROWS = 5
"""Sync tokens from either end that the projection's padding can reach: kernels of 7, 3 and 3."""


@dataclass(frozen=True)
class RunInputs:
    """For G branches of B samples, which share M distinct global conditions and R distinct frame-aligned ones.

    pooled: (M, D), the global condition without the time. owner: int64 (G B,) into them.
    sync_rows: (R, D). row_owner: int64 (R,), the global condition of each. rows: int32 (G B, L) into them.
    clip: (G B, V, D), text: (G B, T, D). guides: whether G is 2.
    """

    pooled: Tensor
    owner: Tensor
    sync_rows: Tensor
    row_owner: Tensor
    rows: Tensor
    clip: Tensor
    text: Tensor
    rope: Rotations
    guides: bool

    @property
    def shapes(self) -> tuple[object, ...]:
        """Equal for runs that can share memory, and with it a captured graph."""
        tensors = [getattr(self, f.name) for f in fields(self) if f.name not in ("rope", "guides")]
        return (self.guides, *((t.shape, t.dtype, t.device) for t in tensors))

    def copy_(self, other: RunInputs) -> None:
        """Takes over the values of ``other``, which has the same shapes."""
        for f in fields(self):
            if f.name not in ("rope", "guides"):
                getattr(self, f.name).copy_(getattr(other, f.name))


def run_inputs(net: FlowNetwork, conditions: Conditions, empty: Conditions | None, batch: int) -> RunInputs:
    """``conditions`` and, under guidance, ``empty``, each of batch 1 or ``batch``."""
    branches = [conditions] if empty is None else [conditions, empty]
    sync_rows, row_owner, rows = _frame_rows(branches, batch)
    owner, first = [], 0
    for branch in branches:
        owner.append((first + torch.arange(branch.batch)).expand(batch))
        first += branch.batch
    clip = torch.cat([branch.clip.expand(batch, -1, -1) for branch in branches])
    return RunInputs(
        pooled=net.global_cond_mlp(torch.cat([branch.clip_pooled + branch.text_pooled for branch in branches])),
        owner=torch.cat(owner).to(clip.device),
        sync_rows=sync_rows,
        row_owner=row_owner.to(clip.device),
        rows=rows.to(clip.device),
        clip=clip,
        text=torch.cat([branch.text.expand(batch, -1, -1) for branch in branches]),
        rope=rotations(rows.shape[1], clip.shape[1], clip.device, net.spec.rope),
        guides=empty is not None,
    )


def distinct_rows(conditions: Conditions) -> Tensor:
    """int64 (S,): for each sync token the first one that has the same value by construction.

    A missing input is one token repeated, plus eight repeating position embeddings, so that away from the ends its
    projection has the period eight.
    """
    count = conditions.sync_rows.shape[1]
    rows = torch.arange(count)
    if conditions.sync_is_empty and count > 2 * EDGE_ROWS + SYNC_TOKENS_PER_SEGMENT:
        inner = rows[EDGE_ROWS : count - EDGE_ROWS]
        rows[EDGE_ROWS : count - EDGE_ROWS] = EDGE_ROWS + (inner - EDGE_ROWS) % SYNC_TOKENS_PER_SEGMENT
    return rows


def _frame_rows(branches: Sequence[Conditions], batch: int) -> tuple[Tensor, Tensor, Tensor]:
    """(R, D) distinct rows of all branches and samples, int64 (R,) their global conditions, int32 (G B, L) rows of tokens."""
    values, owner, rows, first, samples = [], [], [], 0, 0
    for branch in branches:
        distinct, compact = torch.unique(distinct_rows(branch), return_inverse=True)
        of_token = compact[branch.sync_index]
        values.append(branch.sync_rows[:, distinct.to(branch.sync_rows.device)].flatten(0, 1))
        owner.append((samples + torch.arange(branch.batch)).repeat_interleave(len(distinct)))
        starts = first + torch.arange(branch.batch) * len(distinct)
        rows.append((starts[:, None] + of_token).expand(batch, -1))
        first, samples = first + branch.batch * len(distinct), samples + branch.batch
    return torch.cat(values), torch.cat(owner), torch.cat(rows).to(torch.int32).contiguous()
