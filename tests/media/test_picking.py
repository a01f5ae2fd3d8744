"""The pure walk of spec section 4."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from mmaudio_core.media.picking import FramePicker, pick_indices, settle_duration

from .scenes import RATES, expected_picks


def stamps_at(fps: Fraction, seconds: float) -> list[float]:
    return [float(k / fps) for k in range(math.ceil(seconds * fps))]


@pytest.mark.parametrize("fps", RATES, ids=str)
@pytest.mark.parametrize("duration_s", [0.64, 2.0, 5.0, 8.0, 7.3])
def test_every_target_gets_the_first_frame_not_before_it(fps: Fraction, duration_s: float) -> None:
    stamps = stamps_at(fps, duration_s + 1)
    clip, sync = pick_indices(stamps, duration_s)
    assert clip == expected_picks(stamps, 8, duration_s)
    assert sync == expected_picks(stamps, 25, duration_s)


@pytest.mark.parametrize("fps", RATES, ids=str)
def test_picked_instants_agree_within_one_source_frame(fps: Fraction) -> None:
    stamps = stamps_at(fps, 9)
    clip, sync = pick_indices(stamps, 8.0)
    assert (len(clip), len(sync)) == (64, 200)
    for rate, picks in ((8, clip), (25, sync)):
        for k, index in enumerate(picks):
            assert -1e-9 <= stamps[index] - k / rate < 1 / fps + 1e-9


def test_targets_accumulate_in_float64() -> None:
    # 0.04 added six times exceeds 6/25, so at 25 fps frame 6 comes too early for target 6 and frame 7 is taken.
    _, sync = pick_indices(stamps_at(Fraction(25), 2), 1.0)
    assert sync[:8] == [0, 1, 2, 3, 4, 5, 7, 7]


def test_a_frame_exactly_at_the_duration_still_counts() -> None:
    stamps = [0.0, 1.0]
    assert pick_indices(stamps, 1.0)[0] == [0] + [1] * 7
    assert pick_indices([0.0, math.nextafter(1.0, 2.0)], 1.0)[0] == [0]


def test_the_walk_ends_once_nothing_can_change() -> None:
    picker = FramePicker(1.0)
    fed = 0
    for stamp in stamps_at(Fraction(30), 100):
        picker.feed(stamp)
        fed += 1
        if picker.done:
            break
    assert fed <= 31
    assert not picker.feed(50.0)


def test_frames_before_the_start_are_not_taken() -> None:
    assert pick_indices([-0.5, -0.1, 0.0, 0.1, 0.2], None)[0] == [2, 4]


def test_without_a_duration_all_is_taken() -> None:
    clip, sync = pick_indices(stamps_at(Fraction(30), 4), None)
    assert (len(clip), len(sync)) == (32, 100)


@pytest.mark.parametrize(
    ("asked", "clip", "sync", "expected"),
    [
        (8.0, 64, 200, (8.0, 64, 200)),
        (8.0, 64, 199, (7.96, 63, 199)),
        (8.0, 40, 125, (5.0, 40, 125)),
        (8.0, 41, 126, (5.04, 40, 126)),
        (8.0, 40, 127, (5.0, 40, 125)),
        (8.0, 0, 0, (0.0, 0, 0)),
        (0.64, 5, 16, (0.64, 5, 16)),
    ],
)
def test_too_few_frames_shorten_the_duration(asked: float, clip: int, sync: int, expected: tuple[float, int, int]) -> None:
    assert settle_duration(asked, clip, sync) == expected


def test_a_file_of_exactly_eight_seconds_at_25_fps_is_one_frame_short() -> None:
    # Target 199 has drifted above 7.96, the last stamp: the published rule, and why in-memory frames hold their last one.
    clip, sync = pick_indices(stamps_at(Fraction(25), 8), 8.0)
    assert settle_duration(8.0, len(clip), len(sync)) == (7.96, 63, 199)
