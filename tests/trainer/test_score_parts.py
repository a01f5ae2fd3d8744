"""What ``mmaudio-train score`` is made of: patches around strikes, loudness, and numbers worked by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmaudio_core.errors import InputError
from mmaudio_core.metrics.onsets import Onsets
from trainer.score.learn import varied
from trainer.score.measure import KEYS, Heard, loudness_correlation, scores
from trainer.score.strikes import JITTER_FRAMES, PATCH_FRAMES, at_peak, loudness_db, mel_patches
from trainer.world import MATERIALS, Event


def noise(samples: int, level: float = 0.1, seed: int = 0) -> Tensor:
    return level * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def test_loudness_is_that_of_the_tenth_of_a_second_after_the_time() -> None:
    sound = torch.zeros(16_000)
    sound[1600:3200], sound[3200:4000] = 0.1, 0.01
    times_s = (0.1, 0.2, 0.5, 5.0)
    half_of_it = 20 * math.log10(0.01 * math.sqrt(0.5))
    assert loudness_db(sound, 16_000, times_s).tolist() == pytest.approx([-20, half_of_it, -100, -100], abs=1e-4)
    assert loudness_db(sound, 16_000, ()).shape == (0,)


def test_sounds_are_judged_at_one_level() -> None:
    assert float(at_peak(noise(1000, 3.0)).abs().max()) == pytest.approx(0.95)
    torch.testing.assert_close(at_peak(noise(1000, 1e-3)), at_peak(noise(1000, 0.5)))
    assert not at_peak(torch.zeros(10)).any()


def test_a_patch_shows_the_strike_always_at_the_same_place() -> None:
    sound = torch.zeros(32_000)
    sound[8000:9000], sound[28_000:28_500] = noise(1000), noise(500)
    patches = mel_patches(sound, (0.5, 1.75, 0.0, 9.0))
    assert patches.shape == (4, 80, PATCH_FRAMES + 2 * JITTER_FRAMES)
    begins = [int((patch.mean(0) > -4.5).nonzero()[0]) for patch in patches[:2]]
    assert begins[0] == begins[1]
    assert patches[2].max() == patches[3].max() == -5
    assert mel_patches(sound, ()).shape == (0, 80, PATCH_FRAMES + 2 * JITTER_FRAMES)


def test_varied_patches_are_shifted_louder_and_over_noise() -> None:
    patches = torch.full((8, 80, PATCH_FRAMES + 2 * JITTER_FRAMES), -1.0)
    mel = varied(patches, torch.Generator().manual_seed(0))
    assert mel.shape == (8, 80, PATCH_FRAMES)
    means = mel.mean((1, 2))
    assert means.std() > 0.1
    assert (means + 1).abs().max() < 0.65
    assert varied(patches - 4, torch.Generator().manual_seed(0)).min() >= -5


def strike(time_s: float, material: str = "wood", strength: float = 0.5) -> Event:
    return Event(time_s, "strike", material, strength)


def test_loudness_correlation_is_within_clip_and_material() -> None:
    strengths = (0.1, 0.2, 0.8)
    wood = tuple(strike(k, "wood", s) for k, s in enumerate(strengths))
    metal = tuple(strike(k, "metal", s) for k, s in enumerate(strengths))
    fitting = torch.tensor([20 * math.log10(s) for s in strengths])
    # Another clip's and another material's level make no difference.
    assert loudness_correlation([wood, wood + metal], [fitting, torch.cat((fitting - 30, fitting + 9))]) == pytest.approx(1)
    assert loudness_correlation([wood], [-fitting]) == pytest.approx(-1)
    assert loudness_correlation([wood], [torch.full((3,), -100.0)]) == 0
    assert loudness_correlation([wood[:1], metal[:1]], [fitting[:1], fitting[1:2]]) == 0
    assert loudness_correlation([], []) == 0


def heard(times_s: tuple[float, ...], classes: tuple[str, ...]) -> Heard:
    logits = torch.stack([10.0 * (torch.arange(6) == MATERIALS.index(name)) for name in classes])
    return Heard(Onsets(times_s, (5.0,) * len(times_s)), logits, logits, torch.arange(len(classes)) * 1.0)


def test_scores_worked_by_hand() -> None:
    strikes = [(strike(1.0), strike(2.0, "metal")), (), (strike(3.0, "water"),)]
    nothing = Heard(Onsets((4.0,), (9.0,)), torch.empty(0, 6), torch.empty(0, 6), torch.empty(0))
    truth = [heard((1.0, 2.2), ("wood", "metal")), nothing, heard((3.0,), ("water",))]
    line = [heard((1.04, 2.2), ("wood", "glass")), nothing, heard((), ("water",))]
    got = scores(strikes, line, truth)
    assert tuple(got) == KEYS
    assert got["onset_f1_50ms"] == pytest.approx(2 * 1 / 5)
    assert got["onset_f1"] == pytest.approx(2 * 2 / 5)
    assert got["onset_count_match"] == 0.5
    assert got["onset_ap"] == pytest.approx(2 / 3)
    assert got["heard_onset_f1_50ms"] == pytest.approx(2 * 2 / 5)
    assert got["material_accuracy"] == pytest.approx(2 / 3)
    assert got["kl"] == pytest.approx(10 / 3, rel=0.01)
    assert got["frechet_distance"] > 1
    own = scores(strikes, truth, truth)
    assert (own["kl"], own["material_accuracy"], own["heard_onset_ap"]) == (0, 1, 1)
    assert own["frechet_distance"] == pytest.approx(0, abs=1e-6)
    with pytest.raises(InputError, match="hold 1 strikes"):
        scores(strikes[2:], line[2:], truth[2:])
