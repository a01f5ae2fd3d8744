"""Mel spectrograms as pictures: orientation, scale, colours, sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mmaudio_core.errors import InputError
from mmaudio_core.media.spectrogram import RAMP_8BIT, RAMP_POSITIONS, colour_ramp, mel_picture
from mmaudio_core.types import Mel

FORMATS = [(80, 1.0), (128, math.log(10))]  # M, and log units per decade


def decades(bins: int, per_decade: float, frames: int = 200, level: float = -5.0) -> tuple[Tensor, float]:
    return torch.full((1, bins, frames), level * per_decade), per_decade


def luminance(colours: Tensor) -> np.ndarray:
    """Relative luminance of sRGB (IEC 61966-2-1)."""
    c = colours.double().numpy()
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    return linear @ np.array([0.2126, 0.7152, 0.0722])


def lightness(colours: Tensor) -> np.ndarray:
    """CIE L*."""
    y = luminance(colours)
    return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27)


def test_the_ramp_brightens_steadily() -> None:
    l_star = lightness(colour_ramp(torch.linspace(0, 1, 4001)))
    steps = np.diff(l_star) * 4000
    average = l_star[-1] - l_star[0]
    assert steps.min() > average / 2
    assert steps.max() < average * 1.5
    assert l_star[0] < 5
    assert l_star[-1] > 95
    assert len(RAMP_8BIT) == len(RAMP_POSITIONS)
    at_anchors = colour_ramp(torch.tensor(RAMP_POSITIONS)) * 255
    assert torch.allclose(at_anchors, torch.tensor(RAMP_8BIT).float(), atol=1e-4)


@pytest.mark.parametrize(("bins", "per_decade"), FORMATS)
def test_low_tones_lie_at_the_bottom_and_time_runs_right(bins: int, per_decade: float) -> None:
    values, unit = decades(bins, per_decade)
    values[:, : bins // 8, :50] = 0.5 * unit
    light = luminance(mel_picture(Mel(values, 4.0))[0])
    height, width = light.shape
    loud = light > 0.5
    rows, columns = np.nonzero(loud)
    assert rows.min() >= height * 7 // 8 - 2
    assert rows.max() == height - 1
    assert columns.min() == 0
    assert columns.max() <= width // 4 + 2
    assert loud[height * 7 // 8 + 2 :, : width // 4 - 2].all()


@pytest.mark.parametrize(("bins", "per_decade"), FORMATS)
def test_the_scale_spans_80_db_below_the_loudest_value(bins: int, per_decade: float) -> None:
    for top in (0.3, -0.5):
        levels = top - torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 4.4])  # 20 dB apart
        values = (levels * per_decade).repeat_interleave(10).expand(1, bins, -1)
        picture = mel_picture(Mel(values, 1.0), width_px=60)
        wanted = colour_ramp(torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0, 0.0]))
        assert torch.allclose(picture[0, 0, 5::10], wanted, atol=1e-5)


@pytest.mark.parametrize(("bins", "per_decade"), FORMATS)
def test_silence_is_dark_even_with_noise_in_it(bins: int, per_decade: float) -> None:
    values, unit = decades(bins, per_decade)
    darkest = torch.tensor(RAMP_8BIT[0]) / 255
    assert torch.allclose(mel_picture(Mel(values, 2.0)), darkest.expand(1, 256, 256, 3), atol=1e-6)
    noisy = values + torch.rand(values.shape, generator=torch.Generator().manual_seed(1)) * 0.3 * unit
    assert lightness(mel_picture(Mel(noisy, 2.0))).max() < 15
    below = values - 3 * unit
    assert torch.allclose(mel_picture(Mel(below, 2.0)), darkest.expand(1, 256, 256, 3), atol=1e-6)


def test_one_scale_for_the_batch() -> None:
    values, _ = decades(80, 1.0)
    pair = torch.cat([values + 5.0, values + 4.0])  # 0 and -20 dB
    together = mel_picture(Mel(pair, 2.0))
    assert torch.allclose(together[0], colour_ramp(torch.tensor(1.0)).expand(256, 256, 3), atol=1e-6)
    assert torch.allclose(together[1], colour_ramp(torch.tensor(0.75)).expand(256, 256, 3), atol=1e-6)


@pytest.mark.parametrize(
    ("bins", "duration_s", "wanted"),
    [(80, 8.0, (256, 800)), (128, 8.0, (256, 800)), (80, 0.5, (256, 256)), (128, 60.0, (256, 2048)), (80, 3.456, (256, 346))],
)
def test_default_sizes(bins: int, duration_s: float, wanted: tuple[int, int]) -> None:
    values = torch.zeros(2, bins, max(1, round(duration_s * 62.5)))
    picture = mel_picture(Mel(values, duration_s))
    assert picture.shape == (2, *wanted, 3)
    assert picture.dtype == torch.float32
    assert picture.is_contiguous()


@pytest.mark.parametrize("size", [(1, 1), (80, 500), (33, 7), (700, 1500)])
def test_asked_sizes_range_and_determinism(size: tuple[int, int]) -> None:
    values = torch.randn(1, 80, 500, generator=torch.Generator().manual_seed(2)) * 2 - 2
    before = values.clone()
    picture = mel_picture(Mel(values, 8.0), *size)
    assert picture.shape == (1, *size, 3)
    assert picture.min() >= 0
    assert picture.max() <= 1
    assert torch.equal(picture, mel_picture(Mel(values, 8.0), *size))
    assert torch.equal(values, before)
    if size == (80, 500):
        assert torch.equal(picture[0], colour_ramp((((values - values.max()) / 4) + 1).clamp(0, 1).flip(1))[0])


def test_nothing_is_skipped_where_a_long_mel_is_drawn_narrow() -> None:
    values, _ = decades(80, 1.0, frames=1000)
    for frame in range(0, 1000, 61):
        values[..., frame] = 0.0
        light = lightness(mel_picture(Mel(values, 16.0), 80, 100)[0, 0])
        assert light[frame // 10] > 6, frame
        values[..., frame] = -5.0


def test_half_precision_mels_are_drawn() -> None:
    values = torch.linspace(-5, 0, 100).expand(1, 80, 100)
    exact = mel_picture(Mel(values, 2.0))
    assert (mel_picture(Mel(values.half(), 2.0)) - exact).abs().max() < 0.01


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_are_refused(bad: float) -> None:
    values = torch.zeros(1, 80, 100)
    values[0, 3, 4] = bad
    with pytest.raises(InputError, match="NaN or infinite"):
        mel_picture(Mel(values, 1.6))


@pytest.mark.parametrize("shape", [(80, 100), (1, 1, 80, 100), (0, 80, 100), (1, 80, 0)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="shape"):
        mel_picture(Mel(torch.zeros(shape), 1.6))


def test_other_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match="100 mel bins"):
        mel_picture(Mel(torch.zeros(1, 100, 80), 1.6))
    for size in (0, -4, 1.5, True, 20_000):
        with pytest.raises(InputError, match="height_px"):
            mel_picture(Mel(torch.zeros(1, 80, 80), 1.6), height_px=size)
        with pytest.raises(InputError, match="width_px"):
            mel_picture(Mel(torch.zeros(1, 80, 80), 1.6), width_px=size)
    for duration_s in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="lasts"):
            mel_picture(Mel(torch.zeros(1, 80, 80), duration_s))
