"""Pixel norm with its SiLU against the autoencoder's own layers and, in Triton, against the reference in float64."""

from __future__ import annotations

import pytest
import torch

from mmaudio_core.autoencoder import mp_layers
from mmaudio_core.errors import InputError
from mmaudio_core.kernels import pixel_norm as reference

from .interpreter import DTYPES, expect_close, random

kernel = pytest.importorskip("mmaudio_core.kernels.triton.pixel_norm")
both = pytest.mark.parametrize("module", [reference, kernel], ids=["reference", "triton"])


def test_reference() -> None:
    assert (reference.EPS, reference.SILU_GAIN) == (mp_layers.EPS, mp_layers.SILU_GAIN)
    x = random(2, 30, 7)
    normed, active = reference.pixel_norm_silu(x)
    torch.testing.assert_close(normed, mp_layers.pixel_norm(x))
    torch.testing.assert_close(active, mp_layers.mp_silu(mp_layers.pixel_norm(x)))
    wide = random(2, 30, 7, dtype=torch.float64)
    normed, active = reference.pixel_norm_silu(wide)
    torch.testing.assert_close(normed, wide / (1e-4 + wide.square().mean(1, keepdim=True).sqrt()), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(active, normed / (1 + torch.exp(-normed)) / 0.596, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 7), (3, 128, 1), (1, 1100, 19)])
@pytest.mark.parametrize("time_major", [False, True], ids=["channel-first", "time-major"])
def test_parity(shape: tuple[int, int, int], time_major: bool, dtype: torch.dtype) -> None:
    x = random(*shape, dtype=dtype, scale=3)
    if time_major:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    for made, expected in zip(kernel.pixel_norm_silu(x), reference.pixel_norm_silu(x.double()), strict=True):
        assert made.dtype == dtype
        assert made.stride() == x.stride()
        expect_close(made, expected)


@pytest.mark.parametrize("length", [77, 250, 345])
def test_lengths(length: int) -> None:
    x = random(1, 3, length)
    for made, expected in zip(kernel.pixel_norm_silu(x), reference.pixel_norm_silu(x.double()), strict=True):
        expect_close(made, expected)


@both
def test_any_strides(module: object) -> None:
    whole = random(4, 50, 9, 3)
    for x in (whole[:2, :, 1:6, 0].transpose(1, 2), whole[1:3, 4:9, ::2, 1], random(1, 5, 1).expand(2, 5, 40)):
        for made, expected in zip(module.pixel_norm_silu(x), reference.pixel_norm_silu(x.double()), strict=True):
            expect_close(made, expected)


@both
def test_extremes(module: object) -> None:
    """Silence stays silence, squares may leave float16's range, and samples do not mix."""
    x = random(3, 40, 5, dtype=torch.float16, scale=9000).clamp(-65000, 65000)
    x[0], x[2, :, 1] = 0, float("nan")
    normed, active = module.pixel_norm_silu(x)
    assert not normed[0].any()
    assert not active[0].any()
    assert normed[1].isfinite().all()
    assert (normed[1].float().square().mean(0) - 1).abs().max() < 0.01
    assert normed[2].isnan().all(0).tolist() == [False, True, False, False, False]
    assert normed[2].isnan().any(0).tolist() == [False, True, False, False, False]


@both
def test_bad_input(module: object) -> None:
    x = random(2, 4, 6)
    assert [t.shape for t in module.pixel_norm_silu(x[..., :0])] == [(2, 4, 0)] * 2
    for given in (x[0], x[:, :0], x.long()):
        with pytest.raises(InputError, match="pixel_norm_silu was given"):
            module.pixel_norm_silu(given)


def test_what_triton_refuses() -> None:
    with pytest.raises(InputError, match="x needs a gradient"):
        kernel.pixel_norm_silu(random(2, 4, 6).requires_grad_())
    with pytest.raises(InputError, match="float64"):
        kernel.pixel_norm_silu(random(2, 4, 6).double())
