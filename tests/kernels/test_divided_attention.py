"""Divided attention against Synchformer's own module and, in Triton, against the reference in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmaudio_core.errors import InputError
from mmaudio_core.features.synchformer_blocks import DividedAttention
from mmaudio_core.kernels import divided_attention as reference

from .interpreter import expect_close, random
from .test_quick_gelu import DOT_DTYPES

kernel = pytest.importorskip("mmaudio_core.kernels.triton.divided_attention")
both = pytest.mark.parametrize("module", [reference, kernel], ids=["reference", "triton"])


def expect_attended(actual: Tensor, qkv: Tensor, heads: int, frames: int, over_time: bool) -> None:
    """In half precision the weights are rounded too, each by half a step, before they are multiplied with the values."""
    expected = reference.divided_attention(qkv.double(), heads, frames, over_time)
    assert actual.dtype == qkv.dtype
    assert actual.is_contiguous()
    if qkv.dtype == torch.float32:
        expect_close(actual, expected)
    else:
        largest = qkv[..., 2 * qkv.shape[2] // 3 :].abs().max().item()
        assert (actual.double() - expected).abs().max().item() <= torch.finfo(qkv.dtype).eps * largest


@pytest.mark.parametrize("over_time", [True, False])
def test_reference(over_time: bool) -> None:
    module = DividedAttention(24, 3).to(torch.float64)
    module.proj = torch.nn.Identity()  # type: ignore[assignment]
    x = random(2, 1 + 4 * 5, 24, dtype=torch.float64).cpu()
    expected = module(x, 4, over_time)
    torch.testing.assert_close(reference.divided_attention(module.qkv(x), 3, 4, over_time), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("over_time", [True, False])
def test_who_attends_to_whom(over_time: bool) -> None:
    """A value that is one at a single token reaches the class token, and otherwise that token's group."""
    frames, patches, spot = 3, 4, 1 + 1 * 4 + 2  # frame 1, patch 2
    qkv = torch.zeros(1, 1 + frames * patches, 3 * 64, dtype=torch.float64)
    qkv[0, spot, 128:] = 1
    reached = reference.divided_attention(qkv, 1, frames, over_time)[0, :, 0]
    grid = torch.zeros(frames, patches, dtype=torch.float64)
    if over_time:
        grid[:, 2] = 1 / (frames + 1)
    else:
        grid[1] = 1 / (patches + 1)
    torch.testing.assert_close(reached, torch.cat((torch.tensor([1 / 13], dtype=torch.float64), grid.flatten())))


@pytest.mark.parametrize("dtype", DOT_DTYPES)
@pytest.mark.parametrize("over_time", [True, False])
@pytest.mark.parametrize(
    ("batch", "heads", "frames", "patches"),
    [
        (2, 2, 8, 13),  # several groups in a tile, and a last tile that is not full
        (1, 1, 3, 70),  # groups that are no divisor of a tile
        (1, 1, 1, 1),
        (1, 3, 5, 1),
        (1, 1, 1, 150),  # several tiles to a group
    ],
)
def test_parity(batch: int, heads: int, frames: int, patches: int, over_time: bool, dtype: torch.dtype) -> None:
    qkv = random(batch, 1 + frames * patches, 3 * heads * 64, dtype=dtype)
    expect_attended(kernel.divided_attention(qkv, heads, frames, over_time), qkv, heads, frames, over_time)


def test_many_parts_of_the_class_token() -> None:
    qkv = random(1, 1 + 8 * 140, 3 * 64)
    expect_attended(kernel.divided_attention(qkv, 1, 8, True), qkv, 1, 8, True)


@both
@pytest.mark.parametrize("over_time", [True, False])
def test_large_scores(module: object, over_time: bool) -> None:
    """Scores beyond what exp can hold, of either sign."""
    qkv = random(1, 1 + 4 * 40, 3 * 64, dtype=torch.float16, scale=20)
    qkv[:, ::3, :64] *= -1
    out = module.divided_attention(qkv, 1, 4, over_time)
    assert (out.double() - reference.divided_attention(qkv.double(), 1, 4, over_time)).abs().max() < 0.1  # of up to 80
    assert out.isfinite().all()


@pytest.mark.parametrize("over_time", [True, False])
def test_any_strides(over_time: bool) -> None:
    qkv = random(3 * 128, 2, 1 + 4 * 6).permute(1, 2, 0)
    expect_attended(kernel.divided_attention(qkv, 2, 4, over_time), qkv, 2, 4, over_time)
    part = random(4, 60, 400, seed=1)[::2, 3 : 4 + 4 * 6, 5 : 5 + 3 * 128]
    expect_attended(kernel.divided_attention(part, 2, 4, over_time), part, 2, 4, over_time)


@both
def test_bad_input(module: object) -> None:
    qkv = random(1, 1 + 2 * 3, 3 * 64)
    assert module.divided_attention(qkv[:0], 1, 2, True).shape == (0, 7, 64)
    for given in ((qkv[0], 1, 2), (qkv[..., :-1], 1, 2), (qkv, 0, 2), (qkv, 5, 2), (qkv.long(), 1, 2), (qkv[..., :0], 1, 2)):
        with pytest.raises(InputError, match="head width"):
            module.divided_attention(*given, True)
    for tokens, frames in ((7, 4), (7, 0), (1, 1), (7, 12)):
        with pytest.raises(InputError, match="one class token"):
            module.divided_attention(qkv[:, :tokens], 1, frames, True)


def test_what_triton_refuses() -> None:
    qkv = random(1, 7, 3 * 64)
    with pytest.raises(InputError, match="2 heads of 32 channels"):
        kernel.divided_attention(qkv, 2, 2, True)
    with pytest.raises(InputError, match="qkv needs a gradient"):
        kernel.divided_attention(qkv.clone().requires_grad_(), 1, 2, True)
    with pytest.raises(InputError, match="float64"):
        kernel.divided_attention(qkv.double(), 1, 2, True)
