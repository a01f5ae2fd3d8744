"""Fixed samples, their loss by bucket of t, the warning, and what feeds a step."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmaudio_core.errors import DependencyError, InputError
from trainer.config.schema import DropoutConfig, ValidationConfig
from trainer.data.batch import Batch
from trainer.data.index import Index
from trainer.data.order import OrderSettings
from trainer.data.stream import Stream
from trainer.flow import validate
from trainer.flow.feed import Feed
from trainer.flow.fixed import fixed_samples
from trainer.flow.log import Log
from trainer.flow.objective import Draws, draws
from trainer.flow.statistics import latent_statistics
from trainer.flow.step import StepResult
from trainer.flow.validate import BUCKETS, Measured, Validation, bucket_names

from .helpers_c import ONE, TINY, made_up_shards


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return Index.load(made_up_shards(tmp_path_factory.mktemp("shards"), 22, duration_s=0.8))


class TimeAsLoss(torch.nn.Module):
    """Says t of each sample as its loss, and notes what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Batch, Draws]] = []

    def forward(self, batch: Batch, drawn: Draws) -> torch.Tensor:
        self.seen.append((batch, drawn))
        return drawn.t


def test_losses_go_to_the_bucket_of_their_time(index: Index) -> None:
    module = TimeAsLoss()
    clips = fixed_samples(index, 5)
    found = Validation(ValidationConfig(batch=7), clips, clips, 0, ONE).measure(module)
    for i, (loss, name) in enumerate(zip(found.held_out, bucket_names(), strict=True)):
        assert i / BUCKETS < loss < (i + 1) / BUCKETS
        assert name == f"{i / 10:.1f}-{(i + 1) / 10:.1f}"
    assert found.held_out == found.training
    assert module.training
    for _, drawn in module.seen:
        assert not bool((drawn.drop_clip | drawn.drop_sync | drawn.drop_text).any())


def test_noise_is_the_same_each_time_and_for_any_batch(index: Index) -> None:
    clips = fixed_samples(index, 5)
    results = []
    for size in (7, 7, 50):
        module = TimeAsLoss()
        results.append(Validation(ValidationConfig(batch=size), clips, clips, 0, ONE).measure(module).held_out)
        first = module.seen[0][1].x0[:7]
        results.append(tuple(first.flatten().tolist()))
    assert results[:2] == results[2:4]
    assert results[4] == pytest.approx(results[0])
    assert results[5] == results[1]


class WithoutFloat64:
    """What a tensor on a GPU of Apple's can do of all that is asked of it here."""

    def __init__(self, values: torch.Tensor) -> None:
        self.values = values

    def __mul__(self, other: int) -> WithoutFloat64:
        return WithoutFloat64(self.values * other)

    def cpu(self) -> torch.Tensor:
        return self.values


