"""The references of the flow network's kernels against definitions written in another way; Triton is not needed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmaudio_core.errors import InputError
from mmaudio_core.kernels.adaln import adaln
from mmaudio_core.kernels.gate import gated_add, gated_add_adaln
from mmaudio_core.kernels.heads import split_heads, split_heads_into
from mmaudio_core.kernels.swiglu import swiglu
from mmaudio_core.layers.rope import rope_table

HALF = [torch.float16, torch.bfloat16]


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def test_adaln_of_one_token() -> None:
    x, table = random(2, 5, 48), random(7, 96, seed=1)
    shift, scale = table.chunk(2, dim=-1)
    rows = torch.tensor([[0, 6, 2, 2, 1], [5, 5, 0, 3, 6]], dtype=torch.int32)
    found = adaln(x, shift, scale, rows)
    for sample, token in ((0, 1), (1, 4)):
        one = x[sample, token]
        normed = (one - one.mean()) / (one.var(unbiased=False) + 1e-5).sqrt()
        torch.testing.assert_close(found[sample, token], normed * (1 + scale[6]) + shift[6])
    torch.testing.assert_close(adaln(x, shift[:2], scale[:2])[1], adaln(x[1:], shift[1:2], scale[1:2])[0])


def test_gated_sum() -> None:
    x, y, gate = random(2, 3, 8), random(2, 3, 8, seed=1), random(4, 8, seed=2)
    rows = torch.tensor([[3, 0, 1], [2, 2, 3]], dtype=torch.int32)
    total = gated_add(x, y, gate, rows)
    torch.testing.assert_close(total[1, 2], x[1, 2] + gate[3] * y[1, 2])
    torch.testing.assert_close(gated_add(x, y, gate[:2])[1, 2], x[1, 2] + gate[1] * y[1, 2])
    both = gated_add_adaln(x, y, gate, gate + 1, gate + 2, rows)
    torch.testing.assert_close(both, (total, adaln(total, gate + 1, gate + 2, rows)))


def test_swiglu() -> None:
    packed = random(2, 3, 10)
    a, b = packed[..., :5], packed[..., 5:]
    torch.testing.assert_close(swiglu(packed), a * b / (1 + (-a).exp()))


@pytest.mark.parametrize("interleaved", [True, False])
def test_heads_by_index(interleaved: bool) -> None:
    heads, length = 3, 4
    packed, q_weight, k_weight = random(2, length, 3 * heads * 64), random(64, seed=1), random(64, seed=2)
    rope = rope_table(length, 64)
    parts = split_heads(packed, heads, q_weight, k_weight, rope, interleaved)
    sample, head, token = 1, 2, 3
    for part, weight in enumerate((q_weight, k_weight, None)):
        places = [(head * 64 + c) * 3 + part if interleaved else part * heads * 64 + head * 64 + c for c in range(64)]
        expected = packed[sample, token, places]
        if weight is not None:
            expected = expected / (expected.square().mean() + torch.finfo(torch.float32).eps).sqrt() * weight
            turns = torch.view_as_complex(rope[token].double())
            expected = torch.view_as_real(torch.view_as_complex(expected.view(32, 2)) * turns).flatten()
        torch.testing.assert_close(parts[part][sample, head, token], expected)


def test_heads_without_queries() -> None:
    packed, weight, rope = random(2, 5, 2 * 3 * 64), random(64), rope_table(5, 64)
    k, v = (torch.zeros(2, 3, 9, 64, dtype=torch.float64) for _ in range(2))
    split_heads_into(packed, 3, None, weight, rope, False, None, k, v, 4)
    _, *expected = split_heads(torch.cat((packed[..., :192], packed), dim=-1), 3, weight, weight, rope, False)
    for found, wanted in zip((k, v), expected, strict=True):
        assert not found[:, :, :4].any()
        torch.testing.assert_close(found[:, :, 4:], wanted)


@pytest.mark.parametrize("dtype", HALF)
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    x, y, table = random(2, 9, 64, dtype=dtype), random(2, 9, 64, seed=1, dtype=dtype), random(2, 192, seed=2, dtype=dtype)
    gate, shift, scale = table.chunk(3, dim=-1)
    packed, weight, rope = random(2, 9, 192, seed=3, dtype=dtype), random(64, seed=4, dtype=dtype), rope_table(9, 64)

    def outputs(convert) -> list[Tensor]:
        a, b, g, s, c, p, w = (convert(t) for t in (x, y, gate, shift, scale, packed, weight))
        return [adaln(a, s, c), gated_add(a, b, g), swiglu(p), *split_heads(p, 1, w, w, rope, True)]

    for half, wide in zip(outputs(lambda t: t), outputs(lambda t: t.double()), strict=True):
        assert half.dtype == dtype
        torch.testing.assert_close(half.double(), wide, rtol=0.51 * torch.finfo(dtype).eps, atol=1e-5)


def test_bad_input_is_refused_without_triton_too() -> None:
    x, table = random(2, 5, 64), random(2, 64)
    with pytest.raises(InputError, match="rows is"):
        adaln(x, table, table, torch.zeros(2, 5, dtype=torch.int64))
    with pytest.raises(InputError, match="y has shape"):
        gated_add(x, x[:, 1:], table)
    with pytest.raises(InputError, match="two halves"):
        swiglu(random(3, 7))
    with pytest.raises(InputError, match="3 parts of 2 heads"):
        split_heads(random(1, 2, 64), 2, random(64), random(64), None, True)
    with pytest.raises(InputError, match="do not fit into 4"):
        split_heads_into(random(1, 5, 192), 1, *random(2, 64), None, True, *random(3, 1, 1, 4, 64), 0)
