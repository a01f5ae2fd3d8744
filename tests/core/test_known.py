"""Sampling with known sound: masks in seconds, what is kept, how far is walked."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import mmaudio_core
from mmaudio_core.errors import InputError
from mmaudio_core.pipeline.model import MMAudio
from mmaudio_core.pipeline.sample import Known, SampleSettings, sample_latents
from mmaudio_core.sampling.known import keeping, seconds_mask
from mmaudio_core.sampling.noise import draw_noise
from mmaudio_core.sampling.solvers import dormand_prince, euler, midpoint
from mmaudio_core.types import Features

FAST = SampleSettings(steps=3)
RATE_HZ = 31.25
NAN, INF = float("nan"), float("inf")
TOKENS = 32
"""Of one second at 16 kHz."""


@pytest.fixture(scope="module")
def model() -> MMAudio:
    return mmaudio_core.load("tiny", device="cpu", dtype="float32")


def sound(batch: int = 1) -> Tensor:
    return torch.randn(batch, TOKENS, 20, generator=torch.Generator().manual_seed(4))


def sampled(model: MMAudio, known: Known | None, seeds: tuple[int, ...] = (0,), settings: SampleSettings = FAST) -> Tensor:
    return sample_latents(model.parts.flow(), Features(), 1.0, list(seeds), settings=settings, known=known).tokens


def ones(mask: Tensor) -> list[int]:
    return (mask == 1).nonzero().flatten().tolist()


def test_a_token_of_which_a_part_lies_in_the_span_is_made_anew() -> None:
    assert ones(seconds_mask(100, RATE_HZ, 0.32, 0.64)) == list(range(10, 20))
    assert ones(seconds_mask(100, RATE_HZ, 0.31, 0.65)) == list(range(9, 21))
    assert ones(seconds_mask(100, RATE_HZ, 0.0, 99.0)) == list(range(100))
    assert ones(seconds_mask(100, RATE_HZ, 3.1999, 3.2)) == [99]
    assert seconds_mask(100, RATE_HZ, 0.0, 1.0).dtype == torch.float32


@pytest.mark.parametrize("rate_hz", [31.25, 44_100 / 1024])
def test_borders_on_a_token_are_exact(rate_hz: float) -> None:
    """A border that is a token's beginning, computed in seconds, must not spill over by rounding."""
    for first in range(1, 300):
        assert ones(seconds_mask(400, rate_hz, first / rate_hz, (first + 7) / rate_hz)) == list(range(first, first + 7))


def test_a_feather_falls_outside_of_the_span() -> None:
    mask = seconds_mask(100, 10.0, 4.0, 6.0, 1.0)
    assert (mask[39:61] > 0.999).all()
    assert torch.allclose(mask[30:40], torch.arange(1, 11) / 10.0, atol=1e-6)
    assert torch.allclose(mask[60:70], torch.arange(10, 0, -1) / 10.0, atol=1e-6)
    assert not mask[:30].any()
    assert not mask[70:].any()


@pytest.mark.parametrize(
    "span",
    [(2.0, 1.0), (1.0, 1.0), (-1.0, 1.0), (3.2, 4.0), (0.0, NAN), (0.0, INF), (0.0, 1.0, -1.0), (0.0, 1.0, NAN)],
    ids=str,
)
def test_spans_that_are_none(span: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match=r"give one within it|0 or more is needed"):
        seconds_mask(100, RATE_HZ, *span)


def test_keeping_stays_on_the_line_to_what_is_known() -> None:
    known, noise = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
    regenerate = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.5]).reshape(1, 5, 1)
    seen = []

    def velocity(x: Tensor, t: Tensor) -> Tensor:
        seen.append((x, float(t)))
        return torch.full_like(x, 7.0)

    for solve in (lambda v: euler(v, noise, 4), lambda v: dormand_prince(v, noise, rtol=1e-4)):
        seen.clear()
        out = solve(keeping(velocity, known, noise, regenerate))
        assert torch.allclose(out[:, :2], known[:, :2], atol=1e-5)
        assert torch.allclose(out[:, 2:4], noise[:, 2:4] + 7.0, atol=1e-4)
        for x, t in seen:  # the network sees what is kept as noisy as the rest
            assert torch.allclose(x[:, :2], ((1 - t) * noise + t * known)[:, :2], atol=1e-5)


