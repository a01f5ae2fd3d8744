"""Splitting, norm and rotation of heads against their reference in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmaudio_core.errors import InputError
from mmaudio_core.kernels import heads as reference
from mmaudio_core.layers.rope import rope_table

from .interpreter import DEVICE, DTYPES, expect_close, random

kernel = pytest.importorskip("mmaudio_core.kernels.triton.heads")

CASES = [  # B, L, H, interleaved, rotated
    (1, 250, 1, True, True),
    (1, 345, 1, False, True),
    (1, 77, 3, True, False),
    (2, 1, 2, False, False),
    (1, 9, 7, False, True),
    (2, 9, 2, True, True),
]


@pytest.fixture(autouse=True)
def large_tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes ten milliseconds for a program, whatever its size; the own tile is tested on few tokens."""
    if DEVICE == "cpu" and "own_tile" not in request.node.name:
        monkeypatch.setattr(kernel, "TOKENS", 256)


def inputs(batch: int, length: int, heads: int, dtype: torch.dtype, parts: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Packed, both weights, rotations."""
    weights = (random(64, seed=i + 1) + 1 for i in range(2))
    return random(batch, length, parts * heads * 64, dtype=dtype), *weights, rope_table(length, 64, device=torch.device(DEVICE))


def wide(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.detach().double()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_parity(case: tuple[int, int, int, bool, bool], dtype: torch.dtype) -> None:
    batch, length, heads, interleaved, rotated = case
    packed, q_weight, k_weight, rope = inputs(batch, length, heads, dtype)
    rest = (heads, q_weight, k_weight, rope if rotated else None, interleaved)
    for ours, theirs in zip(kernel.split_heads(packed, *rest), reference.split_heads(packed.double(), *rest), strict=True):
        assert ours.shape == (batch, heads, length, 64)
        assert ours.dtype == dtype
        assert ours.is_contiguous()
        expect_close(ours, theirs)


def test_own_tile() -> None:
    packed, *rest = inputs(2, 19, 2, torch.float32)
    for ours, theirs in zip(
        kernel.split_heads(packed, 2, *rest, True), reference.split_heads(packed.double(), 2, *rest, True), strict=True
    ):
        expect_close(ours, theirs)


@pytest.mark.parametrize("interleaved", [True, False])
def test_any_strides(interleaved: bool) -> None:
    """Time-major packed memory, strided weights, a table cut out of a longer one."""
    packed = random(2, 2 * 192, 30, dtype=torch.bfloat16).transpose(1, 2)
    weights = random(64, 2).unbind(1)
    rope = random(40, 64, 2)[5:35, ::2]
    rest = (2, *weights, rope, interleaved)
    for ours, theirs in zip(kernel.split_heads(packed, *rest), reference.split_heads(packed.double(), *rest), strict=True):
        expect_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["interleaved", "parts", "keys and values"])
@pytest.mark.parametrize("module", [kernel, reference], ids=["kernel", "reference"])
def test_streams_share_tensors(module: object, layout: str, dtype: torch.dtype) -> None:
    """Two streams fill one tensor; what lies around their tokens is left as it was."""
    lengths, before, after, heads = (77, 20), 3, 2, 1
    parts = 2 if layout == "keys and values" else 3
    shape = (2, heads, before + sum(lengths) + after, 64)
    shared = [torch.full(shape, 7.0, dtype=dtype, device=DEVICE) for _ in range(3)]
    expected = [torch.full(shape, 7.0, dtype=torch.float64, device=DEVICE) for _ in range(3)]
    offset = before
    for seed, length in enumerate(lengths):
        packed, q_weight, k_weight, rope = inputs(2, length, heads, dtype, parts)
        packed = packed + seed
        turns = rope if seed == 0 else None
        for x, tensors in ((packed, shared), (packed.double(), expected)):
            q, k, v = tensors
            function = module.split_heads_into if tensors is shared else reference.split_heads_into  # type: ignore[attr-defined]
            weight, queries = (None, None) if parts == 2 else (q_weight, q)
            assert function(x, heads, weight, k_weight, turns, layout == "interleaved", queries, k, v, offset) is None
        offset += length
    for i, (ours, theirs) in enumerate(zip(shared, expected, strict=True)):
        if module is reference:
            torch.testing.assert_close(ours.double(), theirs, rtol=torch.finfo(dtype).eps, atol=1e-5)
        else:
            expect_close(ours, theirs)
        outside = torch.cat((ours[:, :, :before], ours[:, :, before + sum(lengths) :]), dim=2)
        assert bool((outside == 7).all())
        assert bool((ours == 7).all()) == (parts == 2 and i == 0), "q is written where it is given, and only there"


def test_what_is_written_is_what_splitting_returns() -> None:
    """Into heads that lie token-major in memory too, as some attention functions want them."""
    packed, *rest = inputs(1, 30, 2, torch.float16)
    made = kernel.split_heads(packed, 2, *rest, True)
    shared = [torch.zeros(1, 40, 2, 64, dtype=torch.float16, device=DEVICE).transpose(1, 2) for _ in range(3)]
    kernel.split_heads_into(packed, 2, *rest, True, *shared, 10)
    for x, y in zip(shared, made, strict=True):
        assert torch.equal(x[:, :, 10:], y)
        assert not x[:, :, :10].any()


@pytest.mark.parametrize(
    ("dtype", "interleaved", "rotated"),
    [(torch.float32, True, True), (torch.float32, False, True), (torch.float32, False, False), (torch.float16, True, True)],
)
def test_gradients(dtype: torch.dtype, interleaved: bool, rotated: bool) -> None:
    """As attention gives them: gradients that lie token-major in memory, and one that is expanded."""
    packed, q_weight, k_weight, rope = inputs(2, 77, 2, dtype)
    grads = [random(2, 77, 2, 64, dtype=dtype, seed=5 + i).transpose(1, 2) for i in range(2)]
    grads.append(random(1, 1, 1, 1, dtype=dtype, seed=9).expand(2, 2, 77, 64))
    found = []
    for function, convert in ((kernel.split_heads, lambda t: t.clone()), (reference.split_heads, lambda t: t.double())):
        leaves = [convert(t).requires_grad_() for t in (packed, q_weight, k_weight)]
        out = function(leaves[0], 2, *leaves[1:], rope if rotated else None, interleaved)
        torch.autograd.backward(out, [convert(g) if function is reference.split_heads else g for g in grads])
        found.append([t.grad for t in leaves])
    for ours, theirs in zip(*found, strict=True):
        expect_close(ours, theirs)


def test_unused_outputs_have_no_gradient() -> None:
    packed, *rest = inputs(1, 9, 2, torch.float32)
    packed.requires_grad_()
    kernel.split_heads(packed, 2, *rest, False)[2].sum().backward()
    assert packed.grad is not None
    q, k, v = packed.grad.chunk(3, dim=-1)
    assert not q.any()
    assert not k.any()
    assert bool((v == 1).all())


def test_nothing_in_nothing_out() -> None:
    assert kernel.split_heads(*_given(length=0).values())[0].shape == (2, 3, 0, 64)


def _given(length: int = 5) -> dict:
    packed, q_weight, k_weight, rope = inputs(2, length, 3, torch.float32)
    return {"packed": packed, "heads": 3, "q_weight": q_weight, "k_weight": k_weight, "rope": rope, "interleaved": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": lambda _: 9}, r"\(B, L, 1728\) was expected: 3 parts of 9 heads of 64"),
        ({"packed": lambda t: t[0]}, r"packed has shape \(5, 576\)"),
        ({"packed": lambda t: t.double()}, r"packed is torch\.float64"),
        ({"rope": lambda t: t.half()}, r"rope is torch\.float16"),
        ({"rope": lambda t: t[:4]}, r"shape \(4, 32, 2\); float32 of shape \(5, 32, 2\)"),
        ({"q_weight": lambda t: t[:32]}, r"q_weight has shape \(32,\)"),
        ({"k_weight": lambda _: None}, "k_weight is missing"),
    ],
)
def test_bad_input_is_refused(change: dict, message: str) -> None:
    given = _given()
    given |= {name: make(given[name]) for name, make in change.items()}
    with pytest.raises(InputError, match=message):
        kernel.split_heads(**given)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offset": lambda _: 6}, "5 tokens from 6 on do not fit into 10"),
        ({"offset": lambda _: -1}, "5 tokens from -1 on"),
        ({"k": lambda t: t.half()}, r"torch\.float16 of shape"),
        ({"v": lambda t: t[:1]}, r"shape \(1, 3, 10, 64\)"),
        ({"q": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3)}, "with last stride 1"),
        ({"q": lambda _: None}, r"\(B, L, 384\) was expected: 2 parts"),
        ({"q": lambda _: None, "packed": lambda t: t[..., :384]}, "were said to be interleaved"),
        ({"q_weight": lambda _: None}, "q_weight is missing"),
    ],
)
def test_bad_shared_tensors_are_refused(change: dict, message: str) -> None:
    given = {**_given(), **{name: torch.zeros(2, 3, 10, 64, device=DEVICE) for name in "qkv"}, "offset": 5}
    given |= {name: make(given[name]) for name, make in change.items()}
    with pytest.raises(InputError, match=message):
        kernel.split_heads_into(**given)


@pytest.mark.slow
def test_elements_beyond_int32() -> None:
    """Samples 2**30 elements apart, in what is read and in what is written."""
    apart, size = 2**30, 192
    far = [torch.zeros(3 * apart + size, dtype=torch.float16, device=DEVICE) for _ in range(2)]
    packed = far[0].as_strided((4, 1, size), (apart, size, 1)).copy_(random(4, 1, size, dtype=torch.float16))
    _, *rest = inputs(4, 1, 1, torch.float16)
    q = far[1].as_strided((4, 1, 1, 64), (apart, 64, 64, 1))
    k, v = (torch.zeros(4, 1, 1, 64, dtype=torch.float16, device=DEVICE) for _ in range(2))
    kernel.split_heads_into(packed, 1, *rest, True, q, k, v, 0)
    for ours, theirs in zip((q, k, v), reference.split_heads(packed.double(), 1, *rest, True), strict=True):
        expect_close(ours, theirs)
