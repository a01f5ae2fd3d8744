"""The CUDA C++ kernels against their references: on an emulated device, and (marker gpu) on a real one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmaudio_core.errors import InputError
from mmaudio_core.kernels import adaln as adaln_reference
from mmaudio_core.kernels import gate as gate_reference
from mmaudio_core.kernels import heads as heads_reference
from mmaudio_core.kernels import snake as snake_reference
from mmaudio_core.kernels.cuda import available, runtime
from mmaudio_core.kernels.cuda.adaln import adaln
from mmaudio_core.kernels.cuda.gate import gated_add, gated_add_adaln
from mmaudio_core.kernels.cuda.heads import split_heads, split_heads_into
from mmaudio_core.kernels.cuda.snake import anti_aliased_snake

from .emulator import Emulator

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SHAPES = ((2, 77, 64), (1, 250, 24), (1, 345, 5), (3, 1, 448), (2, 3, 1), (1, 2, 1030), (1, 2, 4096), (1, 2, 4093))
"""(B, L, D): one and several warps, read by vectors and one by one."""


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where tensors have to be, with the launchers made to run there."""
    if request.param == "cuda":
        if reason := available("cuda"):
            pytest.skip(reason)
        return "cuda"
    monkeypatch.setattr(runtime, "launch", request.getfixturevalue("emulator").launch)
    return "cpu"


