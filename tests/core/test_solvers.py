"""Euler and Dormand-Prince on equations whose solution is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmaudio_core.errors import InputError, MMAudioError
from mmaudio_core.pipeline.sample import SampleSettings, sample_latents
from mmaudio_core.sampling.guidance import guided
from mmaudio_core.sampling.solvers import dormand_prince, euler

from .test_flow_network import features, network


def growth(x: Tensor, t: Tensor) -> Tensor:
    """dx/dt = 2 t x: x(1) = e x(0)."""
    return 2 * t * x


def test_euler_is_exact_on_a_constant_velocity() -> None:
    x0, x1 = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    assert torch.allclose(euler(lambda x, t: x1 - x0, x0, 7), x1, atol=1e-6)


def test_euler_converges_with_first_order() -> None:
    x = torch.ones(1, 2, 2, dtype=torch.float64)
    errors = [abs(euler(growth, x, steps).mean().item() - math.e) for steps in (50, 100)]
    assert 1.8 < errors[0] / errors[1] < 2.2


def test_euler_visits_the_published_times() -> None:
    times: list[float] = []
    euler(lambda x, t: times.append(float(t)) or torch.zeros_like(x), torch.zeros(1, 1, 1), 25)
    assert times == torch.linspace(0, 1, 26)[:-1].tolist()


def test_dormand_prince_meets_its_tolerance() -> None:
    x = torch.linspace(0.5, 2, 6, dtype=torch.float64).reshape(1, 3, 2)
    out = dormand_prince(growth, x, rtol=1e-9, atol=1e-12)
    assert torch.allclose(out, math.e * x, rtol=1e-7)


def test_dormand_prince_needs_few_evaluations_for_a_smooth_field() -> None:
    calls = 0

    def field(x: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return growth(x, t)

    dormand_prince(field, torch.ones(1, 1, 1), rtol=1e-5, atol=1e-7)
    assert calls < 80


def test_dormand_prince_gives_up_in_words() -> None:
    with pytest.raises(MMAudioError, match="evaluations of the network"):
        dormand_prince(lambda x, t: torch.sin(1e6 * x), torch.ones(1, 1, 1), max_evaluations=50)
    with pytest.raises(MMAudioError, match="finite"):
        dormand_prince(lambda x, t: x / 0, torch.ones(1, 1, 1))


def test_no_steps() -> None:
    with pytest.raises(InputError, match="1 or more"):
        euler(growth, torch.ones(1, 1, 1), 0)


@pytest.mark.parametrize(("strength", "passes"), [(4.5, 2), (1.0, 1), (0.5, 1)])
def test_guidance_blends_and_saves_the_empty_pass(strength: float, passes: int) -> None:
    calls: list[float] = []

    def network(x: Tensor, t: Tensor, condition: float) -> Tensor:
        calls.append(condition)
        return torch.full_like(x, condition)

    out = guided(network, 3.0, 1.0, strength)(torch.zeros(1, 1, 1), torch.tensor(0.0))
    expected = strength * 3.0 + (1 - strength) * 1.0 if passes == 2 else 3.0
    assert out.item() == pytest.approx(expected)
    assert len(calls) == passes


def test_a_larger_tolerance_takes_fewer_evaluations() -> None:
    net, counts, made = network(), [], []
    for tolerance in (1e-5, 1e-2):
        steps: list[int] = []
        settings = SampleSettings(solver="dopri5", tolerance=tolerance)
        made.append(
            sample_latents(net, features(), 2.0, [3], settings=settings, progress=lambda d, n, s=steps: s.append(d)).tokens
        )
        counts.append(len(steps))
    assert counts[0] > 2 * counts[1]
    assert float((made[0] - made[1]).norm() / made[0].norm()) < 0.05
