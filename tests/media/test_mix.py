"""A new sound with the video's own: lengths, levels, ducking, peaks."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmaudio_core.errors import InputError
from mmaudio_core.media.mix import Combined, combine_sounds, duck_envelope
from mmaudio_core.media.resample import resample
from mmaudio_core.types import Audio

RATE = 44_100


def noise(batch: int, channels: int, count: int, level: float = 0.4, seed: int = 0) -> Tensor:
    return (torch.rand(batch, channels, count, generator=torch.Generator().manual_seed(seed)) * 2 - 1) * level


def tone(hz: float, duration_s: float, rate_hz: int = RATE, level: float = 0.3) -> Tensor:
    time_s = torch.arange(round(duration_s * rate_hz), dtype=torch.float64) / rate_hz
    return (level * torch.sin(2 * math.pi * hz * time_s)).float()[None, None]


def burst(start_s: float, end_s: float, duration_s: float, rate_hz: int = RATE, level: float = 0.3) -> Tensor:
    samples = tone(1000, duration_s, rate_hz, level)
    samples[..., : round(start_s * rate_hz)] = 0
    samples[..., round(end_s * rate_hz) :] = 0
    return samples


def db(ratio: float) -> float:
    return 20 * math.log10(ratio)


@pytest.mark.parametrize("mode", ["replace", "keep", "mix", "duck"])
@pytest.mark.parametrize(("new_hz", "original_hz"), [(16_000, 16_000), (16_000, 44_100), (44_100, 22_050), (11_025, 8_000)])
@pytest.mark.parametrize("duration_s", [0.5, 1.0037, 2.71828])
def test_rates_and_lengths(mode: str, new_hz: int, original_hz: int, duration_s: float) -> None:
    new, original = Audio(noise(1, 1, new_hz), new_hz), Audio(noise(1, 2, 3 * original_hz // 2), original_hz)
    audio = combine_sounds(new, original, duration_s, mode).audio
    rate_hz = {"replace": new_hz, "keep": original_hz}.get(mode, max(new_hz, original_hz))
    assert audio.sample_rate_hz == rate_hz
    assert audio.samples.shape == (1, 1 if mode == "replace" else 2, round(duration_s * rate_hz))
    assert audio.samples.dtype == torch.float32
    ends_s = 1.0 if mode == "replace" else 1.5
    after = audio.samples[..., round((ends_s + 0.01) * rate_hz) :]
    assert not after.any()
    assert bool(after.numel()) == (duration_s > ends_s + 0.01)


@pytest.mark.parametrize("count", [RATE // 2, RATE, 2 * RATE])
def test_replace_keeps_every_bit(count: int) -> None:
    new = noise(2, 2, count, level=1.0)
    new[..., 7] = 1.0
    given = new.clone()
    combined = combine_sounds(Audio(new, RATE), Audio(noise(1, 1, RATE), RATE), 1.0, "replace")
    kept = min(count, RATE)
    assert torch.equal(combined.audio.samples[..., :kept], given[..., :kept])
    assert not combined.audio.samples[..., kept:].any()
    assert combined.scaled_db == 0.0
    combined.audio.samples.zero_()
    assert torch.equal(new, given), "the input is not shared"


def test_keep_keeps_every_bit_for_every_clip() -> None:
    original = noise(1, 2, RATE)
    combined = combine_sounds(Audio(noise(3, 1, 16_000), 16_000), Audio(original, RATE), 1.0, "keep")
    assert torch.equal(combined.audio.samples, original.expand(3, 2, RATE))
    assert (combined.audio.sample_rate_hz, combined.scaled_db) == (RATE, 0.0)
    loud = combine_sounds(Audio(noise(1, 1, 9), 9), Audio(original, RATE), 1.0, "keep", 30.0, -6.0).audio.samples
    assert torch.allclose(loud, original * 10 ** (-6 / 20), atol=1e-7)


def test_mix_is_the_sum_of_both_at_their_gains() -> None:
    new, original = noise(2, 1, RATE, seed=1), noise(1, 2, RATE, seed=2)
    plain = combine_sounds(Audio(new, RATE), Audio(original, RATE), 1.0, "mix")
    assert torch.equal(plain.audio.samples, new + original)
    assert plain.scaled_db == 0.0
    levels = combine_sounds(Audio(new, RATE), Audio(original, RATE), 1.0, "mix", -20.0, 20 * math.log10(1.5))
    assert torch.allclose(levels.audio.samples, new * 0.1 + original * 1.5, rtol=0, atol=1e-6)


def test_mono_reaches_every_channel_at_its_own_level() -> None:
    mono, silent = tone(440, 0.5), torch.zeros(1, 2, RATE // 2)
    for pair in ((mono, silent), (silent, mono)):
        mixed = combine_sounds(Audio(pair[0], RATE), Audio(pair[1], RATE), 0.5, "mix").audio.samples
        assert torch.equal(mixed, mono.expand(1, 2, -1))


def test_the_lower_rate_is_resampled_to_the_higher_one() -> None:
    new, original = tone(440, 1.0, 16_000), noise(1, 1, RATE, seed=3)
    mixed = combine_sounds(Audio(new, 16_000), Audio(original, RATE), 1.0, "mix").audio
    assert mixed.sample_rate_hz == RATE
    assert torch.allclose(mixed.samples, resample(new, 16_000, RATE)[..., :RATE] + original, atol=1e-6)
    middle = slice(RATE // 4, RATE // 2)
    assert torch.allclose((mixed.samples - original)[..., middle], tone(440, 1.0)[..., middle], atol=1e-3)


def test_the_unheard_rest_of_a_long_original_changes_nothing() -> None:
    new, original = tone(440, 1.0), noise(1, 2, 5 * 16_000, seed=4)
    long = combine_sounds(Audio(new, RATE), Audio(original, 16_000), 1.0, "mix").audio.samples
    assert torch.allclose(long, new + resample(original, 16_000, RATE)[..., :RATE], atol=1e-6)


def test_a_silent_video() -> None:
    new = noise(2, 1, 16_000)
    for mode in ("replace", "mix", "duck"):
        alone = combine_sounds(Audio(new, 16_000), None, 1.0, mode, -6.0, 40.0)
        assert torch.equal(alone.audio.samples, combine_sounds(Audio(new, 16_000), None, 1.0, "replace", -6.0).audio.samples)
        assert torch.allclose(alone.audio.samples, new * 10 ** (-6 / 20), atol=1e-7)
    kept = combine_sounds(Audio(new, 16_000), None, 0.7, "keep")
    assert torch.equal(kept.audio.samples, torch.zeros(2, 1, 11_200))
    assert (kept.audio.sample_rate_hz, kept.scaled_db) == (16_000, 0.0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_float32(dtype: torch.dtype) -> None:
    given = noise(1, 1, 1000).to(dtype)
    samples = combine_sounds(Audio(given, 1000), None, 1.0, "replace").audio.samples
    assert samples.dtype == torch.float32
    assert torch.equal(samples, given.float())


def test_sounds_without_samples_are_silence() -> None:
    empty, original = Audio(torch.zeros(1, 1, 0), 16_000), Audio(noise(1, 2, RATE), RATE)
    for mode in ("mix", "duck"):
        assert torch.equal(combine_sounds(empty, original, 1.0, mode).audio.samples, original.samples)
    assert torch.equal(combine_sounds(empty, original, 1.0, "replace").audio.samples, torch.zeros(1, 1, 16_000))


@pytest.mark.parametrize(("new_level", "original_level", "clips"), [(0.6, 0.4, False), (0.75, 0.75, True), (1.7, 0.0, True)])
def test_a_peak_above_1_lowers_the_whole(new_level: float, original_level: float, clips: bool) -> None:
    new, original = noise(2, 1, RATE, 0.2, seed=5), noise(1, 1, RATE, 0.2, seed=6)
    new[1, 0, 100], original[0, 0, 100] = new_level, original_level
    combined = combine_sounds(Audio(new, RATE), Audio(original, RATE), 1.0, "mix")
    total = new + original
    if not clips:
        assert torch.equal(combined.audio.samples, total)
        assert combined.scaled_db == 0.0
        return
    assert combined.audio.samples.abs().max() == 1.0
    assert combined.scaled_db == pytest.approx(-db(new_level + original_level), abs=1e-5)
    assert torch.allclose(combined.audio.samples, total * 10 ** (combined.scaled_db / 20), atol=1e-6)


@pytest.mark.parametrize("mode", ["replace", "keep", "mix", "duck"])
def test_no_mode_clips_whatever_the_gain(mode: str) -> None:
    combined = combine_sounds(Audio(noise(1, 1, RATE), RATE), Audio(noise(1, 1, RATE, seed=1), RATE), 1.0, mode, 40.0, 40.0)
    assert combined.audio.samples.abs().max() == 1.0
    assert -60 < combined.scaled_db < -30


def ducked_gain(new: Tensor, rate_hz: int, duck_db: float = -12.0, threshold_db: float = -40.0) -> Tensor:
    """dB by which each instant of a constant original was changed: (N,)."""
    original = torch.full((1, 1, new.shape[-1]), 0.5)
    duration_s = new.shape[-1] / rate_hz
    combined = combine_sounds(
        Audio(new, rate_hz), Audio(original, rate_hz), duration_s, "duck", 0.0, 0.0, duck_db, threshold_db
    )
    assert combined.scaled_db == 0.0
    return 20 * torch.log10((combined.audio.samples - new)[0, 0].double() / 0.5)


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 44_100])
@pytest.mark.parametrize("duck_db", [-6.0, -12.0, -24.0])
@pytest.mark.parametrize("start_s", [1.0, 1.0037, 1.0099])
def test_the_original_goes_down_before_the_onset_and_comes_back_slowly(rate_hz: int, duck_db: float, start_s: float) -> None:
    gain_db = ducked_gain(burst(start_s, 2.0, 3.0, rate_hz), rate_hz, duck_db)

    def at(second: float) -> float:
        return float(gain_db[round(second * rate_hz)])

    assert gain_db[: round((start_s - 0.035) * rate_hz)].abs().max() < 1e-4, "untouched before"
    assert at(start_s - 0.003) < 0.6 * duck_db, "the fall begins before the onset"
    assert at(start_s) < 0.95 * duck_db
    assert at(start_s - 0.018) > 0.9 * duck_db, "the attack is a fall, not a step"
    loud = gain_db[round((start_s + 0.002) * rate_hz) : round(1.999 * rate_hz)]
    assert torch.allclose(loud, torch.full_like(loud, duck_db), atol=1e-3)
    assert at(2.06) < 0.8 * duck_db
    assert 0.3 * duck_db > at(2.13) > 0.7 * duck_db
    assert gain_db[round(2.28 * rate_hz) :].abs().max() < 1e-4, "fully back"
    falling, rising = gain_db[: round(1.5 * rate_hz)].diff(), gain_db[round(1.5 * rate_hz) :].diff()
    assert falling.max() < 1e-4
    assert rising.min() > -1e-4
    # A smooth 20 ms fall moves at most 1.5 times as fast as a straight one; a step would move all at once.
    assert falling.abs().max() * rate_hz < 1.6 * abs(duck_db) / 0.02
    assert rising.abs().max() * rate_hz < 1.6 * abs(duck_db) / 0.25


def test_silence_ducks_nothing_bit_for_bit() -> None:
    original = noise(1, 2, RATE, seed=7)
    for level in (0.0, 1e-4):
        new = tone(1000, 1.0, level=level)
        ducked = combine_sounds(Audio(new, RATE), Audio(original, RATE), 1.0, "duck").audio.samples
        assert torch.equal(ducked, new + original)


def test_ducking_by_0_db_is_mixing() -> None:
    new, original = Audio(burst(0.2, 0.6, 1.0), RATE), Audio(noise(1, 2, RATE, seed=8), RATE)
    ducked, mixed = (combine_sounds(new, original, 1.0, mode, 0.0, 0.0, 0.0) for mode in ("duck", "mix"))
    assert torch.equal(ducked.audio.samples, mixed.audio.samples)


def test_the_threshold_is_an_rms_level_after_the_gain() -> None:
    def middle(level_db: float, gain_db: float = 0.0, threshold_db: float = -40.0) -> float:
        new = Audio(tone(1000, 1.0, level=math.sqrt(2) * 10 ** (level_db / 20)), RATE)
        original = torch.full((1, 1, RATE), 0.5)
        mixed, ducked = (
            combine_sounds(new, Audio(original, RATE), 1.0, mode, gain_db, 0.0, -12.0, threshold_db).audio.samples
            for mode in ("mix", "duck")
        )
        return db(float((0.5 - (mixed - ducked)[0, 0, RATE // 2]) / 0.5))

    assert middle(-40) == pytest.approx(-6, abs=0.05)
    assert middle(-33) == pytest.approx(-12, abs=0.01)
    assert middle(-47) == pytest.approx(0, abs=0.01)
    assert middle(-30, gain_db=-10) == pytest.approx(-6, abs=0.05)
    assert middle(-20, threshold_db=-20) == pytest.approx(-6, abs=0.05)


def test_a_short_click_ducks_and_gaps_are_bridged() -> None:
    click = torch.zeros(1, 1, RATE)
    click[..., 20_000:20_088] = 0.3  # 2 ms
    assert ducked_gain(click, RATE)[20_000:20_088].max() < -11
    steps = sum(burst(start, start + 0.05, 1.0) for start in (0.2, 0.3, 0.4, 0.5))
    assert ducked_gain(steps, RATE)[round(0.21 * RATE) : round(0.54 * RATE)].max() < -8.5


def test_each_clip_of_a_batch_is_ducked_by_itself() -> None:
    new = torch.cat([burst(0.2, 0.5, 1.0), torch.zeros(1, 1, RATE)])
    original = noise(1, 2, RATE, seed=9)
    ducked = combine_sounds(Audio(new, RATE), Audio(original, RATE), 1.0, "duck").audio.samples
    assert ducked.shape == (2, 2, RATE)
    assert torch.equal(ducked[1], original[0])
    alone = combine_sounds(Audio(new[:1], RATE), Audio(original, RATE), 1.0, "duck").audio.samples
    assert torch.equal(ducked[:1], alone)


@pytest.mark.parametrize("count", [1, 159, 160, 161, 16_001])
def test_envelopes_have_every_length(count: int) -> None:
    envelope = duck_envelope(torch.full((2, 1, count), 0.5), 16_000)
    assert envelope.shape == (2, count)
    assert envelope.min() >= 0
    assert envelope.max() <= 1
    assert envelope[:, 0].min() == 1


def test_a_sound_in_one_channel_counts_in_full() -> None:
    left = torch.cat([burst(0.2, 0.5, 1.0, level=0.02), torch.zeros(1, 1, RATE)], 1)
    assert torch.equal(duck_envelope(left, RATE), duck_envelope(left[:, :1], RATE))


def good(**changes: object) -> Combined:
    arguments: dict[str, object] = {
        "new": Audio(noise(1, 1, 100), 100),
        "original": Audio(noise(1, 1, 100), 100),
        "duration_s": 1.0,
        "mode": "duck",
    }
    return combine_sounds(**{**arguments, **changes})


def test_the_call_that_the_bad_ones_differ_from_is_good() -> None:
    assert good().audio.samples.shape == (1, 1, 100)


@pytest.mark.parametrize("name", ["new_gain_db", "original_gain_db", "duck_db", "threshold_db"])
@pytest.mark.parametrize("level", [math.nan, math.inf, -math.inf, 101.0])
def test_levels_out_of_range_are_refused(name: str, level: float) -> None:
    with pytest.raises(InputError, match=name):
        good(**{name: level})


def test_ducking_upwards_is_refused() -> None:
    with pytest.raises(InputError, match="duck_db is 3"):
        good(duck_db=3.0)


@pytest.mark.parametrize("mode", ["", "Mix", "loud", None])
def test_unknown_modes_are_refused(mode: object) -> None:
    with pytest.raises(InputError, match="replace, keep, mix, duck"):
        good(mode=mode)


@pytest.mark.parametrize("mode", ["replace", "keep", "mix", "duck"])
@pytest.mark.parametrize("duration_s", [0.0, -1.0, math.nan, math.inf, 0.004])
def test_durations_out_of_range_are_refused(mode: str, duration_s: float) -> None:
    for original in (Audio(noise(1, 1, 100), 100), None):
        with pytest.raises(InputError, match="duration"):
            good(mode=mode, duration_s=duration_s, original=original)


@pytest.mark.parametrize("name", ["new", "original"])
@pytest.mark.parametrize(
    "samples",
    [
        torch.zeros(100),
        torch.zeros(1, 100),
        torch.zeros(0, 1, 100),
        torch.zeros(1, 0, 100),
        torch.zeros(1, 1, 9, dtype=torch.int16),
    ],
    ids=["1d", "2d", "no clips", "no channels", "integers"],
)
def test_other_forms_are_refused(name: str, samples: Tensor) -> None:
    with pytest.raises(InputError, match=f"{name} sound has the shape"):
        good(**{name: Audio(samples, 100)})


@pytest.mark.parametrize("rate_hz", [0, -1, 44_100.0, True])
def test_other_rates_are_refused(rate_hz: int) -> None:
    with pytest.raises(InputError, match="sample rate"):
        good(new=Audio(noise(1, 1, 100), rate_hz))


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(InputError, match="2 clips and the original 3"):
        good(new=Audio(noise(2, 1, 100), 100), original=Audio(noise(3, 1, 100), 100))
    with pytest.raises(InputError, match="2 channels and the original 6"):
        good(new=Audio(noise(1, 2, 100), 100), original=Audio(noise(1, 6, 100), 100))


def test_only_what_is_heard_must_be_finite() -> None:
    broken, whole = Audio(torch.full((1, 1, 100), math.nan), 100), Audio(noise(1, 1, 100), 100)
    assert good(mode="replace", original=broken).audio.samples.isfinite().all()
    assert good(mode="keep", new=broken).audio.samples.isfinite().all()
    for mode in ("mix", "duck"):
        for new, original in ((broken, whole), (whole, broken)):
            with pytest.raises(InputError, match="NaN"):
                good(mode=mode, new=new, original=original)
