"""The tests of the kernels can fail: an element left unwritten, or a rounding too many, is seen."""

from __future__ import annotations

import pytest
import torch

from .interpreter import DEVICE, DTYPES, expect_close, random, triton

tl = pytest.importorskip("triton.language")


@triton.jit
def copy(x_pointer, y_pointer, length, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y_pointer + i, tl.load(x_pointer + i, mask=i < length), mask=i < length)


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_unwritten_element_is_seen(dtype: torch.dtype) -> None:
    x = random(1, 77, dtype=dtype)
    for written in (77, 76):
        y = torch.empty_like(x)
        copy[(triton.cdiv(written, 32),)](x, y, written, BLOCK=32)
        if written == 77:
            expect_close(y, x.double())
        else:
            with pytest.raises(AssertionError, match=r"1 / 77"):
                expect_close(y, x.double())


def test_memory_is_poisoned() -> None:
    x = torch.zeros(3, device=DEVICE)
    made = (torch.empty(3), torch.empty_like(x), x.new_empty(3), torch.empty_strided((3,), (1,)))
    assert all(bool(m.isnan().all()) for m in made)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_second_rounding_is_seen(dtype: torch.dtype) -> None:
    """x * y * z rounded after the first product fails where one rounding at the end passes."""
    x, y, z = (random(4096, dtype=dtype, seed=seed) for seed in range(3))
    expected = x.double() * y.double() * z.double()
    expect_close((x.float() * y.float() * z.float()).to(dtype), expected, truncated=False)
    with pytest.raises(AssertionError):
        expect_close(x * y * z, expected, truncated=False)
