"""The same few samples every time: for validation and previews."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..data.batch import Batch, collate
from ..data.index import Index
from ..data.shards import Record, Sample

MOST_SHARDS = 4
"""Shards opened for them: each may have to come over a network as a whole."""


@dataclass(frozen=True)
class Fixed:
    """Samples of an index with their records."""

    index: Index
    samples: tuple[Sample, ...]
    records: tuple[Record, ...]

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, numbers: Sequence[int]) -> Batch:
        """The samples of these numbers, which are also their positions."""
        return collate([self.samples[i] for i in numbers], numbers, self.index.widths)


def fixed_samples(index: Index, count: int) -> Fixed:
    """``count`` samples, or as many as there are: evenly out of at most ``MOST_SHARDS`` shards spread over the data."""
    filled = [shard for shard in index.shards if len(shard)]
    most = min(MOST_SHARDS, len(filled))
    left = count
    samples: list[Sample] = []
    records: list[Record] = []
    for turn in range(most):
        info = filled[turn * len(filled) // most]
        rows = range(min(len(info), -(-left // (most - turn))))
        shard = info.open()
        samples += [_own(shard[row]) for row in rows]
        records += [shard.records[row] for row in rows]
        left -= len(rows)
    return Fixed(index, tuple(samples), tuple(records))


def _own(sample: Sample) -> Sample:
    """A copy, so that the shard itself need not stay in memory."""
    copies = {
        name: value.clone()
        for name in ("latent_mean", "latent_std", "clip", "sync", "text")
        if (value := getattr(sample, name)) is not None
    }
    return Sample(sample.id, sample.kind, sample.caption, **{"clip": None, "sync": None, "text": None, **copies})
