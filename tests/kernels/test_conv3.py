"""The convolution of three taps against torch's in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from mmaudio_core.errors import InputError
from mmaudio_core.kernels import conv3 as reference

from .interpreter import expect_close, random
from .test_quick_gelu import DOT_DTYPES

kernel = pytest.importorskip("mmaudio_core.kernels.triton.conv3")
both = pytest.mark.parametrize("module", [reference, kernel], ids=["reference", "triton"])


@pytest.mark.parametrize("length", [1, 2, 77])
def test_reference(length: int) -> None:
    x, weight, bias = (random(*shape, dtype=torch.float64) for shape in ((2, length, 5), (6, 5, 3), (6,)))
    for b in (bias, None):
        expected = F.conv1d(x.transpose(1, 2), weight, b, padding=1).transpose(1, 2)
        torch.testing.assert_close(reference.conv3(x, reference.pack_taps(weight), b), expected, rtol=1e-12, atol=1e-12)
    x.requires_grad_()
    assert torch.autograd.gradcheck(reference.conv3, (x[:, :9], reference.pack_taps(weight), bias))


@pytest.mark.parametrize("dtype", DOT_DTYPES)
@pytest.mark.parametrize(
    ("batch", "length", "channels", "outputs", "bias"),
    [(2, 250, 64, 20, True), (1, 345, 20, 33, False), (3, 77, 100, 32, True), (5, 1, 128, 7, True), (1, 2, 1, 1, False)],
)
def test_parity(batch: int, length: int, channels: int, outputs: int, bias: bool, dtype: torch.dtype) -> None:
    x, weight = random(batch, length, channels, dtype=dtype), random(outputs, 3 * channels, dtype=dtype, seed=1)
    b = random(outputs, dtype=dtype, seed=2) if bias else None
    y = kernel.conv3(x, weight, b)
    assert y.dtype == dtype
    assert y.is_contiguous()
    expect_close(y, reference.conv3(x.double(), weight.double(), None if b is None else b.double()))


@both
def test_samples_never_mix(module: object) -> None:
    """Not even through a zero: a sample of NaN leaves its neighbours as they are."""
    x, weight = random(3, 70, 16), random(9, 48, seed=1)
    expected = module.conv3(x, weight)
    x[1] = float("nan")
    y = module.conv3(x, weight)
    assert torch.equal(y[::2], expected[::2])
    assert y[1].isnan().all()


def test_any_strides() -> None:
    x = random(2, 40, 60).transpose(1, 2)[:, ::2]
    weight = random(120, 50, seed=1).T
    bias = random(100, seed=2)[::2]
    expect_close(kernel.conv3(x, weight, bias), reference.conv3(x.double(), weight.double(), bias.double()))
    expanded = random(1, 1, 40).expand(2, 30, 40)
    expect_close(kernel.conv3(expanded, weight), reference.conv3(expanded.double(), weight.double()))


@both
def test_nothing_in_nothing_out(module: object) -> None:
    assert module.conv3(random(0, 7, 4), random(5, 12)).shape == (0, 7, 5)
    assert module.conv3(random(2, 0, 4), random(5, 12)).shape == (2, 0, 5)


@both
def test_bad_input(module: object) -> None:
    x, weight, bias = random(2, 7, 4), random(5, 12), random(5)
    for given in (
        (x[0], weight, bias),
        (x, random(5, 4), bias),
        (x, random(5, 4, 3), bias),
        (x, weight, random(12)),
        (x.half(), weight, bias),
        (x, weight, bias.half()),
        (x.long(), weight.long(), None),
    ):
        with pytest.raises(InputError, match="conv3 was given"):
            module.conv3(*given)


def test_what_else_is_refused() -> None:
    x, weight = random(2, 7, 4), random(5, 12)
    with pytest.raises(InputError, match=r"channels in, 3"):
        reference.pack_taps(random(5, 4, 5))
    with pytest.raises(InputError, match="weight needs a gradient"):
        kernel.conv3(x, weight.clone().requires_grad_())
    with pytest.raises(InputError, match="float64"):
        kernel.conv3(x.double(), weight.double())
