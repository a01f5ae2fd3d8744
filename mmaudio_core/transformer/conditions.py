"""Projected conditions: computed once per run, used at every step."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Conditions:
    """Step-independent inputs of the flow network.

    clip: (B, V, D) projected visual tokens; clip_pooled: (B, D).
    sync_rows: (B, S, D) projected sync tokens; sync_index: int64 (L,) on the CPU, the row of each latent token.
    text: (B, T, D) projected text tokens; text_pooled: (B, D).
    sync_is_empty: whether the sync tokens stand for a missing input.
    """

    clip: Tensor
    clip_pooled: Tensor
    sync_rows: Tensor
    sync_index: Tensor
    text: Tensor
    text_pooled: Tensor
    sync_is_empty: bool = False

    def expand(self, batch: int) -> Conditions:
        """Conditions of batch 1 for ``batch`` samples, without copies."""
        clip, pooled, rows, text, text_pooled = (
            value.expand(batch, *value.shape[1:])
            for value in (self.clip, self.clip_pooled, self.sync_rows, self.text, self.text_pooled)
        )
        return Conditions(clip, pooled, rows, self.sync_index, text, text_pooled, self.sync_is_empty)

    @cached_property
    def sync(self) -> Tensor:
        """(B, L, D): the sync tokens brought to the latent length."""
        return self.sync_rows.index_select(1, self.sync_index.to(self.sync_rows.device))

    @property
    def batch(self) -> int:
        return self.clip.shape[0]


def sync_index(sync_tokens: int, latent_tokens: int, steady_pace: tuple[int, int] | None = None) -> Tensor:
    """Sync token of each of L latent tokens, int64 (L,) on the CPU: nearest-exact upsampling of all S tokens.

    steady_pace: (S, L) of the duration whose pace is kept instead; L tokens of another duration take what they would there.
    """
    if steady_pace is None:
        return upsampling_index(sync_tokens, latent_tokens)
    tokens, of = steady_pace
    times = -(-latent_tokens // of)
    return upsampling_index(times * tokens, times * of)[:latent_tokens]


def upsampling_index(tokens_in: int, tokens_out: int) -> Tensor:
    """Row of the source for each of ``tokens_out`` rows under nearest-exact upsampling, int64 on the CPU.

    Asked of torch's own float32 arithmetic on the CPU rather than computed exactly: where (i + 0.5) * in / out is a whole
    number, float32 lands one row lower (trap R1), and the published weights were trained and run with that.
    """
    rows = torch.arange(tokens_in, dtype=torch.float32)[None, None]
    return F.interpolate(rows, size=tokens_out, mode="nearest-exact")[0, 0].long()
