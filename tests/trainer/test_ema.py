"""Post-hoc EMA: the recursion's profile is the analytic one, and sums of snapshots come near any other one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmaudio_core.errors import InputError, WeightsError
from trainer.ema.power import PowerEMA
from trainer.ema.profiles import WIDEST, beta, gamma_of, inner_products, shares, sigma_rel_of
from trainer.ema.snapshots import find_snapshots, write_snapshots
from trainer.ema.synthesis import fit, summed

from .helpers_ranks import ONE

STEPS, EVERY = 600, 25
TRACKED = (0.05, 0.10)


@pytest.fixture(scope="module")
def snapshots() -> dict[tuple[int, float], np.ndarray]:
    """A linear toy run: parameter s is 1 after step s + 1 alone, so the averages are the shares of the steps."""
    impulse = torch.nn.Parameter(torch.zeros(STEPS))
    ema = PowerEMA({"impulse": impulse}, TRACKED)
    found = {}
    for step in range(1, STEPS + 1):
        with torch.no_grad():
            impulse.zero_()
            impulse[step - 1] = 1
        ema.update(step)
        if step % EVERY == 0:
            found |= {(step, width): ema.tensors(width)["impulse"].double().numpy().copy() for width in TRACKED}
    return found


def test_gamma_and_width_belong_to_each_other() -> None:
    assert gamma_of(0.05) == pytest.approx(16.97, abs=0.005)  # both printed in the paper
    assert gamma_of(0.10) == pytest.approx(6.94, abs=0.005)
    for width in (0.01, 0.05, 0.1, 0.2, WIDEST):
        assert sigma_rel_of(gamma_of(width)) == pytest.approx(width, rel=1e-9)
    assert gamma_of(WIDEST) == pytest.approx(0, abs=1e-9)
    for width in (0.0, 0.29, -1.0):
        with pytest.raises(InputError, match="relative EMA width"):
            gamma_of(width)


def test_the_relative_width_is_the_standard_deviation_of_the_shares() -> None:
    for width in (0.05, 0.1, 0.25):
        share, at = shares(20_000, width), (np.arange(20_000) + 0.5) / 20_000
        mean = share @ at
        assert np.sqrt(share @ (at - mean) ** 2) == pytest.approx(width, rel=1e-3)


def test_the_recursion_has_the_analytic_shares(snapshots: dict[tuple[int, float], np.ndarray]) -> None:
    assert beta(1, 7.0) == 0  # the first step leaves nothing of the initial weights
    for width in TRACKED:
        expected = shares(STEPS, width)
        assert expected.sum() == pytest.approx(1)
        np.testing.assert_allclose(snapshots[STEPS, width], expected, atol=1e-5 * expected.max())


def test_inner_products_are_integrals() -> None:
    s = (np.arange(200_000) + 0.5) / 200_000
    p = np.where(s < 0.6, (8.5 * s**7.5) / 0.6**8.5, 0.0)
    q = (3.0 * s**2.0) / 1.0**3
    found = inner_products([0.6], [7.5], [1.0, 0.6], [2.0, 7.5])
    np.testing.assert_allclose(found, [[(p * q).mean(), (p * p).mean()]], rtol=1e-4)


@pytest.mark.parametrize("width", [0.04, 0.06, 0.08, 0.12, 0.15])
def test_a_width_put_together_afterwards_matches_the_analytic_one(
    snapshots: dict[tuple[int, float], np.ndarray], width: float
) -> None:
    found = fit(list(snapshots), STEPS, width)
    made = sum(weight * values for weight, values in zip(found.weights, snapshots.values(), strict=True))
    expected = shares(STEPS, width)
    assert np.abs(made - expected).max() < 0.01 * expected.max()
    assert found.error < 0.01
    assert sum(found.weights) == pytest.approx(1, abs=1e-9)
    # At a step in the middle, from the snapshots up to it: half as many, so less exact.
    half = {key: values for key, values in snapshots.items() if key[0] <= STEPS // 2}
    middle = fit(list(half), STEPS // 2, width)
    made = sum(weight * values for weight, values in zip(middle.weights, half.values(), strict=True))
    assert np.abs(made[: STEPS // 2] - shares(STEPS // 2, width)).max() < 0.03 * shares(STEPS // 2, width).max()


def test_a_tracked_width_is_the_tracked_average() -> None:
    profiles = [(50, 0.05), (50, 0.1), (100, 0.05), (100, 0.1)]
    assert fit(profiles, 100, 0.1).weights == (0, 0, 0, 1)
    near = fit(profiles, 100, 0.1 + 1e-9)  # through the least squares
    np.testing.assert_allclose(near.weights, (0, 0, 0, 1), atol=1e-6)
    assert near.error < 1e-6


def test_few_snapshots_say_so_and_none_are_refused() -> None:
    assert fit([(100, 0.05), (100, 0.1)], 100, 0.25).error > 0.05
    with pytest.raises(InputError, match="one or more snapshots"):
        fit([], 100, 0.1)
    with pytest.raises(InputError, match="of that step or before"):
        fit([(200, 0.1)], 100, 0.05)


def module() -> torch.nn.Module:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    return layer


def test_parameters_are_swapped_for_their_average_and_come_back() -> None:
    layer = module()
    ema = PowerEMA(dict(layer.named_parameters()), TRACKED)
    for step in (1, 2, 3):
        with torch.no_grad():
            layer.weight += 1
        ema.update(step)
    held, average = layer.weight.detach().clone(), ema.tensors(0.1)["weight"].clone()
    assert not torch.equal(held, average)
    inside = []

    def validate() -> None:
        with ema.swapped(0.1):
            inside.append(layer.weight.detach().clone())
            raise KeyError

    with pytest.raises(KeyError):
        validate()
    assert torch.equal(inside[0], average)
    assert torch.equal(layer.weight, held)
    with pytest.raises(InputError, match="not tracked"), ema.swapped(0.2):
        pass


def test_state_and_constants() -> None:
    layer = module()
    ema = PowerEMA(dict(layer.named_parameters()), TRACKED)
    assert set(ema.constants) == {"bias"}
    ema.update(1)
    assert torch.equal(ema.tensors(0.05)["weight"], layer.weight)
    other = PowerEMA(dict(module().named_parameters()), TRACKED)
    with torch.no_grad():
        layer.weight += 1
    ema.update(2)
    other.load_state_dict({width: dict(values) for width, values in ema.state_dict().items()})
    assert torch.equal(other.tensors(0.05)["weight"], ema.tensors(0.05)["weight"])
    with pytest.raises(WeightsError, match=r"lack weight at the relative width 0\.05"):
        other.load_state_dict({"0.1": ema.state_dict()["0.1"]})
    for widths in ((), (0.05, 0.05), (0.4,)):
        with pytest.raises(InputError):
            PowerEMA(dict(layer.named_parameters()), widths)


def test_half_precision_parameters_are_averaged_in_float32() -> None:
    weight = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    ema = PowerEMA({"weight": weight}, (0.25,))
    for step in range(1, 200):
        with torch.no_grad():
            weight.fill_(1 + (step % 2) / 64)
        ema.update(step)
    assert ema.tensors(0.25)["weight"].dtype == torch.float32
    assert ema.tensors(0.25)["weight"][0].item() == pytest.approx(1 + 1 / 128, abs=1e-3)


def test_snapshots_are_files_that_say_what_they_are(tmp_path: Path) -> None:
    layer = module()
    ema = PowerEMA(dict(layer.named_parameters()), TRACKED)
    ema.update(1)
    write_snapshots(tmp_path, 1, ema, ONE, {"dataset": "abc"})
    with torch.no_grad():
        layer.weight += 1
    ema.update(2)
    paths = write_snapshots(tmp_path, 2, ema, ONE, {"dataset": "abc"}, torch.float16)
    assert [path.name for path in paths] == ["step-00000002-0.05.safetensors", "step-00000002-0.1.safetensors"]
    found = find_snapshots(tmp_path)
    assert [(s.step, s.sigma_rel, s.dtype) for s in found] == [
        (1, 0.05, torch.float32),
        (1, 0.1, torch.float32),
        (2, 0.05, torch.float16),
        (2, 0.1, torch.float16),
    ]
    assert found[0].constants == {"bias"}
    assert found[0].about == {"dataset": "abc"}


def test_a_sum_leaves_constants_and_single_sources_as_they_are() -> None:
    a = {"w": torch.tensor([1.0, 2.0], dtype=torch.float16), "c": torch.tensor([7.0])}
    b = {"w": torch.tensor([3.0, 5.0], dtype=torch.float16), "c": torch.tensor([8.0])}
    made = dict(summed([a, b], [0.25, 0.75], frozenset({"c"})))
    assert made["w"].tolist() == [2.5, 4.25]
    assert made["w"].dtype == torch.float32
    assert made["c"].tolist() == [8]
    assert dict(summed([a, b], [1.0, 0.0], frozenset({"c"})))["w"].tolist() == [1, 2]