def test_means_are_taken_where_float64_is_known(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = fixed_samples(index, 3)
    expected = Validation(ValidationConfig(), clips, clips, 0, ONE).measure(TimeAsLoss())
    monkeypatch.setattr(validate, "mean_over_ranks", lambda losses, ranks: WithoutFloat64(losses))
    assert Validation(ValidationConfig(), clips, clips, 0, ONE).measure(TimeAsLoss()) == expected


def test_captions_that_are_not_trained_with_are_not_measured_with(index: Index) -> None:
    clips = fixed_samples(index, 5)
    has_video = clips.batch(range(5)).has_video
    for captions, left_out in (("all", ~(has_video | True)), ("video", ~has_video), ("none", has_video | True)):
        module = TimeAsLoss()
        Validation(ValidationConfig(batch=5 * BUCKETS), clips, clips, 0, ONE, captions).measure(module)
        assert torch.equal(module.seen[0][1].drop_text, left_out.repeat_interleave(BUCKETS))


def test_parting_is_said_when_the_ratio_has_grown(index: Index) -> None:
    clips = fixed_samples(index, 2)
    validation = Validation(ValidationConfig(warn_ratio=0.1), clips, clips, 0, ONE)
    measured = [Measured((h,) * BUCKETS, (t,) * BUCKETS) for h, t in ((1.2, 1.0), (1.25, 1.0), (1.0, 0.7))]
    assert validation.parted(measured[2]) is None  # nothing to compare with yet
    validation.first_ratio = measured[0].ratio
    assert validation.parted(measured[0]) is None
    assert validation.parted(measured[1]) is None
    sentence = validation.parted(measured[2])
    assert sentence is not None
    assert "1.429 and was 1.200" in sentence


def test_fixed_samples_come_from_shards_all_over_the_data(index: Index) -> None:
    clips = fixed_samples(index, 6)
    assert [record.id for record in clips.records] == [sample.id for sample in clips.samples]
    numbers = [int(sample.id.rpartition("-")[2]) for sample in clips.samples]
    assert len(numbers) == 6
    assert len({number // 4 for number in numbers}) == 4
    assert fixed_samples(index, 6).records == clips.records
    assert len(fixed_samples(index, 3)) == 3
    everything = fixed_samples(Index(index.shards[:2], *list(vars(index).values())[1:]), 100)
    assert len(everything) == 8


def test_statistics_of_a_part_are_near_those_of_all(index: Index) -> None:
    whole, part = latent_statistics(index, ONE), latent_statistics(index, ONE, most_samples=5)
    assert not torch.equal(whole[0], part[0])
    torch.testing.assert_close(part[1], whole[1], rtol=0.5, atol=0)


def make(step: int, batch: Batch) -> Draws:
    return draws(0, step, batch.positions, (25, 20), TINY, DropoutConfig())


def test_a_feed_gives_the_pieces_of_each_step_with_their_draws(index: Index) -> None:
    stream = Stream(index, OrderSettings(4), accumulation=2)
    with Feed(stream, make, 3, torch.device("cpu")) as feed:
        steps = [list(feed.pieces()) for _ in range(3)]
    for step, pieces in enumerate(steps, 3):
        assert [batch.positions for batch, _ in pieces] == [(0, 1), (2, 3)]
        for batch, drawn in pieces:
            assert torch.equal(drawn.x0, make(step, batch).x0)
    assert feed.waited_s > 0
    # Readers are told to stop and not waited for: one may be in the middle of a shard.
    for thread in threading.enumerate():
        if thread.name.startswith("mmaudio"):
            thread.join(timeout=20)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("mmaudio")]


def test_a_feed_raises_what_went_wrong_in_the_background(index: Index) -> None:
    def broken(step: int, batch: Batch) -> Draws:
        raise InputError("no draws today")

    with (
        Feed(Stream(index, OrderSettings(4)), broken, 0, torch.device("cpu")) as feed,
        pytest.raises(InputError, match="today"),
    ):
        list(feed.pieces())


def test_weights_and_biases_gets_what_tensorboard_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    stand_in = SimpleNamespace(init=lambda **given: calls.append(given), finish=lambda: calls.append("finish"))
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    with Log(tmp_path, 0, 2, 4, wandb_project="mine", quiet=True) as out:
        out.take(StepResult(1.0, 2.0, True))
        out.write(1, 1e-4, 0.0, torch.device("cpu"))
    assert calls[0]["project"] == "mine"
    assert calls[0]["sync_tensorboard"]
    assert calls[1] == "finish"
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(DependencyError, match=r"log\.wandb_project"), Log(tmp_path, 0, 2, 4, wandb_project="mine", quiet=True):
        pass


def test_rates_leave_out_what_was_paused_and_count_skipped_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("trainer.flow.log.time.perf_counter", lambda: now[0])
    with Log(tmp_path, 0, 10, 4, quiet=True) as out:
        for loss, taken in ((1.0, True), (float("nan"), False)):
            now[0] += 2.0
            out.take(StepResult(loss, 3.0, taken))
        out.pause()
        now[0] += 50.0
        out.resume()
        out.write(2, 1e-4, 1.0, torch.device("cpu"))
    (line,) = [json.loads(text) for text in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert line["loss"] == 1.0
    assert line["skipped"] == 1
    assert line["step_s"] == pytest.approx(2.0)
    assert line["samples_per_s"] == pytest.approx(2.0)
    assert line["data_share"] == pytest.approx(0.25)