@pytest.mark.parametrize("solver", ["euler", "midpoint", "dopri5"])
def test_solvers_begin_where_they_are_told(solver: str) -> None:
    """dx/dt = 2 t x: x(1) = exp(1 - start^2) x(start)."""
    x, start = torch.full((1, 1, 1), 2.0, dtype=torch.float64), 0.6
    times: list[float] = []

    def growth(x: Tensor, t: Tensor) -> Tensor:
        times.append(float(t))
        return 2 * float(t) * x

    solve = {
        "euler": lambda: euler(growth, x, 2000, start=start),
        "midpoint": lambda: midpoint(growth, x, 400, start=start),
        "dopri5": lambda: dormand_prince(growth, x, start=start),
    }
    out = solve[solver]()
    assert float(out) == pytest.approx(2 * torch.tensor(1 - start**2).exp().item(), rel=1e-3 if solver == "euler" else 1e-6)
    assert min(times) == pytest.approx(start)
    assert max(times) <= 1


def test_what_is_kept_and_what_is_new(model: MMAudio) -> None:
    mask = seconds_mask(TOKENS, RATE_HZ, 0.32, 0.64)[None, :, None]
    out = sampled(model, Known(sound(), mask))
    kept = mask[0, :, 0] == 0
    assert (out - sound())[:, kept].abs().max() < 1e-5
    assert (out - sound())[:, ~kept].abs().max() > 0.1
    free = sampled(model, None)
    assert not torch.allclose(out[:, ~kept], free[:, ~kept], atol=1e-3)  # it hears what is kept


def test_a_mask_of_ones_is_sampling_as_usual(model: MMAudio) -> None:
    usual = sampled(model, None)
    assert torch.allclose(sampled(model, Known(sound(), torch.ones(1, TOKENS, 1))), usual, atol=1e-5)
    assert torch.allclose(sampled(model, Known(sound())), usual, atol=1e-5)


def test_a_mask_of_zeros_changes_nothing(model: MMAudio) -> None:
    assert torch.allclose(sampled(model, Known(sound(), torch.zeros(1, TOKENS, 1))), sound(), atol=1e-5)


def test_denoise_is_the_part_of_the_way(model: MMAudio) -> None:
    far = [(sampled(model, Known(sound(), denoise=part)) - sound()).norm().item() for part in (0.05, 0.3, 1.0)]
    assert far[0] < far[1] < far[2]
    assert far[0] < 0.2 * far[2]


def test_denoise_begins_on_the_line(model: MMAudio) -> None:
    """One step over a whole half of the way, by hand."""
    net = model.parts.flow()
    noise = draw_noise([3], TOKENS, 20)
    lengths = net.lengths(1.0)
    with torch.no_grad():
        conditions = net.conditions(Features(), lengths, 1)
        x = 0.5 * noise + 0.5 * net.normalize(sound())
        wanted = net.unnormalize(x + 0.5 * net.velocity(x, torch.tensor(0.5), conditions))
    one_step = SampleSettings(steps=1, cfg_strength=1.0)
    assert torch.allclose(sampled(model, Known(sound(), denoise=0.5), (3,), one_step), wanted, atol=1e-5)


def test_one_sound_for_all_or_one_each(model: MMAudio) -> None:
    mask = torch.cat([seconds_mask(TOKENS, RATE_HZ, a, a + 0.3)[None, :, None] for a in (0.0, 0.3, 0.6)])
    seeds, small = (5, 6, 7), SampleSettings(steps=2, batch_size=2)
    each = sampled(model, Known(sound(3), mask), seeds, small)
    for index, seed in enumerate(seeds):
        alone = sampled(model, Known(sound(3)[index : index + 1], mask[index : index + 1]), (seed,), small)
        assert torch.allclose(each[index : index + 1], alone, atol=1e-4)
    shared = sampled(model, Known(sound(), mask[:1], 0.5), seeds, small)
    alone = sampled(model, Known(sound(), mask[:1], 0.5), seeds[2:], small)
    assert torch.allclose(shared[2:], alone, atol=1e-4)


@pytest.mark.parametrize(
    ("known", "words"),
    [
        (Known(torch.zeros(1, 31, 20)), r"latents to begin from have shape \(1, 31, 20\)"),
        (Known(torch.zeros(1, 32, 40)), r"need \(1 or 3, 32, 20\)"),
        (Known(torch.zeros(2, 32, 20)), r"need \(1 or 3, 32, 20\)"),
        (Known(torch.zeros(1, 32, 20), torch.zeros(1, 32)), r"mask to begin from have shape \(1, 32\)"),
        (Known(torch.zeros(1, 32, 20), torch.zeros(1, 32, 20)), r"need \(1 or 3, 32, 1\)"),
    ],
    ids=["length", "channels", "batch", "dimensions", "mask"],
)
def test_shapes_are_checked(model: MMAudio, known: Known, words: str) -> None:
    with pytest.raises(InputError, match=words):
        sampled(model, known, (0, 1, 2))


@pytest.mark.parametrize("denoise", [0.0, -0.1, 1.1, float("nan")])
def test_denoise_is_checked(denoise: float) -> None:
    with pytest.raises(InputError, match="above 0 and at most 1"):
        Known(sound(), denoise=denoise)
