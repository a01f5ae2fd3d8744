"""sin^2 in plain arithmetic is as near as torch.sin and a square."""

from __future__ import annotations

import math

import pytest
import torch

from mmaudio_core.kernels.sin_squared import C1, C2, C3, C4, SCALE, B, Q, S, Y, sin_squared_


@pytest.mark.parametrize("reach", [0.5, 3.0, 100.0])
def test_as_near_as_the_sine(reach: float) -> None:
    x = torch.linspace(-reach, reach, 200_001)
    exact = torch.sin(math.pi * x.double()).square()
    got = SCALE * sin_squared_(x.clone()).double()
    assert (got - exact).abs().max() < 3e-7
    usual = (torch.sin((math.pi * x).float()).square().double() - exact).abs().max()
    assert (got - exact).abs().max() < 2 * max(float(usual), 1.2e-7)


def test_small_values_keep_their_digits() -> None:
    x = torch.logspace(-12, -2, 1000)
    exact = torch.sin(math.pi * x.double()).square()
    assert (SCALE * sin_squared_(x.clone()).double() / exact - 1).abs().max() < 5e-7


def test_in_place_and_with_memory_to_work_in() -> None:
    x = torch.randn(7, 5)
    wanted = sin_squared_(x.clone())
    scratch = torch.full_like(x, torch.nan)
    assert sin_squared_(x, scratch) is x
    assert torch.equal(x, wanted)


def test_what_is_no_number_stays_none() -> None:
    out = sin_squared_(torch.tensor([math.nan, math.inf, -math.inf, 1e30]))
    assert out.isnan().tolist() == [True, True, True, False]


def test_three_passes_are_the_polynomial() -> None:
    for y in (0.0, 0.1, 0.25):
        q = y + Q * y * y
        assert B * (q + S * q * q + Y * y) == pytest.approx(C1 * y + C2 * y**2 + C3 * y**3 + C4 * y**4)
