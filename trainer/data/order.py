"""The order in which samples are trained on: one endless sequence that knows nothing of ranks, files or memory.

An epoch is all visits of shards in a random order: a shard with video is visited ``av_repeat`` times, sound alone comes along
in the first of these visits only. The sequence of an epoch is cut into equal parts, one per lane; a lane's part is then
shuffled locally, so that a sample of its k-th visit comes at a random time between k and k + ``window_shards``. A lane
therefore needs ``window_shards`` shards at any time and one new shard after the other, at an even pace.

Position p of the global batch belongs to lane p * lanes // global_batch. A rank has consecutive positions and reads the
shards of its lanes alone. Everything is drawn from (seed, epoch, lane) and known as numbers of shards and rows, so that any
step can be looked up without reading data.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmaudio_core.errors import InputError

from .index import ShardInfo

MAX_LANES = 16
"""More mix no better, and each holds shards in memory."""
_KEPT_EPOCHS = 2


@dataclass(frozen=True)
class OrderSettings:
    """global_batch: samples of a step over all ranks. av_repeat: how often a sample with video comes per epoch.

    window_shards: shards over which a lane shuffles. lanes: None takes as many as batch and shards allow, 16 at most.
    sound_share: share of the samples without video that is used, always the same ones of a seed.
    """

    global_batch: int
    seed: int = 0
    av_repeat: int = 1
    window_shards: int = 4
    lanes: int | None = None
    sound_share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.sound_share <= 1:
            raise InputError(f"sound_share = {self.sound_share:g} was given; it must be from 0 to 1.")
        for name in ("global_batch", "av_repeat", "window_shards"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} = {getattr(self, name)} was given; it must be 1 or more.")
        if self.lanes is not None and (self.lanes < 1 or self.global_batch % self.lanes):
            raise InputError(f"{self.lanes} lanes were asked for a batch of {self.global_batch}; they must divide it evenly.")


@dataclass(frozen=True)
class Use:
    """A shard that a lane needs from its own place ``first`` to ``last``, both included."""

    shard: int
    first: int
    last: int


@dataclass(frozen=True)
class LaneEpoch:
    """A lane's part of one epoch, which begins at the lane's place ``start``: int32 (samples,) each; and the uses by first."""

    start: int
    shards: Tensor
    rows: Tensor
    uses: tuple[Use, ...]


class Order:
    """The sequence over ``shards``; of each only the kinds of its samples are looked at.

    Raises:
        InputError: when there is no sample at all.
    """

    def __init__(self, shards: Sequence[ShardInfo], settings: OrderSettings) -> None:
        self.settings = settings
        self._rows = [self._used(number, shard) for number, shard in enumerate(shards)]
        visits = [
            (number, turn)
            for number, (rows, with_video) in enumerate(self._rows)
            for turn in range(settings.av_repeat if len(with_video) else 1)
            if len(rows)
        ]
        if not visits:
            raise InputError("The data set holds no samples; see its bad.jsonl for what was left out and why.")
        self._visits = torch.tensor(visits, dtype=torch.int64)
        self._lengths = torch.tensor([len(self._rows_of(*visit)) for visit in visits], dtype=torch.int64)
        self.epoch_samples = int(self._lengths.sum())
        """Samples of an epoch, repeats counted."""
        self.lanes = settings.lanes or _lanes(settings.global_batch, len(shards))
        self._parts: OrderedDict[tuple[int, int], LaneEpoch] = OrderedDict()
        self._epochs: OrderedDict[int, tuple[Tensor, Tensor]] = OrderedDict()

    @property
    def lane_batch(self) -> int:
        """Samples of a step that one lane gives."""
        return self.settings.global_batch // self.lanes

    def lane_of(self, position: int) -> int:
        """The lane of a position of the global batch."""
        return position // self.lane_batch

    def place(self, step: int, position: int) -> int:
        """The place in its lane of the sample at ``position`` of ``step``."""
        return step * self.lane_batch + position % self.lane_batch

    def batch(self, step: int, positions: Iterable[int]) -> list[tuple[int, int]]:
        """(shard, row) of the samples at ``positions`` of the global batch of ``step``, both counted from 0."""
        return [self.sample(self.lane_of(position), self.place(step, position)) for position in positions]

    def sample(self, lane: int, place: int) -> tuple[int, int]:
        """(shard, row) at ``place`` of ``lane``."""
        part = self.part(lane, self.epoch_of(lane, place))
        return int(part.shards[place - part.start]), int(part.rows[place - part.start])

    def uses(self, lane: int, place: int) -> Iterator[Use]:
        """The shards that ``lane`` needs from ``place`` on, by when they are first needed; endless."""
        epoch = self.epoch_of(lane, place)
        while True:
            yield from (use for use in self.part(lane, epoch).uses if use.last >= place)
            epoch += 1

    def epoch_of(self, lane: int, place: int) -> int:
        """The epoch that ``place`` of ``lane`` lies in."""
        epoch = max(0, (place - 2) * self.lanes // self.epoch_samples)  # never too late, since lanes differ by one sample
        while self._start(lane, epoch + 1) <= place:
            epoch += 1
        return epoch

    def part(self, lane: int, epoch: int) -> LaneEpoch:
        """The samples of ``lane`` in ``epoch``; the last few parts are kept."""
        key = (lane, epoch)
        if key not in self._parts:
            self._parts[key] = self._draw(lane, epoch)
            while len(self._parts) > _KEPT_EPOCHS * self.lanes:
                self._parts.popitem(last=False)
        self._parts.move_to_end(key)
        return self._parts[key]

    def _start(self, lane: int, epoch: int) -> int:
        """Samples of ``lane`` before ``epoch``.

        An epoch does not divide evenly, so that lanes take turns in having one sample more; of each epoch every sample is used.
        """
        even, odd = divmod(self.epoch_samples, self.lanes)
        return epoch * even + (lane + (epoch - 1) * odd) // self.lanes - (lane - odd) // self.lanes

    def _rows_of(self, shard: int, turn: int) -> Tensor:
        rows, with_video = self._rows[shard]
        return rows if turn == 0 else with_video

    def _used(self, number: int, shard: ShardInfo) -> tuple[Tensor, Tensor]:
        """int32 (rows,) of a shard for its first visit, and of those the ones with video."""
        with_video = torch.tensor(shard.rows("av"), dtype=torch.int32)
        rows = torch.arange(len(shard), dtype=torch.int32)
        if self.settings.sound_share == 1:
            return rows, with_video
        chance = torch.rand(len(shard), generator=_generator(self.settings.seed, -2, number))
        chance[with_video.long()] = 0
        return rows[chance < max(self.settings.sound_share, 1e-9)], with_video

    def _epoch(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Visits in the order of ``epoch``, and how many samples come before each, with the sum at the end."""
        if epoch not in self._epochs:
            shuffled = torch.randperm(len(self._visits), generator=_generator(self.settings.seed, epoch, -1))
            before = torch.cat((torch.zeros(1, dtype=torch.int64), self._lengths[shuffled].cumsum(0)))
            self._epochs[epoch] = shuffled, before
            while len(self._epochs) > _KEPT_EPOCHS:
                self._epochs.popitem(last=False)
        return self._epochs[epoch]

    def _draw(self, lane: int, epoch: int) -> LaneEpoch:
        shuffled, before = self._epoch(epoch)
        sizes = [self._start(other, epoch + 1) - self._start(other, epoch) for other in range(lane + 1)]
        begin, size = sum(sizes[:-1]), sizes[-1]
        start, ends = self._start(lane, epoch), before.tolist()
        shards, rows, visits = [], [], []
        first = bisect_right(ends, begin) - 1
        number = 0
        while first + number < len(shuffled) and ends[first + number] < begin + size:
            shard, turn = self._visits[shuffled[first + number]].tolist()
            offset = ends[first + number]
            own = self._rows_of(shard, turn)[max(0, begin - offset) : begin + size - offset]
            rows.append(own)
            shards.append(torch.full_like(own, shard))
            visits.append(torch.full((len(own),), number, dtype=torch.int64))
            number += 1
        if not size:
            empty = torch.zeros(0, dtype=torch.int32)
            return LaneEpoch(start, empty, empty, ())
        visit = torch.cat(visits)
        delays = torch.rand(size, dtype=torch.float64, generator=_generator(self.settings.seed, epoch, lane))
        order = torch.argsort(visit + self.settings.window_shards * delays, stable=True)
        return LaneEpoch(start, torch.cat(shards)[order], torch.cat(rows)[order], _uses(shards, visit[order], start))


