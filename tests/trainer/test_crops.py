"""The paper's crop rule."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from mmaudio_core.errors import InputError
from trainer.data.crops import Crop, crops_of


def starts(*args: object, **options: object) -> list[float]:
    return [crop.start_s for crop in crops_of(*args, **options)]  # type: ignore[arg-type]


def test_a_video_gives_its_first_eight_seconds() -> None:
    assert crops_of("av", 10.0) == crops_of("av", 100.0) == crops_of("av", 8.0) == [Crop(0.0, 8.0)]
    assert crops_of("av", 7.9) == []


@pytest.mark.parametrize(
    ("duration_s", "expected"),
    [
        (7.99, []),
        (7.9995, [0.0]),  # as a header rounds 8 s
        (8.0, [0.0]),
        (15.99, [0.0]),
        (16.0, [0.0, 8.0]),
        (24.0, [0.0, 8.0, 16.0]),
        (39.0, [0.0, 10.333, 20.666, 30.999]),
        (40.0, [0.0, 8.0, 16.0, 24.0, 32.0]),
        (108.0, [0.0, 25.0, 50.0, 75.0, 100.0]),
    ],
)
def test_a_recording_gives_up_to_five(duration_s: float, expected: list[float]) -> None:
    assert starts("at", duration_s) == expected


@pytest.mark.parametrize("duration_s", [16.0, 16.3, 17.123456, 31.9999, 40.0, 41.7, 600.0, 3599.97])
@pytest.mark.parametrize("start_s", [0.0, 0.1, 3.7])
def test_crops_neither_overlap_nor_pass_the_end(duration_s: float, start_s: float) -> None:
    crops = crops_of("at", start_s + duration_s, start_s)
    assert len(crops) == min(5, int((duration_s + 1e-3) / 8))
    assert crops[0].start_s == start_s
    for before, after in pairwise(crops):
        assert after.start_s - before.start_s >= 8.0 - 1e-6
    assert crops[-1].start_s + 8.0 <= start_s + duration_s + 1.1e-3


def test_the_range_of_a_row_counts() -> None:
    assert starts("av", 60.0, 20.0) == [20.0]
    assert starts("av", 60.0, 20.0, 27.0) == []
    assert starts("at", 60.0, 20.0, 36.0) == [20.0, 28.0]
    assert starts("at", 60.0, 45.0, 90.0) == [45.0]  # the file ends before the range
    assert starts("at", 60.0, 61.0) == []
    assert starts("at", 7.0, duration_s=2.0) == [0.0, 2.5, 5.0]


@pytest.mark.parametrize(("start_s", "duration_s"), [(-1.0, 8.0), (0.0, 0.0), (math.nan, 8.0), (0.0, math.nan)])
def test_impossible_wishes_are_refused(start_s: float, duration_s: float) -> None:
    with pytest.raises(InputError, match="Crops of"):
        crops_of("at", 10.0, start_s, duration_s=duration_s)
