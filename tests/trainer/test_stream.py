"""Reading ahead: the order's samples, in batches, with few shards held, and errors where the batch is waited for."""

from __future__ import annotations

import gc
import threading
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from mmaudio_core.errors import DownloadError, InputError
from tests.trainer.helpers_data import made_up_dataset
from tests.trainer.serving import serve
from trainer.data import source
from trainer.data.batch import Batch
from trainer.data.crops import Kind
from trainer.data.index import Index, ShardInfo
from trainer.data.order import Order, OrderSettings, rank_positions
from trainer.data.shards import Shard
from trainer.data.stream import Stream

SETTINGS = OrderSettings(8, seed=5, av_repeat=2, window_shards=2, lanes=4)
KINDS: list[list[Kind]] = [["av"] * 5, ["at"] * 6, ["av", "at", "av"], ["at"] * 4, ["av"] * 3, ["av"] * 7]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return made_up_dataset(tmp_path_factory.mktemp("data"), KINDS)


def read(stream: Stream, count: int, step: int = 0) -> list[Batch]:
    return list(islice(stream.batches(step), count))


def ids_of(index: Index, settings: OrderSettings, steps: range) -> list[str]:
    order, shards = Order(index.shards, settings), [info.open() for info in index.shards]
    return [shards[shard].records[row].id for step in steps for shard, row in order.batch(step, range(settings.global_batch))]


def test_batches_hold_what_the_order_says(index: Index) -> None:
    found = read(Stream(index, SETTINGS), 12)
    assert [name for batch in found for name in batch.ids] == ids_of(index, SETTINGS, range(12))
    by_id = {sample.id: sample for info in index.shards for sample in info.open()}
    for batch in found:
        for i, name in enumerate(batch.ids):
            assert torch.equal(batch.latent_mean[i], by_id[name].latent_mean)
            assert bool(batch.has_video[i]) == (by_id[name].clip is not None)


@pytest.mark.parametrize("world", [1, 2, 4, 8])
def test_ranks_together_read_the_same_global_batches(index: Index, world: int) -> None:
    whole = [batch.ids for batch in read(Stream(index, SETTINGS), 10)]
    parts = [read(Stream(index, SETTINGS, rank_positions(rank, world, 8)), 10) for rank in range(world)]
    for step in range(10):
        assert sum((part[step].ids for part in parts), ()) == whole[step]
        assert sum((part[step].positions for part in parts), ()) == tuple(range(8))


