"""The gated sum's kernels against their references in float64."""

from __future__ import annotations

import pytest
import torch

from mmaudio_core.errors import InputError
from mmaudio_core.kernels import gate as reference

from .interpreter import DTYPES, expect_close, random
from .test_adaln import CASES, large_tiles, rows_of, table_of, wide  # noqa: F401, large_tiles is a fixture

kernel = pytest.importorskip("mmaudio_core.kernels.triton.gate")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("shape", "table_rows"), CASES)
def test_parity(shape: tuple[int, int, int], dtype: torch.dtype, table_rows: int | None) -> None:
    batch, length, width = shape
    x, y = random(*shape, dtype=dtype), random(*shape, dtype=dtype, seed=3)
    rows = None if table_rows is None else rows_of(batch, length, table_rows)
    gate, shift, scale = table_of(table_rows or batch, width, dtype)[2:5]

    total = kernel.gated_add(x, y, gate, rows)
    assert total.dtype == dtype
    assert total.is_contiguous()
    expect_close(total, reference.gated_add(*wide(x, y, gate), rows))

    again, normed = kernel.gated_add_adaln(x, y, gate, shift, scale, rows)
    assert torch.equal(again, total)
    # The norm is of the sum as it was rounded, so the judge of the second output starts from there.
    expect_close(normed, reference.adaln(*wide(total, shift, scale), rows))
    assert normed.dtype == dtype


def test_any_strides() -> None:
    x = random(2, 48, 60, dtype=torch.float16).transpose(1, 2)
    y = random(2, 90, 60, seed=1)[:, 10:70, 5:53]
    gate, shift, scale = (t[::2] for t in table_of(10, 48, torch.float32, 3))
    rows = rows_of(1, 60, 5).expand(2, 60)
    total, normed = kernel.gated_add_adaln(x, y, gate, shift, scale, rows)
    expect_close(total, reference.gated_add(*wide(x, y, gate), rows))
    expect_close(normed, reference.adaln(*wide(total, shift, scale), rows))


def test_inputs_are_left_alone() -> None:
    x, y = random(1, 5, 64), random(1, 5, 64, seed=1)
    before = x.clone(), y.clone()
    kernel.gated_add_adaln(x, y, *table_of(1, 64, torch.float32, 3))
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])


@pytest.mark.parametrize("table_rows", [None, 9])
@pytest.mark.parametrize(
    "name", ["gated_add", "gated_add_adaln", "gated_add_adaln, sum unused", "gated_add_adaln, norm unused"]
)
def test_gradients(table_rows: int | None, name: str) -> None:
    batch, length, width = 2, 40, 60
    function, _, unused = name.partition(", ")
    tables = 1 if function == "gated_add" else 3
    inputs = [random(batch, length, width, seed=i) for i in range(2)]
    inputs.append(random(table_rows or batch, tables * width, seed=2))
    rows = None if table_rows is None else rows_of(batch, length, table_rows - 1)
    grads = [random(batch, length, width, seed=3 + i) for i in range(2)]

    found = []
    for module, dtype in ((kernel, torch.float32), (reference, torch.float64)):
        x, y, table = (t.clone().to(dtype).requires_grad_() for t in inputs)
        out = getattr(module, function)(x, y, *table.chunk(tables, dim=-1), rows)
        outs = [out] if isinstance(out, torch.Tensor) else list(out)
        used = [i for i in range(len(outs)) if unused != ("sum unused", "norm unused")[i]]
        torch.autograd.backward([outs[i] for i in used], [grads[i].to(dtype) for i in used])
        found.append((x.grad, y.grad, table.grad))
    for ours, theirs in zip(*found, strict=True):
        expect_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_in_half_precision(dtype: torch.dtype) -> None:
    """Within three steps of the dtype: the sum was rounded in the forward pass, its gradient in the backward pass."""
    x, y, table = (
        random(*s, dtype=dtype, seed=i).requires_grad_() for i, s in enumerate([(2, 7, 448), (2, 7, 448), (2, 1344)])
    )
    grads = tuple(random(2, 7, 448, dtype=dtype, seed=5 + i) for i in range(2))
    torch.autograd.backward(kernel.gated_add_adaln(x, y, *table.chunk(3, dim=-1)), grads)
    x64, y64, table64 = (t.detach().double().requires_grad_() for t in (x, y, table))
    torch.autograd.backward(reference.gated_add_adaln(x64, y64, *table64.chunk(3, dim=-1)), [g.double() for g in grads])
    for ours, theirs in ((x, x64), (y, y64), (table, table64)):
        assert ours.grad is not None
        assert theirs.grad is not None
        assert ours.grad.dtype == dtype
        difference = (ours.grad.double() - theirs.grad).abs().max() / theirs.grad.abs().max()
        assert difference < 3 * torch.finfo(dtype).eps


def test_gradient_of_one_input_alone() -> None:
    """Each input's gradient does not depend on the others being wanted."""
    inputs = [random(2, 9, 64, seed=0), random(2, 9, 64, seed=1), *table_of(2, 64, torch.float32, 3)]
    full = [t.clone().requires_grad_() for t in inputs]
    sum(out.square().sum() for out in kernel.gated_add_adaln(*full)).backward()
    for i, wanted in enumerate(full):
        alone = [t.clone().requires_grad_(i == j) for j, t in enumerate(inputs)]
        sum(out.square().sum() for out in kernel.gated_add_adaln(*alone)).backward()
        assert wanted.grad is not None
        assert alone[i].grad is not None
        assert torch.equal(alone[i].grad, wanted.grad)


def test_bad_input_is_refused() -> None:
    x, table = random(2, 5, 64), random(2, 64)
    with pytest.raises(InputError, match=r"y has shape \(2, 4, 64\)"):
        kernel.gated_add(x, x[:, 1:], table)
    with pytest.raises(InputError, match=r"gate is torch\.float64"):
        kernel.gated_add(x, x, table.double())
    with pytest.raises(InputError, match="scale has 1 rows for 2 samples"):
        kernel.gated_add_adaln(x, x, table, table, table[:1])
    with pytest.raises(InputError, match=r"rows is torch\.int64"):
        kernel.gated_add(x, x, table, rows_of(2, 5, 2).long())