def random(*shape: int, dtype: torch.dtype, device: str, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def expect_close(actual: Tensor, expected: Tensor, float32_steps: float = 16.0) -> None:
    """Half a step of actual's dtype, and some steps of float32 at the size of the largest element; NaN never passes."""
    assert expected.dtype == torch.float64
    step = torch.finfo(torch.float32).eps
    half = 0.0 if actual.dtype == torch.float32 else torch.finfo(actual.dtype).eps / 2
    largest = expected.abs().max().item()
    torch.testing.assert_close(
        actual.double().cpu(), expected.cpu(), rtol=half * 1.01 + step, atol=float32_steps * step * largest + 1e-7 * (half > 0)
    )


def modulation(
    shape: tuple[int, int, int], dtype: torch.dtype, device: str, indexed: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Gate, shift and scale, chunks of one table, and rows."""
    batch, length, width = shape
    table = random(18 if indexed else batch, 6 * width, dtype=dtype, device=device, seed=1)
    rows = torch.randint(18, (length, batch), generator=torch.Generator().manual_seed(2), dtype=torch.int32).T
    gate, shift, scale = table.chunk(6, dim=1)[1:4]
    return gate, shift, scale, rows.to(device) if indexed else None


def wide(*tensors: Tensor) -> list[Tensor]:
    return [tensor.double() for tensor in tensors]


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_modulated_rows(device: str, dtype: torch.dtype, indexed: bool) -> None:
    for shape in SHAPES:
        x, y = (random(*shape, dtype=dtype, device=device, seed=seed) for seed in (3, 4))
        gate, shift, scale, rows = modulation(shape, dtype, device, indexed)
        expect_close(adaln(x, shift, scale, rows), adaln_reference.adaln(*wide(x, shift, scale), rows))
        total = gate_reference.gated_add(*wide(x, y, gate), rows)
        expect_close(gated_add(x, y, gate, rows), total)
        both = gated_add_adaln(x, y, gate, shift, scale, rows)
        expect_close(both[0], total)
        expect_close(both[1], adaln_reference.adaln(*wide(both[0], shift, scale), rows))


@pytest.mark.parametrize("width", [64, 61])
def test_modulations_in_float32_beside_half_precision(device: str, width: int) -> None:
    x, y = (random(2, 5, width, dtype=torch.bfloat16, device=device, seed=seed) for seed in (3, 4))
    gate, shift, scale, rows = modulation((2, 5, width), torch.float32, device, True)
    expect_close(adaln(x, shift, scale, rows), adaln_reference.adaln(*wide(x, shift, scale), rows))
    total, normed = gated_add_adaln(x, y, gate, shift, scale, rows)
    expect_close(total, gate_reference.gated_add(*wide(x, y, gate), rows))
    expect_close(normed, adaln_reference.adaln(*wide(total, shift, scale), rows))


def test_a_layer_norm_far_from_zero(device: str) -> None:
    """The mean is taken off before squaring; a variance from the mean square would be lost here."""
    x = random(1, 3, 64, dtype=torch.float32, device=device) + 4096
    shift, scale = torch.zeros(2, 1, 64, device=device)
    expect_close(adaln(x, shift, scale), adaln_reference.adaln(*wide(x, shift, scale)), float32_steps=4096)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_of_any_stride(device: str, dtype: torch.dtype) -> None:
    base = random(4, 9, 2, 64, dtype=dtype, device=device)
    gate, shift, scale, _ = modulation((2, 9, 64), dtype, device, False)
    for x in (base[::2, :, 1], base[:2, :, 0].transpose(1, 2)[:, :9].transpose(0, 1)[:2], base[0].permute(1, 0, 2)):
        x = x[:, :9] if x.shape[1] > 9 else x
        tables = [t[:, : x.shape[2]] for t in (gate, shift, scale)]
        expect_close(adaln(x, *tables[1:]), adaln_reference.adaln(*wide(x, *tables[1:])))
        expect_close(gated_add(x, x, tables[0]), gate_reference.gated_add(*wide(x, x, tables[0])))
    one = [random(*shape, 61, dtype=dtype, device=device) for shape in ((1, 1), (1,), (1,))]  # aligned, not whole vectors
    expect_close(adaln(*one), adaln_reference.adaln(*wide(*one)))
    expect_close(gated_add(one[0], *one[:2]), gate_reference.gated_add(*wide(one[0], *one[:2])))
    apart = random(2, 9, 65, dtype=dtype, device=device)[..., :64]  # rows off 16 bytes
    expect_close(adaln(apart, shift, scale), adaln_reference.adaln(*wide(apart, shift, scale)))
    odd = base.flatten()[1 : 1 + 2 * 9 * 64].view(2, 9, 64)  # off 16 bytes
    expect_close(adaln(odd, shift, scale), adaln_reference.adaln(*wide(odd, shift, scale)))
    turned = odd.transpose(1, 2)  # channels are not side by side
    shift, scale = (random(2, 9, dtype=dtype, device=device, seed=seed) for seed in (5, 6))
    expect_close(adaln(turned, shift, scale), adaln_reference.adaln(*wide(turned, shift, scale)))


def test_bfloat16_is_rounded_to_nearest_even(device: str) -> None:
    """0 + gate * 1: every pattern around a tie, numbers that round up to infinity, subnormal ones, infinities and NaN."""
    upper = torch.arange(0, 2**16, 7, dtype=torch.int64)[:, None] * 2**16
    lower = torch.tensor([0x0000, 0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF])
    bits = (upper + lower).flatten()
    bits = torch.cat((bits, torch.tensor([0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FFFFFFF, 0xFF800000, 0xFFFFFFFF])))
    gate = torch.where(bits >= 2**31, bits - 2**32, bits).to(torch.int32).view(torch.float32)
    gate = gate[: len(gate) // 64 * 64].view(-1, 64).to(device)
    x = torch.zeros(len(gate), 1, 64, dtype=torch.bfloat16, device=device)
    actual, expected = gated_add(x, torch.ones_like(x), gate)[:, 0], gate.to(torch.bfloat16)
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


HEADS = ((1, 77), (7, 3), (2, 1), (3, 5))


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_split_heads(device: str, dtype: torch.dtype, interleaved: bool) -> None:
    for heads, length in HEADS:
        packed = random(2, length, 3 * heads * 64, dtype=dtype, device=device)
        weights = [random(64, dtype=dtype, device=device, seed=seed) for seed in (1, 2)]
        rope = random(length, 32, 2, dtype=torch.float32, device=device, seed=3)
        for table in (rope, None):
            actual = split_heads(packed, heads, *weights, table, interleaved)
            expected = heads_reference.split_heads(packed.double(), heads, *wide(*weights), table, interleaved)
            for a, e in zip(actual, expected, strict=True):
                assert a.is_contiguous()
                expect_close(a, e)


def test_heads_of_any_stride(device: str) -> None:
    """Channels, rotations and weights that are not side by side, each in turn beside others that are."""
    packed = random(3 * 2 * 64, 2, 5, dtype=torch.float32, device=device).permute(1, 2, 0)
    rope = random(5, 32, 4, dtype=torch.float32, device=device, seed=3)
    strided, dense = random(64, 2, dtype=torch.float32, device=device, seed=1).unbind(1), torch.ones(64, device=device)
    close = rope[..., :2].contiguous()
    for case in (
        (packed, 2, dense, dense, close),
        (packed.contiguous(), 2, strided[0], dense, close),
        (packed.contiguous(), 2, dense, strided[1], close),
        (packed.contiguous(), 2, dense, dense, rope[..., :2]),
        (packed.contiguous(), 2, dense, dense, rope[..., ::2]),
    ):
        for interleaved in (False, True):
            actual = split_heads(*case, interleaved)
            expected = heads_reference.split_heads(case[0].double(), *case[1:], interleaved)
            for a, e in zip(actual, expected, strict=True):
                expect_close(a, e)


@pytest.mark.parametrize("odd", [False, True], ids=["vectors", "one by one"])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("with_q", [True, False], ids=["qkv", "kv"])
def test_split_heads_into(device: str, odd: bool, interleaved: bool, with_q: bool) -> None:
    """Into the middle of shared tensors of other strides; not one element beside is touched."""
    if interleaved and not with_q:
        return
    parts, dtype = 3 if with_q else 2, torch.bfloat16
    packed = random(2, 6, parts * 3 * 64 + 8, dtype=dtype, device=device)[..., odd : parts * 3 * 64 + odd]
    weights = [random(64, dtype=torch.float32, device=device, seed=seed) for seed in (1, 2)]
    rope = random(6, 32, 2, dtype=torch.float32, device=device, seed=3)
    shared = [torch.full((2, 11, 3, 72), 7.0, dtype=dtype, device=device) for _ in range(3)]
    views = [tensor[..., odd : 64 + odd].transpose(1, 2) for tensor in shared]
    expected = [tensor.double() for tensor in shared]
    targets = [tensor[..., odd : 64 + odd].transpose(1, 2) for tensor in expected]
    skipped = 0 if with_q else 1
    q, target = (views[0], targets[0]) if with_q else (None, None)
    q_weight = weights[0] if with_q else None
    split_heads_into(packed, 3, q_weight, weights[1], rope, interleaved, q, *views[1:], 4)
    w = [None if weight is None else weight.double() for weight in (q_weight, weights[1])]
    heads_reference.split_heads_into(packed.double(), 3, w[0], w[1], rope, interleaved, target, *targets[1:], 4)
    for a, e in zip(shared[skipped:], expected[skipped:], strict=True):
        expect_close(a, e)
        assert int((a == 7).sum()) >= a.numel() - 2 * 3 * 6 * 64
    assert with_q or bool((shared[0] == 7).all())


def snake_inputs(
    shape: tuple[int, int, int], dtype: torch.dtype, device: str, layout: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, channels, length = shape
    x = random(batch, channels, length, dtype=dtype, device=device)
    if layout == "time-major":
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    elif layout == "neither":
        x = torch.stack((x, x.flip(0)), dim=-1)[..., 0]
    alpha, inverse_beta = (random(channels, dtype=torch.float32, device=device, seed=s).exp() for s in (1, 2))
    # Taps without symmetry, so that a mirrored filter shows.
    return x, alpha, inverse_beta, random(12, dtype=torch.float32, device=device, seed=3) / 4


@pytest.mark.parametrize("layout", ["channel-first", "time-major", "neither"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_snake(device: str, dtype: torch.dtype, layout: str) -> None:
    for length in (1, 2, 3, 4, 6, 7, 8, 13, 77, 250, 345, 1000):
        for batch, channels in ((2, 6), (1, 3)):
            inputs = snake_inputs((batch, channels, length), dtype, device, layout)
            actual = anti_aliased_snake(*inputs)
            assert actual.stride() == torch.empty_like(inputs[0]).stride()
            expect_close(actual, snake_reference.anti_aliased_snake(*wide(*inputs)), float32_steps=64)


def test_snake_of_any_stride(device: str) -> None:
    """Pairs of channels that are off their size at every second time, or sample; rows of time that are off 16 bytes."""
    x, *rest = snake_inputs((2, 6, 24), torch.float16, device, "channel-first")
    memory = [torch.empty(2 * 200, dtype=x.dtype, device=device) for _ in range(4)]
    for view in (
        memory[0].as_strided((2, 6, 24), (168, 1, 7)),
        memory[1].as_strided((2, 6, 24), (169, 1, 6)),
        memory[2].as_strided((2, 6, 24), (168, 1, 6), 1),
        memory[3].as_strided((2, 6, 24), (200, 25, 1)),
    ):
        view.copy_(x)
        expect_close(anti_aliased_snake(view, *rest), snake_reference.anti_aliased_snake(*wide(x, *rest)), float32_steps=64)


def test_snake_walks_far_where_there_is_much(device: str) -> None:
    """Each of the lengths that a thread may walk, along time and along channels."""
    entries = set()
    launch = runtime.launch

    def noted(wanted: runtime.Launch, at: torch.device) -> None:
        entries.add((wanted.entry, wanted.arguments.chunks))
        launch(wanted, at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "launch", noted)
        patch.setattr("mmaudio_core.kernels.cuda.snake.MANY_THREADS", 8)
        for length in (40, 60, 150, 400, 600, 800):
            for layout in ("channel-first", "time-major"):
                inputs = snake_inputs((1, 1 if length < 800 else 2, length), torch.float32, device, layout)
                x = inputs[0].expand(1, 2, length) if layout == "channel-first" else inputs[0]
                inputs = (x, *(t.expand(x.shape[1]) if len(t) == 1 else t for t in inputs[1:]))
                expect_close(anti_aliased_snake(*inputs), snake_reference.anti_aliased_snake(*wide(*inputs)), float32_steps=64)
    assert {entry for entry, _ in entries} == {"snake_time", "snake_channels"}
    assert {chunks for _, chunks in entries} == {2, 3, 4, 5}


def test_snake_of_large_arguments(device: str) -> None:
    """The sine is right wherever float32 holds its argument; without end it stays a sine; NaN stays NaN."""
    x = torch.cat((torch.linspace(0.01, 1e3, 50), torch.linspace(1e3, 6.5e4, 100), torch.linspace(6.6e4, 1e6, 50)))
    x = x.to(device)[None, :, None]
    one, high = torch.ones(200, device=device), 2.0**20
    taps = torch.zeros(12, device=device)
    taps[5] = taps[6] = 0.5  # the identity, twice
    for signed in (x, -x):
        expected = signed.double() + high * torch.sin(signed.double()).square()
        assert float((anti_aliased_snake(signed, one, high * one, taps) - expected).abs().max()) < high * 5e-7

    huge = torch.tensor([1e18, 1e30, 3e38, float("inf"), float("nan")], device=device)[None, :, None]
    actual = anti_aliased_snake(huge, one[:5], one[:5], taps)
    assert torch.equal(actual.isnan(), torch.tensor([0, 0, 0, 1, 1], device=device).bool()[None, :, None])
    assert torch.equal(actual[:, :3], huge[:, :3])


def test_the_order_of_threads_and_blocks_changes_nothing(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit; a barrier that is missing, or two blocks that write one element, would show."""
    monkeypatch.setattr(runtime, "launch", emulator.launch)
    dtype = torch.bfloat16
    results = []
    for backwards in (False, True):
        if backwards:
            monkeypatch.setenv("EMULATOR_BACKWARDS", "1")
        found: list[Tensor] = []
        for width in (448, 61):
            x, y = (random(2, 9, width, dtype=dtype, device="cpu", seed=seed) for seed in (3, 4))
            gate, shift, scale, rows = modulation((2, 9, width), dtype, "cpu", True)
            found += [adaln(x, shift, scale, rows), *gated_add_adaln(x, y, gate, shift, scale, rows)]
        packed, weight = random(1, 5, 576, dtype=dtype, device="cpu"), torch.ones(64, dtype=dtype)
        found += split_heads(packed, 3, weight, weight, None, True)
        for layout in ("channel-first", "time-major", "neither"):
            found += [anti_aliased_snake(*snake_inputs((1, 6, 344), dtype, "cpu", layout))]
        results.append(found)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_what_the_kernels_do_not_take() -> None:
    x, table = torch.zeros(1, 2, 8), torch.zeros(1, 8)
    with pytest.raises(InputError, match="on cpu; it needs them on a CUDA device"):
        adaln(x, table, table)
    with pytest.raises(InputError, match=r"torch\.float64; the CUDA kernel takes float32, float16 and bfloat16"):
        adaln(x.double(), table, table)
    with pytest.raises(InputError, match="asked for gradients"):
        adaln(x, table, table.clone().requires_grad_())
    with pytest.raises(InputError, match=r"give all in torch\.float32"):
        adaln(x, table, table.half())
    with pytest.raises(InputError, match="up to 4096"):
        gated_add(torch.zeros(1, 1, 4097), torch.zeros(1, 1, 4097), torch.zeros(1, 4097))
    with pytest.raises(InputError, match="give both in one dtype"):
        gated_add(x, x.half(), table)
    with pytest.raises(InputError, match="last stride 1"):
        adaln(x, torch.zeros(8, 2).T[:1], torch.zeros(8, 2).T[:1])
    with pytest.raises(InputError, match="the only head width there is"):
        split_heads(torch.zeros(1, 2, 3 * 2 * 32), 2, torch.ones(64), torch.ones(64), None, False)
    with pytest.raises(InputError, match="give all three in float32"):
        anti_aliased_snake(x, torch.ones(2, dtype=torch.half), torch.ones(2), torch.ones(12))
    with pytest.raises(InputError, match="blocks"):
        runtime.check_grid(runtime.Launch(runtime.Case("adaln", x.dtype, x.dtype, True), "adaln", 2**31, 32, 0, None))  # type: ignore[arg-type]


def test_nothing_to_do_starts_nothing() -> None:
    """These tensors are on the CPU, so a launch would raise."""
    empty = torch.zeros(0, 3, 64)
    table = torch.zeros(0, 64)
    assert adaln(empty, table, table).shape == gated_add_adaln(empty, empty, table, table, table)[1].shape == (0, 3, 64)
    q, _, _ = split_heads(torch.zeros(1, 0, 192), 1, torch.ones(64), torch.ones(64), None, True)
    assert q.shape == (1, 1, 0, 64)
    assert anti_aliased_snake(torch.zeros(0, 2, 5), torch.ones(2), torch.ones(2), torch.ones(12)).shape == (0, 2, 5)