def test_a_rank_reads_only_the_shards_of_its_lanes(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    whole = ShardInfo.open

    def noting(self: ShardInfo, *options: Any) -> Shard:
        opened.append(self.location)
        return whole(self, *options)

    monkeypatch.setattr(ShardInfo, "open", noting)
    stream = Stream(index, SETTINGS, rank_positions(3, 4, 8), ahead=1)
    assert stream.lanes == 1
    read(stream, 3)
    assert len(opened) <= 6, "an epoch of one lane of four is 3 or 4 of 10 visits"


@pytest.mark.parametrize("step", [1, 7, 23])
def test_it_begins_at_any_step(index: Index, step: int) -> None:
    stream = Stream(index, SETTINGS)
    whole = read(stream, step + 4)[step:]
    resumed = read(Stream(index, SETTINGS), 4, step)
    for one, two in zip(whole, resumed, strict=True):
        assert one.ids == two.ids
        assert torch.equal(one.clip, two.clip)


def test_accumulated_batches_are_the_step_in_pieces(index: Index) -> None:
    whole = read(Stream(index, SETTINGS), 3)
    pieces = read(Stream(index, SETTINGS, accumulation=4), 12)
    assert sum((batch.ids for batch in pieces), ()) == sum((batch.ids for batch in whole), ())
    assert pieces[5].positions == (2, 3)


def test_held_shards_stay_below_the_limit(tmp_path: Path) -> None:
    index = made_up_dataset(tmp_path, [["av"] * 4] * 24)
    alive: set[int] = set()
    most = 0
    lock = threading.Lock()

    class Counted(Shard):
        def __init__(self, *args: object) -> None:
            nonlocal most
            super().__init__(*args)  # type: ignore[arg-type]
            with lock:
                alive.add(id(self))
                most = max(most, len(alive))

        def __del__(self) -> None:
            alive.discard(id(self))

    for window in (1, 3):
        settings = OrderSettings(4, window_shards=window, lanes=2)
        most = 0
        stream = Stream(index, settings)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("trainer.data.index.Shard", Counted)
            read(stream, 60)
        gc.collect()
        assert 1 < stream.most_held <= 2 * (window + 1)
        assert most <= 2 * (window + 1), "objects that live, not only those that are counted as held"
        assert not alive, "nothing is held when the reading has ended"


def test_waiting_for_data_is_counted(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ShardInfo.open

    def slow(self: ShardInfo, *options: Any) -> Shard:
        time.sleep(0.1)
        return whole(self, *options)

    monkeypatch.setattr(ShardInfo, "open", slow)
    stream = Stream(index, OrderSettings(4, lanes=1), readers=1)
    batches = stream.batches()
    next(batches)
    assert stream.waited_s >= 0.1
    time.sleep(0.5)  # the next batches are made meanwhile
    before = stream.waited_s
    next(batches)
    assert stream.waited_s - before < 0.1
    batches.close()


def test_the_reading_ends_with_its_iterator(index: Index) -> None:
    batches = Stream(index, SETTINGS).batches()
    next(batches)
    batches.close()
    names = [thread.name for thread in threading.enumerate()]
    assert "mmaudio data" not in names


def test_leaving_it_does_not_wait_for_a_server_that_fails(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "FIRST_PAUSE_S", 100.0)
    with serve(Path(index.shards[0].location).parent) as served:
        stream = Stream(Index.load(served.address), OrderSettings(2, window_shards=1, lanes=1), ahead=1)
        first = {shard for shard, _ in stream.order.batch(0, [0, 1])}
        served.fail.update({f"shard-{number:06d}.safetensors": 1000 for number in set(range(len(KINDS))) - first})
        batches = stream.batches()
        next(batches)
        began = time.monotonic()
        while all(left == 1000 for left in served.fail.values()):
            assert time.monotonic() - began < 10, "nothing was read ahead"
            time.sleep(0.01)
        began = time.monotonic()
        batches.close()
        while any(thread.name.startswith("mmaudio shard") for thread in threading.enumerate()):
            assert time.monotonic() - began < 10
            time.sleep(0.01)


def test_a_broken_shard_is_named_where_its_batch_is_waited_for(tmp_path: Path) -> None:
    index = made_up_dataset(tmp_path, [["av"] * 4] * 3)
    broken = Path(index.shards[1].location)
    broken.write_bytes(broken.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"shard-000001\.safetensors cannot be used"):
        read(Stream(index, OrderSettings(4, lanes=1)), 3)


def test_over_http_it_is_the_same_and_survives_bad_answers(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "FIRST_PAUSE_S", 0.001)
    here = read(Stream(index, SETTINGS), 12)
    with serve(Path(index.shards[0].location).parent) as served:
        remote = Index.load(served.address)
        for number in range(len(KINDS)):
            served.fail[f"shard-{number:06d}.safetensors"] = 1
        there = read(Stream(remote, SETTINGS, verify=True), 12)
        for one, two in zip(here, there, strict=True):
            assert one.ids == two.ids
            assert torch.equal(one.sync, two.sync)
        served.cut["shard-000002.safetensors"] = 1000
        with pytest.raises(DownloadError, match=r"shard-000002\.safetensors could not be read"):
            read(Stream(remote, SETTINGS), 12)


def test_what_cannot_be_is_refused(index: Index) -> None:
    with pytest.raises(InputError, match="do not divide into 3 accumulated"):
        Stream(index, SETTINGS, accumulation=3)
    with pytest.raises(InputError, match="ascending ones of range"):
        Stream(index, SETTINGS, range(4, 12))
    with pytest.raises(InputError, match="ascending ones of range"):
        Stream(index, SETTINGS, [1, 0])
