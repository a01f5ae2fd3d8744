"""The order of samples: every one as often as it should come, the same for any number of ranks, looked up at any step."""

from __future__ import annotations

from collections import Counter

import pytest

from mmaudio_core.errors import InputError
from trainer.data.crops import Kind
from trainer.data.index import ShardInfo
from trainer.data.order import MAX_LANES, Order, OrderSettings, rank_positions


def shard(*kinds: tuple[Kind, int]) -> ShardInfo:
    return ShardInfo("nowhere", 0, "", kinds)


MIXED = [
    shard(("av", 5)),
    shard(("at", 7)),
    shard(("at", 2), ("av", 3), ("at", 1)),
    shard(),
    shard(("av", 1)),
    shard(("at", 4)),
]


def lane_epoch(order: Order, epoch: int) -> list[tuple[int, int]]:
    parts = [order.part(lane, epoch) for lane in range(order.lanes)]
    return [pair for part in parts for pair in zip(part.shards.tolist(), part.rows.tolist(), strict=True)]


@pytest.mark.parametrize("lanes", [None, 1, 2, 3, 4, 12])
@pytest.mark.parametrize("av_repeat", [1, 3])
def test_every_sample_comes_once_per_epoch_times_its_repeat(lanes: int | None, av_repeat: int) -> None:
    order = Order(MIXED, OrderSettings(12, seed=3, av_repeat=av_repeat, window_shards=2, lanes=lanes))
    wanted = Counter(
        {
            (number, row): av_repeat if kind == "av" else 1
            for number, info in enumerate(MIXED)
            for kind in ("av", "at")
            for row in info.rows(kind)
        }
    )
    assert order.epoch_samples == wanted.total()
    seen = [lane_epoch(order, epoch) for epoch in range(4)]
    assert all(Counter(found) == wanted for found in seen)
    assert seen[0] != seen[1], "each epoch is shuffled anew"


@pytest.mark.parametrize("lanes", [1, 3, 12])
def test_epochs_follow_each_other_without_gaps(lanes: int) -> None:
    order = Order(MIXED, OrderSettings(12, lanes=lanes, av_repeat=2))
    for lane in range(lanes):
        place = 0
        for epoch in range(40):
            part = order.part(lane, epoch)
            assert part.start == place
            for _ in range(len(part.rows)):
                assert order.epoch_of(lane, place) == epoch
                place += 1
        assert abs(place - 40 * order.epoch_samples / lanes) <= 1, "no lane runs ahead"


def test_steps_are_looked_up_in_any_order_and_by_any_number_of_ranks() -> None:
    settings = OrderSettings(12, seed=1, window_shards=3, lanes=4)
    order = Order(MIXED, settings)
    steps = [order.batch(step, range(12)) for step in range(30)]
    for world in (1, 2, 4, 12):
        fresh = Order(MIXED, settings)
        for step in (29, 0, 17, 3, 28):
            pieces = [fresh.batch(step, rank_positions(rank, world, 12)) for rank in range(world)]
            assert [pair for piece in pieces for pair in piece] == steps[step]
    assert Order(MIXED, OrderSettings(12, seed=2, window_shards=3, lanes=4)).batch(0, range(12)) != steps[0]


@pytest.mark.parametrize("window", [1, 2, 5])
def test_no_more_shards_are_needed_at_a_time_than_the_window(window: int) -> None:
    shards = [shard(("av", 6)) for _ in range(20)]
    order = Order(shards, OrderSettings(8, av_repeat=2, window_shards=window, lanes=2))
    for lane in range(2):
        uses = order.uses(lane, 0)
        taken = [next(uses) for _ in range(60)]
        assert [use.first for use in taken] == sorted(use.first for use in taken)
        for place in range(taken[-1].first):
            needed = [use for use in taken if use.first <= place <= use.last]
            assert len(needed) <= window
            assert order.sample(lane, place)[0] in {use.shard for use in needed}


def test_samples_of_a_window_are_mixed() -> None:
    order = Order([shard(("av", 64)) for _ in range(40)], OrderSettings(1, window_shards=8, lanes=1))
    part = order.part(0, 0)
    middle = part.shards[1000:1064].tolist()
    assert len(set(middle)) >= 7, "64 samples in a row come from about 8 shards"
    rows = part.rows[part.shards == middle[0]].tolist()
    assert rows != sorted(rows)


def test_uses_from_the_middle_are_those_that_are_still_needed() -> None:
    order = Order([shard(("av", 6)) for _ in range(20)], OrderSettings(8, window_shards=3, lanes=2))
    uses = order.uses(1, 0)
    every = [next(uses) for _ in range(40)]
    later = order.uses(1, 25)
    wanted = [use for use in every if use.last >= 25]
    assert [next(later) for _ in range(10)] == wanted[:10]


def test_lanes_divide_the_batch_and_are_no_more_than_the_shards() -> None:
    many = [shard(("av", 2))] * 100
    assert Order(many, OrderSettings(512)).lanes == MAX_LANES
    assert Order(many, OrderSettings(15)).lanes == 15
    assert Order(many[:5], OrderSettings(512)).lanes == 4
    assert Order(many, OrderSettings(17)).lanes == 1


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="no samples"):
        Order([shard()], OrderSettings(4))
    with pytest.raises(InputError, match="divide it evenly"):
        OrderSettings(10, lanes=4)
    with pytest.raises(InputError, match="av_repeat = 0"):
        OrderSettings(4, av_repeat=0)
    with pytest.raises(InputError, match="does not divide among 3 ranks"):
        rank_positions(0, 3, 16)
