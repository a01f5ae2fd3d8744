"""QuickGELU alone and in a linear layer's epilogue, against its definition in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmaudio_core.errors import InputError
from mmaudio_core.kernels import quick_gelu as reference

from .interpreter import DEVICE, DTYPES, expect_close, random

kernel = pytest.importorskip("mmaudio_core.kernels.triton.quick_gelu")
both = pytest.mark.parametrize("module", [reference, kernel], ids=["reference", "triton"])

needs_dot = pytest.mark.skipif(DEVICE == "cpu", reason="Triton's interpreter multiplies the bits of bfloat16 matrices")
DOT_DTYPES = [pytest.param(d, marks=needs_dot) if d == torch.bfloat16 else d for d in DTYPES]


def defined(y: Tensor) -> Tensor:
    return y / (1 + torch.exp(-1.702 * y))


def test_reference() -> None:
    x, weight, bias = (random(*shape, dtype=torch.float64) for shape in ((3, 7, 10), (6, 10), (6,)))
    y = F.linear(x, weight, bias)
    torch.testing.assert_close(reference.linear_quick_gelu(x, weight, bias), defined(y), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(reference.linear_quick_gelu(x, weight), defined(x @ weight.T), rtol=1e-13, atol=1e-13)
    assert reference.quick_gelu_(y) is y
    torch.testing.assert_close(y, reference.linear_quick_gelu(x, weight, bias))
    x.requires_grad_()
    assert torch.autograd.gradcheck(reference.linear_quick_gelu, (x[:1, :2], weight, bias))


@pytest.mark.parametrize("dtype", DOT_DTYPES)
@pytest.mark.parametrize(
    ("shape", "outputs", "bias"),
    [
        ((1, 64), 32, True),
        ((345, 100), 70, True),
        ((2, 77, 64), 33, False),
        ((1, 1, 1), 1, True),
        ((600, 10), 8, True),
        ((7,), 9, True),
    ],
)
def test_parity(shape: tuple[int, ...], outputs: int, bias: bool, dtype: torch.dtype) -> None:
    x, weight = random(*shape, dtype=dtype), random(outputs, shape[-1], dtype=dtype, seed=1, scale=0.3)
    b = random(outputs, dtype=dtype, seed=2) if bias else None
    y = kernel.linear_quick_gelu(x, weight, b)
    assert y.dtype == dtype
    assert y.shape == (*shape[:-1], outputs)
    assert y.is_contiguous()
    expect_close(y, reference.linear_quick_gelu(x.double(), weight.double(), None if b is None else b.double()))


def test_any_strides() -> None:
    x, weight, bias = random(100, 70).T, random(70 + 30, 50, seed=1).T[:, :100], random(200, seed=2)[:100:2]
    assert not any(t.is_contiguous() for t in (x, weight, bias))
    expect_close(
        kernel.linear_quick_gelu(x, weight, bias), reference.linear_quick_gelu(x.double(), weight.double(), bias.double())
    )


def test_nothing_in_nothing_out() -> None:
    weight = random(5, 4)
    assert kernel.linear_quick_gelu(random(0, 3, 4), weight).shape == (0, 3, 5)
    assert kernel.linear_quick_gelu(random(2, 3, 4), random(0, 4)).shape == (2, 3, 0)
    assert torch.equal(
        kernel.linear_quick_gelu(random(2, 3, 0), random(5, 0), torch.zeros(5, device=DEVICE)),
        torch.zeros(2, 3, 5, device=DEVICE),
    )
    assert kernel.quick_gelu_(random(3, 0)).shape == (3, 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1,), (2, 345, 7), (3000,), ()])
def test_in_place(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    y = random(*shape, dtype=dtype, scale=4)
    expected = defined(y.double())
    assert kernel.quick_gelu_(y) is y
    expect_close(y, expected)


@both
def test_in_place_on_a_part_of_memory(module: object) -> None:
    """Gaps stay as they are, and the order of the axes does not matter."""
    whole = random(6, 50, 8)
    before = whole.clone()
    for part in (lambda t: t[1:3, ::2, 2:5], lambda t: t[4].T):
        expected = defined(part(whole).double())
        module.quick_gelu_(part(whole))
        expect_close(part(whole), expected)
        part(before).copy_(part(whole))
        assert torch.equal(whole, before)


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")
@both
def test_extremes(module: object) -> None:
    y = module.quick_gelu_(torch.tensor([-6e4, -100.0, 0.0, 100.0, 6e4], device=DEVICE).half())
    assert y.tolist() == [0, 0, 0, 100, 6e4]


@both
def test_bad_input(module: object) -> None:
    x, weight, bias = random(3, 4), random(5, 4), random(5)
    for given in (
        (x, random(5, 3), bias),
        (x, weight, random(4)),
        (x, random(5, 4, 1), bias),
        (x.half(), weight, bias),
        (x, weight, bias.half()),
        (x.long(), weight.long(), None),
    ):
        with pytest.raises(InputError, match="linear_quick_gelu was given"):
            module.linear_quick_gelu(*given)
    with pytest.raises(InputError, match="floating-point"):
        module.quick_gelu_(torch.ones(3, dtype=torch.int64, device=DEVICE))
    with pytest.raises(InputError, match="gradient"):
        module.quick_gelu_(random(3).requires_grad_())


def test_what_triton_refuses() -> None:
    x, weight, bias = random(3, 4), random(5, 4), random(5)
    for name in ("x", "weight", "bias"):
        tensors = {"x": x, "weight": weight, "bias": bias}
        tensors[name] = tensors[name].clone().requires_grad_()
        with pytest.raises(InputError, match=f"{name} needs a gradient"):
            kernel.linear_quick_gelu(**tensors)
        with torch.no_grad():
            kernel.linear_quick_gelu(**tensors)
    with pytest.raises(InputError, match="float64"):
        kernel.linear_quick_gelu(x.double(), weight.double())
    with pytest.raises(InputError, match="float64"):
        kernel.quick_gelu_(x.double())
