"""Mean and standard deviation of the latents, which the network's own latents are normalised by (spec section 6)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from mmaudio_core.errors import InputError

from ..data.crops import Kind
from ..data.index import Index, ShardInfo
from ..engine.distributed import Ranks, gathered


@dataclass(frozen=True)
class Moments:
    """count: rows seen. mean, squares: float64 (C,), their mean and the sum of squared distances from it."""

    count: int
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, rows: Tensor) -> Moments:
        """Those of ``rows`` (rows, C), one or more."""
        rows = rows.double()
        mean = rows.mean(dim=0)
        return cls(rows.shape[0], mean, (rows - mean).square().sum(dim=0))

    def joined(self, other: Moments) -> Moments:
        """Those of both sets of rows together (Chan, Golub and LeVeque 1983)."""
        count = self.count + other.count
        apart = other.mean - self.mean
        mean = self.mean + apart * (other.count / count)
        squares = self.squares + other.squares + apart.square() * (self.count * other.count / count)
        return Moments(count, mean, squares)

    @property
    def std(self) -> Tensor:
        return (self.squares / max(1, self.count - 1)).sqrt()


def latent_statistics(index: Index, ranks: Ranks, most_samples: int = 0) -> tuple[Tensor, Tensor]:
    """(mean, std) per channel, float32 (1, 1, C) each, over samples and tokens of the latents' means.

    Of the samples with video; of all where none has video. Each rank reads its share of the shards, and what is found is joined
    in the order of the shards, so that the result does not depend on the number of ranks. All ranks must call.

    most_samples: read about so many, in whole shards spread over the data; 0 means all.

    Raises:
        InputError: without samples, or where a channel never changes.
    """
    kinds: tuple[Kind, ...] = ("av",) if index.counts["av"] else ("av", "at")
    shards = [(i, shard) for i, shard in enumerate(index.shards) if any(shard.count(kind) for kind in kinds)]
    total = sum(shard.count(kind) for _, shard in shards for kind in kinds)
    if most_samples and total:
        shards = shards[:: max(1, total // most_samples)]
    own = {i: _of_shard(shard, kinds) for i, shard in shards[ranks.rank :: ranks.world]}
    found = {i: moments for part in gathered(own, ranks) for i, moments in part.items()}
    if not found:
        raise InputError("The training data hold no samples to take the statistics of the latents from.")
    moments = _joined(found[i] for i in sorted(found))
    std = moments.std
    if not bool(torch.isfinite(std).all()) or not bool((std > 0).all()):
        raise InputError(
            f"The latents' standard deviation over {moments.count} tokens is 0 or not finite in some channel; "
            "the training data are damaged or all alike."
        )
    return moments.mean.float()[None, None], std.float()[None, None]


def _of_shard(info: ShardInfo, kinds: tuple[Kind, ...]) -> Moments:
    shard = info.open()
    rows = sorted(row for kind in kinds for row in info.rows(kind))
    return _joined(Moments.of(shard[row].latent_mean) for row in rows)


def _joined(parts: Iterable[Moments]) -> Moments:
    whole: Moments | None = None
    for part in parts:
        whole = part if whole is None else whole.joined(part)
    assert whole is not None
    return whole
