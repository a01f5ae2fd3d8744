"""What training of CLIP and Synchformer is made of: contrasts worked by hand, augmentation, rates, configurations."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from mmaudio_core.errors import InputError, SpecError
from trainer.config.load import parse_toml
from trainer.config.tables import to_table
from trainer.contrastive.augment import augment
from trainer.contrastive.config import PRESETS, AugmentConfig, ClipConfig, SyncConfig, load, preset_names
from trainer.contrastive.losses import contrast
from trainer.contrastive.retrieval import offset_s, top1
from trainer.contrastive.step import Place, rate_of
from trainer.contrastive.sync import Batch, segment_pairs, token_pairs

from .helpers_contrastive import CONFIGS, clip_config, sync_config


def test_contrast_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 3.0]])
    own = torch.eye(3, dtype=torch.bool)
    rows = -(torch.log_softmax(logits, 1).diagonal().mean() + torch.log_softmax(logits, 0).diagonal().mean()) / 2
    assert contrast(logits, own) == pytest.approx(float(rows))
    # Equal captions share the target: the best logits are then equal ones, and the loss the entropy of the target.
    equal = own.clone()
    equal[0, 2] = equal[2, 0] = True
    best = torch.where(equal, 50.0, -50.0)
    assert contrast(best, equal) == pytest.approx(2 / 3 * math.log(2))
    assert contrast(50.0 * own, own) < 1e-6
    assert contrast(50.0 * own, equal) > 10
    # What is ignored has no weight, whatever its logit, and no gradient.
    ignored = torch.zeros(3, 3, dtype=torch.bool)
    ignored[0, 2] = ignored[2, 0] = True
    other = logits.clone()
    other[0, 2], other[2, 0] = 90.0, 80.0
    other.requires_grad_(True)
    loss = contrast(other, own, ignored)
    assert float(loss.detach()) == pytest.approx(float(contrast(logits, own, ignored)))
    loss.backward()
    assert other.grad is not None
    assert torch.isfinite(other.grad).all()
    assert other.grad[0, 2] == 0


def test_which_pairs_count() -> None:
    quiet = torch.zeros(2, 2, 8, dtype=torch.bool)
    quiet[0, 1] = quiet[1, 0] = True
    quiet[1, 1, :4] = True
    batch = Batch(torch.empty(0), torch.empty(0), torch.tensor([[0, 8], [0, 32]]), torch.tensor([[5, 5], [7, 7]]), quiet)
    together, ignored = segment_pairs(batch)
    assert torch.equal(together, torch.eye(4, dtype=torch.bool))
    assert {(i, j) for i, j in ignored.nonzero().tolist() if i < j} == {(0, 1), (1, 2)}  # half a segment apart; both silent
    together, ignored = token_pairs(batch)
    assert together.shape == (2, 16, 16)
    assert together[0, 4, 8]  # frame 8 of the clip: the fifth token of one segment, the first of the next
    assert together[0].sum() == 16 + 2 * 4
    assert together[1].sum() == 16
    assert ignored[1, :12, :12].all()
    assert not ignored[1, 12:].any()


def test_retrieval_by_hand() -> None:
    scores = torch.tensor([[3.0, 1.0, 0.0], [2.0, 1.0, 0.0], [0.0, 1.0, 5.0]])
    own = torch.eye(3, dtype=torch.bool)
    assert top1(scores, own) == pytest.approx(2 / 3)
    assert top1(scores, own, torch.tensor([True, False, True])) == 1
    assert offset_s(scores, 0.08, torch.ones(3, dtype=torch.bool)) == pytest.approx(0.08 / 3)


def test_augmentation_is_one_draw_a_clip_and_keeps_time() -> None:
    frames = torch.randn(2, 5, 3, 20, 20)
    frames[:, 1:] = frames[:, :1]
    place = Place(0, 3)
    made = augment(frames, AugmentConfig(True, 0.2, 0.3), place.generators(2))
    assert made.shape == frames.shape
    assert torch.equal(made[:, 0], made[:, 4])
    assert not torch.allclose(made[0], frames[0])
    assert torch.equal(made, augment(frames, AugmentConfig(True, 0.2, 0.3), place.generators(2)))
    assert torch.equal(augment(frames, AugmentConfig(False, 0.0, 0.0), place.generators(2)), frames)


def test_rates() -> None:
    optim = clip_config(Path("m.tsv"), Path("f"), "optim.lr=1.0", "optim.warmup_steps=10").optim
    assert [rate_of(step, 110, optim) for step in (1, 10, 60, 110)] == pytest.approx([0.1, 1.0, 0.5, 0.0])


def test_presets_say_every_key() -> None:
    for kind, name in ((ClipConfig, "clip_world"), (SyncConfig, "sync_world")):
        assert preset_names(kind) == [name]
        text = (PRESETS / f"{name}.toml").read_text(encoding="utf-8")
        wanted = to_table(kind())
        table = parse_toml(text)
        assert {key: set(values) for key, values in table.items()} == {key: set(values) for key, values in wanted.items()}
        assert all("#" in line for line in text.splitlines() if "=" in line)


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("clip", "data.manifest=", r"data\.manifest is empty"),
        ("sync", "train.folder=", r"train\.folder is empty"),
        ("clip", "data.kept_frames=0", r"data\.kept_frames is 0; 1 or more"),
        ("clip", "train.batch=1", r"train\.batch is 1; 2 or more"),
        ("clip", "model.vision_head_width=20", r"model\.vision_width = 32 must be a multiple"),
        ("clip", "loss.temperature=0", r"loss\.temperature is 0; both must be above 0"),
        ("sync", "data.duration_s=0.5", r"data\.duration_s is 0\.5; 0\.64 or more"),
        ("sync", "augment.shift=1", r"augment\.shift is 1; a share below 1"),
        ("clip", "checkpoint.every=-1", r"checkpoint\.every is -1; 0 or more"),
        ("sync", "log.measure_every=-1", r"log\.measure_every is -1; 0 or more"),
        ("sync", "optim.betas=[0.9]", r"optim\.betas is \[0\.9\]; two numbers"),
        ("sync", "loss.segment=1", r"unknown key loss\.segment; the nearest known one is loss\.segments"),
    ],
)
def test_bad_values(name: str, change: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        CONFIGS[name](Path("m.tsv"), Path("f"), change)


def test_more_bad_values() -> None:
    with pytest.raises(InputError, match="are all 0; one weight above 0"):
        sync_config(Path("m.tsv"), Path("f"), "loss.segments=0", "loss.tokens=0")
    with pytest.raises(SpecError, match="does not divide into 3 heads"):
        sync_config(Path("m.tsv"), Path("f"), "model.heads=3")
    with pytest.raises(InputError, match="one of sync_world"):
        load(SyncConfig, "sync_moon")