def _uses(shards: Sequence[Tensor], visit: Tensor, start: int) -> tuple[Use, ...]:
    places = torch.arange(len(visit))
    first = torch.full((len(shards),), len(visit)).scatter_reduce(0, visit, places, "amin")
    last = torch.zeros(len(shards), dtype=torch.int64).scatter_reduce(0, visit, places, "amax")
    numbers = [int(shard[0]) for shard in shards]
    uses = (Use(n, start + f, start + e) for n, f, e in zip(numbers, first.tolist(), last.tolist(), strict=True))
    return tuple(sorted(uses, key=lambda use: use.first))


def _lanes(global_batch: int, shards: int) -> int:
    most = min(MAX_LANES, shards, global_batch)
    return next(count for count in range(most, 0, -1) if global_batch % count == 0)


def _generator(*numbers: int) -> torch.Generator:
    """Seeded by all of ``numbers``; neighbours give unrelated streams."""
    digest = hashlib.blake2b(repr(numbers).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def rank_positions(rank: int, world: int, global_batch: int) -> range:
    """The positions of the global batch that ``rank`` of ``world`` works on.

    Raises:
        InputError: when the batch does not divide evenly.
    """
    if global_batch % world:
        raise InputError(f"A global batch of {global_batch} does not divide among {world} ranks; change either.")
    own = global_batch // world
    return range(rank * own, (rank + 1) * own)
