"""The trainer's switches for the paper's ablations: shares of the data, captions, and what stands for a missing input."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mmaudio_core.errors import InputError
from trainer.config.schema import ModelConfig, SizesConfig
from trainer.data.order import Order, OrderSettings
from trainer.flow.initialise import make_network
from trainer.flow.objective import without_captions

from .test_objective import many
from .test_order import lane_epoch, shard

SHARDS = [shard(("av", 40), ("at", 200)), shard(("at", 100)), shard(("av", 10))]
VIDEO = {(0, row) for row in range(40)} | {(2, row) for row in range(10)}
SIZES = SizesConfig(20, 1, 1, 1, clip_dim=8, sync_dim=8, text_dim=8)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.1, 0.0])
def test_a_share_of_the_sounds_without_video(share: float) -> None:
    order = Order(SHARDS, OrderSettings(8, seed=1, av_repeat=2, sound_share=share))
    first, later = (lane_epoch(order, epoch) for epoch in (0, 3))
    sounds = set(first) - VIDEO
    assert set(first) >= VIDEO
    assert all(first.count(pair) == 2 for pair in VIDEO)
    assert set(later) - VIDEO == sounds, "the same ones in every epoch"
    assert abs(len(sounds) - 300 * share) <= 30
    assert len(sounds) == (300 if share == 1 else 0) or 0 < share < 1


def test_a_smaller_share_is_a_part_of_a_larger_one() -> None:
    small, large = (set(lane_epoch(Order(SHARDS, OrderSettings(8, sound_share=s)), 0)) for s in (0.25, 0.5))
    assert small < large
    other = set(lane_epoch(Order(SHARDS, OrderSettings(8, seed=9, sound_share=0.25)), 0))
    assert other != small


def test_only_sound_and_none_of_it_leaves_nothing() -> None:
    with pytest.raises(InputError, match="holds no samples"):
        Order([shard(("at", 5))], OrderSettings(8, sound_share=0.0))
    with pytest.raises(InputError, match=r"sound_share = 1\.5"):
        OrderSettings(8, sound_share=1.5)


@pytest.mark.parametrize(
    ("captions", "left_out"),
    [("all", (False, False)), ("video", (True, False)), ("sound", (False, True)), ("none", (True, True))],
)
def test_captions(captions: str, left_out: tuple[bool, bool]) -> None:
    """left_out: whether the text goes of samples without video, and of those with."""
    draws = many(count=2)
    draws = replace(draws, drop_text=torch.zeros(2, dtype=torch.bool))
    batch: Any = SimpleNamespace(has_video=torch.tensor([False, True]))
    assert tuple(without_captions(draws, batch, captions).drop_text.tolist()) == left_out
    kept = replace(draws, drop_text=torch.ones(2, dtype=torch.bool))
    assert without_captions(kept, batch, captions).drop_text.all()


@pytest.mark.parametrize(
    ("empty", "trained"),
    [
        ("published", {"clip": True, "sync": True, "string": False}),
        ("learned", {"clip": True, "sync": True, "string": True}),
        ("zeros", {"clip": False, "sync": False, "string": False}),
    ],
)
def test_missing_inputs(empty: Any, trained: dict[str, bool]) -> None:
    network = make_network(ModelConfig("custom", empty=empty, sizes=SIZES), 0)
    for name, wanted in trained.items():
        parameter = getattr(network, f"empty_{name}_feat")
        assert parameter.requires_grad == wanted
        assert not parameter.any()
    assert not network.latent_mean.requires_grad
