"""The polyphase snake against the vocoder's own module and, in Triton, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mmaudio_core.errors import InputError
from mmaudio_core.kernels import snake as reference
from mmaudio_core.vocoder.activations import BETA_FLOOR, AntiAliasedSnake
from mmaudio_core.vocoder.filters import kaiser_sinc

from .interpreter import DEVICE, DTYPES, expect_close, random

kernel = pytest.importorskip("mmaudio_core.kernels.triton.snake")
both = pytest.mark.parametrize("module", [reference, kernel], ids=["reference", "triton"])
layouts = pytest.mark.parametrize("time_major", [False, True], ids=["channel-first", "time-major"])


def parameters(channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """alpha, inverse_beta, and taps that are no mirror image, so that their order counts."""
    return (
        random(channels, seed=1).exp(),
        random(channels, seed=2).exp(),
        kaiser_sinc().to(DEVICE) + random(12, seed=3, scale=0.05),
    )


def laid_out(x: Tensor, time_major: bool) -> Tensor:
    return x.transpose(1, 2).contiguous().transpose(1, 2) if time_major else x


class WideSnake(nn.Module):
    """What the vocoder's SnakeBeta computes, in float64."""

    def __init__(self, alpha: Tensor, beta: Tensor) -> None:
        super().__init__()
        self.alpha, self.beta = alpha.exp()[:, None], beta.exp()[:, None]

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(x * self.alpha).square() / (self.beta + BETA_FLOOR)


@pytest.mark.parametrize("samples", [1, 2, 3, 4, 7, 100])
@layouts
def test_reference(samples: int, time_major: bool) -> None:
    alpha, beta = (random(5, dtype=torch.float64, seed=seed) for seed in (1, 2))
    module = AntiAliasedSnake(5).to(DEVICE)
    module.act = WideSnake(alpha, beta)  # type: ignore[assignment]
    x = laid_out(random(2, 5, samples, dtype=torch.float64, scale=2), time_major)
    y = reference.anti_aliased_snake(x, alpha.exp(), 1 / (beta.exp() + BETA_FLOOR), module.filter)
    assert y.stride() == x.stride()
    torch.testing.assert_close(y, module(x), rtol=1e-12, atol=1e-12)


def test_reference_in_half_precision_is_rounded_once() -> None:
    x = random(2, 4, 50, dtype=torch.bfloat16)
    expected = reference.anti_aliased_snake(x.double(), *(t.double() for t in parameters(4)))
    expect_close(reference.anti_aliased_snake(x, *parameters(4)), expected, truncated=False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "channels", "samples"), [(1, 1, 1), (1, 3, 2), (2, 2, 3), (2, 7, 77)])
@layouts
def test_parity(batch: int, channels: int, samples: int, time_major: bool, dtype: torch.dtype) -> None:
    x = laid_out(random(batch, channels, samples, dtype=dtype, scale=2), time_major)
    y = kernel.anti_aliased_snake(x, *parameters(channels))
    assert y.dtype == dtype
    assert y.stride() == x.stride()
    expect_close(y, reference.anti_aliased_snake(x.double(), *(t.double() for t in parameters(channels))))


@pytest.mark.parametrize("piece", kernel.PIECES)
@layouts
def test_every_length_of_a_piece(piece: int, time_major: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The length is chosen by the size; here by hand, with the end just before, on and after a piece's."""
    monkeypatch.setattr(kernel, "PIECES", (piece,))
    for samples in {16: (250, 345), 32: (31, 65), 64: (128,)}[piece]:
        x = laid_out(random(1, 2, samples), time_major)
        expected = reference.anti_aliased_snake(x.double(), *(t.double() for t in parameters(2)))
        expect_close(kernel.anti_aliased_snake(x, *parameters(2)), expected)


@both
def test_any_strides(module: object) -> None:
    whole = random(4, 50, 9, 3)
    for x in (whole[:2, :, 1:6, 0].transpose(1, 2), whole[1:3, 4:9, ::2, 1], random(1, 5, 1).expand(2, 5, 40)):
        alpha, inverse_beta, taps = parameters(10)
        y = module.anti_aliased_snake(x, alpha[::2], inverse_beta[::2], taps)
        expected = reference.anti_aliased_snake(x.double(), alpha[::2].double(), inverse_beta[::2].double(), taps.double())
        expect_close(y, expected)
        assert y.stride() == torch.empty_like(x).stride()


@both
def test_samples_and_channels_never_mix(module: object) -> None:
    x = random(3, 3, 70)
    expected = module.anti_aliased_snake(x, *parameters(3))
    x[1, 1] = float("nan")
    y = module.anti_aliased_snake(x, *parameters(3))
    assert y[1, 1].isnan().all()
    y[1, 1] = expected[1, 1]
    assert torch.equal(y, expected)


@both
def test_bad_input(module: object) -> None:
    x, alpha, inverse_beta, taps = random(2, 4, 30), *parameters(4)
    assert module.anti_aliased_snake(x[:0], alpha, inverse_beta, taps).shape == (0, 4, 30)
    for given in (
        (x[0], alpha, inverse_beta, taps),
        (x[..., :0], alpha, inverse_beta, taps),
        (x, alpha[:3], inverse_beta, taps),
        (x, alpha, inverse_beta[:, None], taps),
        (x, alpha, inverse_beta, taps[:11]),
        (x.long(), alpha, inverse_beta, taps),
    ):
        with pytest.raises(InputError, match="anti_aliased_snake was given"):
            module.anti_aliased_snake(*given)


def test_what_triton_refuses() -> None:
    x, alpha, inverse_beta, taps = random(2, 4, 30), *parameters(4)
    with pytest.raises(InputError, match="alpha needs a gradient"):
        kernel.anti_aliased_snake(x, alpha.clone().requires_grad_(), inverse_beta, taps)
    with pytest.raises(InputError, match="float64"):
        kernel.anti_aliased_snake(x.double(), alpha, inverse_beta, taps)
