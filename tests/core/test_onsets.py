"""Onsets at known times are found there and nowhere else; scores of onsets are what their definitions say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmaudio_core.errors import InputError
from mmaudio_core.metrics.onset_scores import (
    PAPER_WINDOW_S,
    STRICT_WINDOW_S,
    match_times,
    onset_average_precision,
    onset_count_match,
    onset_f1,
    onset_scores,
)
from mmaudio_core.metrics.onsets import Onsets, detect_onsets

RATES = (16_000, 22_050, 44_100)
TIMES_S = (0.311, 1.0, 1.5023, 2.9, 3.333)


def draw(samples: int, seed: int = 0) -> Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def struck(kind: str, times_s: tuple[float, ...], rate_hz: int, decay_s: float = 0.5, duration_s: float = 4.0) -> Tensor:
    """Strikes of the peak 1 at ``times_s``; ``decay_s`` is the time in which they fall by 60 dB."""
    out = torch.zeros(round(duration_s * rate_hz), dtype=torch.float64)
    for number, time_s in enumerate(times_s):
        first = round(time_s * rate_hz)
        since = torch.arange(len(out) - first, dtype=torch.float64) / rate_hz
        envelope = torch.exp(-math.log(1000) / decay_s * since)
        if kind == "impulse":
            out[first] += 1
        elif kind == "noise":
            out[first:] += 0.3 * envelope * draw(len(since), 100 + number)
        else:
            ratios = {"tone": (1.0,), "bar": (1.0, 2.76, 5.4)}[kind]
            out[first:] += sum(envelope * torch.sin(2 * math.pi * 440 * r * since) for r in ratios) / len(ratios)
    return out


def hum(rate_hz: int, duration_s: float = 4.0) -> Tensor:
    time_s = torch.arange(round(duration_s * rate_hz), dtype=torch.float64) / rate_hz
    return torch.stack([torch.sin(2 * math.pi * 50 * k * time_s + k) / k for k in range(1, 9)]).sum(0)


@pytest.mark.parametrize("rate_hz", RATES)
@pytest.mark.parametrize("kind", ["impulse", "noise", "tone", "bar"])
def test_every_strike_is_found_within_10_ms_over_noise_of_minus_40_db(kind: str, rate_hz: int) -> None:
    sound = struck(kind, TIMES_S, rate_hz)
    found = detect_onsets(sound + 0.01 * draw(len(sound)), rate_hz)
    assert found.times_s == pytest.approx(TIMES_S, abs=0.01)


@pytest.mark.parametrize("kind", ["noise", "tone", "bar"])
@pytest.mark.parametrize("decay_s", [0.05, 0.3, 2.0, 8.0])
def test_one_strike_is_one_onset_however_long_it_rings(kind: str, decay_s: float) -> None:
    assert detect_onsets(struck(kind, (0.7,), 16_000, decay_s), 16_000).times_s == pytest.approx([0.7], abs=0.005)


@pytest.mark.parametrize("kind", ["impulse", "noise", "tone", "bar"])
def test_strikes_120_ms_apart_are_two(kind: str) -> None:
    times_s = (1.0, 1.12, 1.24, 2.0, 2.12)
    sound = struck(kind, times_s, 16_000, decay_s=0.4)
    assert detect_onsets(sound + 0.001 * draw(len(sound)), 16_000).times_s == pytest.approx(times_s, abs=0.01)


def test_a_soft_strike_is_found_in_the_ring_of_a_loud_one() -> None:
    sound = struck("tone", (0.5,), 16_000, decay_s=4.0) + 0.1 * struck("noise", (1.0,), 16_000, decay_s=0.1)
    found = detect_onsets(sound, 16_000)
    assert found.times_s == pytest.approx((0.5, 1.0), abs=0.01)
    assert found.strengths[0] > found.strengths[1] > 0


def test_silence_steady_noise_and_hum_have_no_onset() -> None:
    assert detect_onsets(torch.zeros(64_000), 16_000) == Onsets()
    assert detect_onsets(1e-7 * draw(64_000).float(), 16_000) == Onsets()
    assert detect_onsets(torch.zeros(0), 16_000) == detect_onsets(torch.ones(300), 16_000) == Onsets()
    for seed in range(5):
        assert detect_onsets(0.1 * draw(128_000, seed), 16_000) == Onsets()
    for rate_hz in RATES:
        assert detect_onsets(0.2 * hum(rate_hz), rate_hz) == Onsets()
        assert detect_onsets(0.2 * hum(rate_hz) + 0.01 * draw(4 * rate_hz), rate_hz) == Onsets()


def test_a_slow_swell_is_no_onset() -> None:
    swell = torch.linspace(0, 1, 64_000, dtype=torch.float64) * (0.1 * draw(64_000))
    assert detect_onsets(swell + 0.01 * draw(64_000, 1), 16_000) == Onsets()


def test_noise_that_goes_on_after_a_sudden_begin_has_its_onset_there() -> None:
    sound = 0.001 * draw(64_000)
    sound[20_000:] += 0.2 * draw(44_000, 1)
    assert detect_onsets(sound, 16_000).times_s == pytest.approx([1.25], abs=0.005)


def test_the_rise_is_found_and_not_the_peak() -> None:
    """A strike that grows for 40 ms: found in the first half of its rise, far from the largest sample."""
    ramp = torch.cat((torch.zeros(16_000), torch.linspace(0, 1, 640), torch.exp(-torch.arange(16_000) / 4000))).double()
    found = detect_onsets(ramp * draw(len(ramp)), 16_000)
    assert len(found.times_s) == 1
    assert 0.99 < found.times_s[0] < 1.02


@pytest.mark.parametrize("delay_s", [0.0371, 0.25])
def test_a_delay_moves_every_onset_by_as_much(delay_s: float) -> None:
    sound = struck("bar", (0.4, 1.1, 1.9), 22_050) + struck("noise", (0.8,), 22_050, 0.1)
    delay = round(delay_s * 22_050)
    delayed = torch.cat((torch.zeros(delay, dtype=torch.float64), sound))
    before, after = detect_onsets(sound, 22_050), detect_onsets(delayed, 22_050)
    assert len(before.times_s) == 4
    assert after.times_s == pytest.approx([time_s + delay / 22_050 for time_s in before.times_s], abs=0.002)


def test_a_factor_changes_nothing() -> None:
    sound = struck("bar", TIMES_S, 16_000) + 0.003 * draw(64_000)
    found = detect_onsets(sound, 16_000)
    for factor in (1e-4, 0.03, -1.0, 700.0):
        scaled = detect_onsets(factor * sound, 16_000)
        assert scaled.times_s == pytest.approx(found.times_s, abs=1e-6)
        assert scaled.strengths == pytest.approx(found.strengths, abs=1e-6)


def test_other_inputs_are_refused() -> None:
    with pytest.raises(InputError, match=r"\(1, 100\)"):
        detect_onsets(torch.zeros(1, 100), 16_000)
    with pytest.raises(InputError, match="finite"):
        detect_onsets(torch.tensor([0.0, math.nan]), 16_000)
    with pytest.raises(InputError, match="above 0"):
        detect_onsets(torch.ones(5000), 0)


def found_at(*times_s: float, strengths: tuple[float, ...] | None = None) -> Onsets:
    return Onsets(times_s, strengths or tuple(1.0 for _ in times_s))


def test_matching_is_one_to_one_and_finds_as_many_as_there_can_be() -> None:
    assert match_times([1.0, 2.0], [1.05, 2.06], 0.05) == [(0, 0)]
    assert match_times([1.0], [0.95, 1.0, 1.05], 0.05) == [(0, 0)]
    # By nearness 1.1 would take 1.12 and leave 1.0 and 1.25 alone.
    assert match_times([1.0, 1.1], [1.08, 1.12], 0.1) == [(0, 0), (1, 1)]
    assert match_times([1.1, 1.25], [1.0, 1.12], 0.14) == [(0, 0), (1, 1)]
    assert match_times([], [1.0], 0.1) == match_times([1.0], [], 0.1) == []
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        a, b = (sorted(torch.rand(5, generator=generator).tolist()) for _ in range(2))
        assert len(match_times(a, b, 0.1)) == most_pairs(a, b, 0.1)


def most_pairs(a: list[float], b: list[float], window_s: float) -> int:
    """By trying everything."""
    if not a or not b:
        return 0
    with_first = [1 + most_pairs(a[1:], b[:j] + b[j + 1 :], window_s) for j in range(len(b)) if abs(a[0] - b[j]) <= window_s]
    return max([most_pairs(a[1:], b, window_s), *with_first])


def test_a_perfect_prediction_has_the_score_1() -> None:
    clips = [((0.5, 1.0, 7.0), found_at(0.5, 1.0, 7.0)), ((), found_at()), ((2.0,), found_at(2.0))]
    for window_s in (0.0, STRICT_WINDOW_S, PAPER_WINDOW_S):
        assert onset_scores(clips, window_s) == (1.0, 1.0, 1.0)
        assert onset_average_precision(clips, window_s) == 1.0
    assert onset_count_match(clips) == 1.0


def test_nothing_against_nothing_and_against_something() -> None:
    nothing, missed, made_up = [((), found_at())], [((1.0,), found_at())], [((), found_at(1.0))]
    assert onset_scores(nothing, 0.1) == (1.0, 1.0, 1.0)
    assert onset_scores(missed, 0.1) == onset_scores(made_up, 0.1) == (0.0, 0.0, 0.0)
    assert [onset_average_precision(clips, 0.1) for clips in (nothing, missed, made_up)] == [1.0, 0.0, 0.0]
    assert [onset_count_match(clips) for clips in (nothing, missed, made_up)] == [1.0, 0.0, 0.0]
    assert onset_f1([], [], 0.1) == 1.0
    assert onset_f1([], [1.0], 0.1) == onset_f1([1.0], [], 0.1) == 0.0


def test_scores_worked_by_hand() -> None:
    # 3 of 4 detections are right, 3 of 5 reference times are found.
    clips = [((1.0, 2.0, 3.0), found_at(1.04, 2.2, 3.0)), ((1.0, 4.0), found_at(4.02))]
    scores = onset_scores(clips, 0.05)
    assert scores == pytest.approx((3 / 4, 3 / 5, 2 * 3 / 9))
    assert onset_scores(clips, 0.3) == pytest.approx((1.0, 4 / 5, 8 / 9))
    assert onset_count_match(clips) == 0.5
    assert onset_f1((1.0,), (1.05,), STRICT_WINDOW_S) == 1.0
    assert onset_f1((1.0,), (1.051,), STRICT_WINDOW_S) == 0.0


def test_average_precision_ranks_over_all_clips() -> None:
    # In order of strength: right, wrong, right, wrong; 3 reference times.
    clips = [((1.0, 2.0), found_at(1.0, 1.5, strengths=(9.0, 5.0))), ((3.0,), found_at(3.0, 3.5, strengths=(4.0, 1.0)))]
    assert onset_average_precision(clips, 0.05) == pytest.approx((1 / 1 + 2 / 3) / 3)
    # A second detection of the same strike is wrong, and a stronger one takes what is nearest to it.
    double = [((1.0,), found_at(0.99, 1.01, strengths=(1.0, 2.0)))]
    assert onset_average_precision(double, 0.05) == 1.0
    assert onset_average_precision([((1.0, 1.2), found_at(0.99, 1.01, strengths=(1.0, 2.0)))], 0.05) == 0.5


def test_wrong_times_are_refused() -> None:
    with pytest.raises(InputError, match="window of -1"):
        match_times([], [], -1)
    with pytest.raises(InputError, match="sort them"):
        match_times([2.0, 1.0], [], 0.1)
    with pytest.raises(InputError, match="sort them"):
        onset_average_precision([((math.nan,), found_at())], 0.1)
    with pytest.raises(InputError, match="No clip"):
        onset_count_match([])
