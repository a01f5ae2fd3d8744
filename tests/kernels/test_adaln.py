"""The adaptive layer norm's kernel against its reference in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mmaudio_core.errors import InputError
from mmaudio_core.kernels import adaln as reference

from .interpreter import DEVICE, DTYPES, expect_close, random

kernel = pytest.importorskip("mmaudio_core.kernels.triton.adaln")

CASES = [  # (B, L, D), R or None
    ((1, 250, 448), 210),
    ((1, 345, 896), None),
    ((3, 77, 64), None),
    ((2, 1, 130), 7),
    ((1, 1, 1), None),
    ((2, 7, 100), 3),
]


@pytest.fixture(autouse=True)
def large_tiles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes ten milliseconds for a program, whatever its size; a GPU's own tiles are tested on few tokens."""
    if DEVICE == "cpu" and "own_tiles" not in request.node.name:
        launch = lambda width, _: {"ROWS": 128, "BLOCK": kernel.triton.next_power_of_2(width), "num_warps": 1}  # noqa: E731
        monkeypatch.setattr("mmaudio_core.kernels.triton.adaln.row_launch", launch)


def table_of(rows: int, width: int, dtype: torch.dtype, chunks: int = 6) -> tuple[Tensor, ...]:
    """Strided (R, D) chunks, as the model has them."""
    return random(rows, chunks * width, dtype=dtype, seed=1).chunk(chunks, dim=-1)


def rows_of(batch: int, length: int, table_rows: int) -> Tensor:
    """Unordered, with repetitions, and with table rows that no token has."""
    generator = torch.Generator().manual_seed(5)
    return torch.randint(0, table_rows, (batch, length), generator=generator, dtype=torch.int32).to(DEVICE)


def wide(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(t.detach().double() for t in tensors)


@pytest.mark.parametrize(("tokens", "rows_per_program"), [(9, 1), (9000, 4)])
def test_own_tiles(tokens: int, rows_per_program: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiles of short and of long inputs; the long one's tile on a short input, since programs are slow here."""
    launch = kernel.row_launch(448, tokens)
    assert launch["ROWS"] == rows_per_program
    monkeypatch.setattr(kernel, "row_launch", lambda width, _: launch)
    x = random(1, 9, 448)
    shift, scale = table_of(1, 448, torch.float32, 2)
    expect_close(kernel.adaln(x, shift, scale), reference.adaln(*wide(x, shift, scale)))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "table_rows"), CASES)
def test_parity(shape: tuple[int, int, int], dtype: torch.dtype, table_rows: int | None) -> None:
    batch, length, width = shape
    x = random(*shape, dtype=dtype) * 3 + 1
    rows = None if table_rows is None else rows_of(batch, length, table_rows)
    shift, scale = table_of(table_rows or batch, width, dtype)[1:3]
    normed = kernel.adaln(x, shift, scale, rows)
    assert normed.dtype == dtype
    assert normed.is_contiguous()
    expect_close(normed, reference.adaln(*wide(x, shift, scale), rows))


def test_any_strides() -> None:
    """Time-major memory, every second row of a table, one list of rows for all samples, a table of another dtype."""
    x = random(2, 48, 60, dtype=torch.bfloat16).transpose(1, 2)
    shift, scale = (t[::2] for t in table_of(10, 48, torch.float32, 2))
    rows = rows_of(1, 60, 5).expand(2, 60)
    expect_close(kernel.adaln(x, shift, scale, rows), reference.adaln(*wide(x, shift, scale), rows))


def test_a_large_mean_costs_no_digits() -> None:
    """The variance comes from centred values; E[x^2] - E[x]^2 in float32 would lose all of it here."""
    x = random(1, 3, 448) + 1000
    shift, scale = table_of(1, 448, torch.float32, 2)
    expect_close(kernel.adaln(x, shift, scale), reference.adaln(*wide(x, shift, scale)), float32_steps=2000)


def test_nothing_in_nothing_out() -> None:
    empty = random(2, 0, 64)
    assert kernel.adaln(empty, *table_of(2, 64, torch.float32, 2)).shape == (2, 0, 64)


@pytest.mark.parametrize("table_rows", [None, 9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients(table_rows: int | None, dtype: torch.dtype) -> None:
    batch, length, width = 2, 77, 100
    x = random(batch, length, width, dtype=dtype).requires_grad_()
    table = random(table_rows or batch, 2 * width, dtype=dtype, seed=1).requires_grad_()
    rows = None if table_rows is None else rows_of(batch, length, table_rows - 1)
    grad = random(batch, length, width, dtype=dtype, seed=2)
    kernel.adaln(x, *table.chunk(2, dim=-1), rows).backward(grad)

    x64, table64 = (t.detach().double().requires_grad_() for t in (x, table))
    reference.adaln(x64, *table64.chunk(2, dim=-1), rows).backward(grad.double())
    for ours, theirs in ((x, x64), (table, table64)):
        assert ours.grad is not None
        assert theirs.grad is not None
        expect_close(ours.grad, theirs.grad)
    if table_rows is not None:
        assert table.grad is not None
        assert not table.grad[-1].any(), "no token has the last row"


def test_only_the_wanted_gradients_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    x = random(2, 5, 64).requires_grad_()
    shift, scale = table_of(2, 64, torch.float32, 2)
    monkeypatch.setattr("mmaudio_core.kernels.triton.tokens.token_sums_kernel", None)
    kernel.adaln(x, shift, scale).sum().backward()
    assert x.grad is not None
    with torch.no_grad():
        assert not kernel.adaln(x, shift, scale).requires_grad


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": lambda x: x[0]}, r"shape \(5, 64\); tokens of shape \(B, L, D\)"),
        ({"x": lambda x: x.double()}, r"x is torch\.float64; the Triton kernels take float16"),
        ({"shift": lambda t: t[:, :63]}, r"shift has shape \(2, 63\)"),
        ({"scale": lambda t: t.t().contiguous().t()}, r"strides \(1, 2\); \(R, 64\) with last stride 1"),
        ({"scale": lambda t: t[:1]}, "scale has 1 rows for 2 samples"),
        ({"rows": lambda _: torch.zeros(2, 5, dtype=torch.int64, device=DEVICE)}, r"rows is torch\.int64"),
        ({"rows": lambda _: torch.zeros(1, 5, dtype=torch.int32, device=DEVICE)}, r"int32 of shape \(2, 5\)"),
        ({"shift": lambda t: t.to("meta")}, "different devices"),
    ],
)
def test_bad_input_is_refused(change: dict, message: str) -> None:
    given = {"x": random(2, 5, 64), "shift": random(2, 64), "scale": random(2, 64), "rows": None}
    given |= {name: make(given[name]) for name, make in change.items()}
    with pytest.raises(InputError, match=message):
        kernel.adaln(**given)


def test_too_wide_is_refused() -> None:
    with pytest.raises(InputError, match="widths up to 8192"):
        kernel.adaln(random(1, 1, 8193), random(1, 8193), random(1, 8193))


@pytest.mark.slow
def test_elements_beyond_int32() -> None:
    """Samples 2**30 elements apart; pages of the zeros between them are never touched on the CPU."""
    apart, width = 2**30, 64
    x = torch.zeros(3 * apart + width, dtype=torch.float16, device=DEVICE).as_strided((4, 1, width), (apart, width, 1))
    x.copy_(random(4, 1, width, dtype=torch.float16))
    shift, scale = table_of(4, width, torch.float16, 2)
    expect_close(kernel.adaln(x, shift, scale), reference.adaln(*wide(x, shift, scale)))
