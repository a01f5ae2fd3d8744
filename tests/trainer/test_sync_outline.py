"""Training of Synchformer's visual tower by foretelling rough log-mels, and segments that are kept in memory."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from mmaudio_core.autoencoder.mel import MelAnalysis
from mmaudio_core.errors import InputError
from trainer.contrastive import loop
from trainer.contrastive.audio import BANDS, CENTRE, FRAMES_PER_TOKEN, SPREAD, Outline
from trainer.contrastive.sync import SyncTask
from trainer.contrastive.sync_data import AUDIO, MARGIN_SAMPLES, SEGMENT_SAMPLES, TOKEN_SAMPLES
from trainer.data.kept import Kept

from .helpers_contrastive import sync_config, write_clips
from .helpers_f import log_of, lowered

CPU = torch.device("cpu")
ALONE = ("loss.segments=0", "loss.tokens=0", "loss.outline=1")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clips(tmp_path_factory.mktemp("flashes"))


def test_an_outline_says_when_and_in_which_band_it_sounds() -> None:
    samples = torch.zeros(1, SEGMENT_SAMPLES + 2 * MARGIN_SAMPLES)
    token, frame = 3, 2  # a whistle of 6 kHz in the third 16 ms of the fourth 80 ms
    first = MARGIN_SAMPLES + token * TOKEN_SAMPLES + frame * AUDIO.hop_samples
    time_s = torch.arange(AUDIO.hop_samples) / AUDIO.sample_rate_hz
    samples[0, first : first + AUDIO.hop_samples] = 0.5 * torch.sin(2 * torch.pi * 6000 * time_s)
    outline = Outline()(samples)
    assert outline.shape == (1, 8, FRAMES_PER_TOKEN * BANDS)
    by_frame = outline.unflatten(2, (FRAMES_PER_TOKEN, BANDS))[0]
    loudest = int(by_frame.flatten().argmax())
    assert loudest // (FRAMES_PER_TOKEN * BANDS) == token
    assert loudest // BANDS % FRAMES_PER_TOKEN == frame
    assert loudest % BANDS == BANDS - 1
    whole = (MelAnalysis(AUDIO)(samples) - CENTRE) / SPREAD
    assert float(by_frame[token, frame, -1]) == pytest.approx(float(whole[0, 70:, 6 + 5 * token + frame].mean()))


def test_the_tower_learns_to_foretell_it(manifest: Path, tmp_path: Path) -> None:
    config = sync_config(manifest, tmp_path, *ALONE, "train.steps=100", "log.measure_every=50", "checkpoint.every=0")
    assert loop.train(config, quiet=True) == 0
    assert lowered(log_of(tmp_path, "loss/outline"), 0.7)
    assert set(log_of(tmp_path, "held_out/outline")) == {50, 100}
    assert not log_of(tmp_path, "loss/tokens")


def test_what_is_measured_is_the_share_that_is_foretold(manifest: Path, tmp_path: Path) -> None:
    task = SyncTask(sync_config(manifest, tmp_path, *ALONE), CPU)
    items = task.rows("val", held_out=True).first(3, 0)
    truth = [task.others.outline(item.samples) for item in items]
    mean = torch.cat(truth).mean()
    for told, share in ((lambda one: one, 1.0), (lambda one: mean.expand_as(one), 0.0), (lambda one: (one + mean) / 2, 0.75)):
        answers = iter(truth)
        task.others.foretold.forward = lambda seen, told=told, answers=answers: told(next(answers))  # type: ignore[method-assign]
        assert task.measure(items)["held_out/outline"] == pytest.approx(share, abs=0.02)


def test_kept_segments_are_drawn_once_and_no_matter_how_many_stay(manifest: Path, tmp_path: Path) -> None:
    """Of a clip only ``kept`` segments are ever seen; what does not fit into memory is read again, and is the same."""
    more = (*ALONE, "data.kept_segments=2", "data.segments=1")
    seen = {}
    for cache_mb in (0, 64):
        rows = SyncTask(sync_config(manifest, tmp_path / "a", *more, f"data.cache_mb={cache_mb}"), CPU).rows("train")
        items = [rows.item(0, step, position, 4) for step in range(1, 13) for position in range(4)]
        starts: dict[int, set[int]] = {}
        for item in items:
            assert item.frames.shape[0] == item.samples.shape[0] == item.quiet.shape[0] == 1
            starts.setdefault(item.clip, set()).add(int(item.starts))
        assert all(len(found) <= 2 for found in starts.values())
        assert max(map(len, starts.values())) == 2
        seen[cache_mb] = items
    for a, b in zip(seen[0], seen[64], strict=True):
        assert a.clip == b.clip
        assert torch.equal(a.frames, b.frames)
        assert torch.equal(a.samples, b.samples)


def test_memory_has_a_limit() -> None:
    read: list[int] = []

    def of(number: int) -> bytes:
        def fresh() -> bytes:
            read.append(number)
            return bytes([number]) * 4

        return kept.get(number, fresh)

    kept: Kept[bytes] = Kept(8, len)
    assert [of(number)[0] for number in (1, 2, 1, 3, 1, 2)] == [1, 2, 1, 3, 1, 2]
    assert read == [1, 2, 3, 2]  # 3 took the place of 2, which was used least recently
    nothing: Kept[bytes] = Kept(0, len)
    assert [nothing.get(1, lambda: b"x") for _ in range(2)] == [b"x", b"x"]


def test_readers_do_not_wait_for_each_other() -> None:
    kept: Kept[int] = Kept(100, lambda value: 1)
    gate = threading.Event()
    slow = threading.Thread(target=lambda: kept.get(1, lambda: 7 if gate.wait(10) else 0))
    slow.start()
    assert kept.get(2, lambda: 8) == 8
    gate.set()
    slow.join()
    assert kept.get(1, lambda: 9) == 7


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data.kept_segments=3", r"data\.kept_segments is 3; 4 or more"),
        ("loss.outline=-1", r"loss\.outline is -1; 0 or more"),
        ("data.cache_mb=-1", r"data\.cache_mb is -1; 0 or more"),
    ],
)
def test_settings_out_of_range(change: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        sync_config(Path("m.tsv"), Path("f"), change)
