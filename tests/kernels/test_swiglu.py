"""The gate of SwiGLU against its reference in float64."""

from __future__ import annotations

import pytest
import torch

from mmaudio_core.errors import InputError
from mmaudio_core.kernels import swiglu as reference

from .interpreter import DEVICE, DTYPES, expect_close, random

kernel = pytest.importorskip("mmaudio_core.kernels.triton.swiglu")


@pytest.fixture(autouse=True)
def large_tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes ten milliseconds for a program, whatever its size; the own tile is tested on few rows."""
    if DEVICE == "cpu" and "own_tile" not in request.node.name:
        monkeypatch.setattr(kernel, "ROWS", 128)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 250, 2 * 1280), (1, 345, 2 * 100), (3, 77, 2), (2, 1, 1026), (5, 6, 7, 16), (14,)])
def test_parity(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    packed = random(*shape, dtype=dtype, scale=3.0)
    out = kernel.swiglu(packed)
    assert out.dtype == dtype
    assert out.is_contiguous()
    expect_close(out, reference.swiglu(packed.double()))


def test_own_tile() -> None:
    packed = random(2, 3, 600)
    expect_close(kernel.swiglu(packed), reference.swiglu(packed.double()))


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_far_ends_of_the_sigmoid() -> None:
    """Where exp overflows, the gate is 0 or the identity, not NaN."""
    packed = torch.tensor([[-1e4, -100.0, 100.0, 1e4, 2.0, 2.0, 2.0, 2.0]], device=DEVICE)
    expect_close(kernel.swiglu(packed), reference.swiglu(packed.double()))


@pytest.mark.parametrize("cut", ["time-major", "window", "every second"])
def test_any_strides(cut: str) -> None:
    packed = random(2, 60, 96, dtype=torch.bfloat16)
    packed = {"time-major": packed.transpose(1, 2), "window": packed[:, 5:, 10:80], "every second": packed[..., ::2]}[cut]
    expect_close(kernel.swiglu(packed), reference.swiglu(packed.double()))


def test_nothing_in_nothing_out() -> None:
    assert kernel.swiglu(random(2, 0, 64)).shape == (2, 0, 32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("expanded", [False, True])
def test_gradients(dtype: torch.dtype, expanded: bool) -> None:
    packed = random(2, 77, 200, dtype=dtype, scale=2.0).requires_grad_()
    grad = random(1, 1, 100, dtype=dtype, seed=1).expand(2, 77, 100) if expanded else random(2, 77, 100, dtype=dtype, seed=1)
    kernel.swiglu(packed).backward(grad)
    packed64 = packed.detach().double().requires_grad_()
    reference.swiglu(packed64).backward(grad.double())
    assert packed.grad is not None
    assert packed64.grad is not None
    expect_close(packed.grad, packed64.grad)


def test_bad_input_is_refused() -> None:
    with pytest.raises(InputError, match=r"shape \(2, 7\); its last axis holds two halves"):
        kernel.swiglu(random(2, 7))
    with pytest.raises(InputError, match=r"packed is torch\.float64"):
        kernel.swiglu(random(2, 8).double())
    with pytest.raises(InputError, match=r"packed has shape \(\)"):
        kernel.swiglu(random())
