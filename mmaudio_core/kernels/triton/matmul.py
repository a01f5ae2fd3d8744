"""One matrix product for a linear layer and for three taps over time, with QuickGELU in its epilogue or without."""

# mypy: disallow-untyped-defs=False

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ...devices import on_device_of
from ..quick_gelu import SHARPNESS

BLOCK_K = 64
"""The same in all configurations: which of them is chosen then does not change the order of a sum."""
GROUP = 8
FEW_ROWS = 2048
SHARPNESS_CONST = tl.constexpr(SHARPNESS)


def configurations() -> list[triton.Config]:
    """Small tiles first: the flow network's 250 to 690 rows fill a large GPU with nothing else."""
    tiles = ((64, 32, 4, 4), (64, 64, 4, 4), (128, 64, 4, 4), (64, 128, 4, 4), (128, 128, 8, 3), (128, 256, 8, 3))
    return [
        triton.Config({"BLOCK_M": rows, "BLOCK_N": outputs}, num_warps=warps, num_stages=stages)
        for rows, outputs, warps, stages in tiles
    ]


def sensible(configs: list[triton.Config], given: dict[str, Any], **_: Any) -> list[triton.Config]:
    """Leaves out what cannot win, and in float32, which runs without tensor cores, what takes minutes to compile."""
    if given["x"].dtype == torch.float32:
        return configs[:2]
    return configs[3:] if given["size"] > FEW_ROWS else configs[:5]


@triton.jit
def matmul_kernel(
    x, weight, bias, out, rows, length, outputs, channels, size, x_b, x_l, x_c, weight_o, weight_k,
    TAPS: tl.constexpr, QUICK_GELU: tl.constexpr, EVEN: tl.constexpr, GROUP: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One program per tile of ``out``. ``EVEN``: BLOCK_K divides the channels. ``size`` only tells the tuner the problem."""
    # GROUP tiles of rows share the weight that is in the cache before the next tile of outputs is begun.
    row_tiles = tl.cdiv(rows, BLOCK_M)
    in_group = GROUP * tl.cdiv(outputs, BLOCK_N)
    first = tl.program_id(0) // in_group * GROUP
    height = tl.minimum(row_tiles - first, GROUP)
    inside = tl.program_id(0) % in_group
    row = (first + inside % height) * BLOCK_M + tl.arange(0, BLOCK_M)
    output = inside // height * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)

    sample = row // length
    time = row - sample * length
    x_rows = x + sample.to(tl.int64)[:, None] * x_b
    weight_rows = weight + output.to(tl.int64)[None, :] * weight_o
    steps = tl.cdiv(channels, BLOCK_K)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(0, TAPS * steps):
        tap = step // steps
        channel = (step - tap * steps) * BLOCK_K + k
        at = time + tap - TAPS // 2
        mask = ((row < rows) & (at >= 0) & (at < length))[:, None]
        weight_mask = (output < outputs)[None, :]
        if not EVEN:
            mask = mask & (channel < channels)[None, :]
            weight_mask = weight_mask & (channel < channels)[:, None]
        a = tl.load(x_rows + at.to(tl.int64)[:, None] * x_l + channel.to(tl.int64)[None, :] * x_c, mask=mask, other=0.0)
        b = tl.load(weight_rows + (tap * channels + channel).to(tl.int64)[:, None] * weight_k, mask=weight_mask, other=0.0)
        total = tl.dot(a, b, total, allow_tf32=False)
    if bias is not None:
        total += tl.load(bias + output, mask=output < outputs, other=0.0).to(tl.float32)[None, :]
    if QUICK_GELU:
        total = total * tl.sigmoid(total * SHARPNESS_CONST)
    to = out + row.to(tl.int64)[:, None] * outputs + output[None, :]
    tl.store(to, total.to(out.dtype.element_ty), mask=(row < rows)[:, None] & (output < outputs)[None, :])


tuned_kernel = triton.autotune(
    # The interpreter has nothing to measure: it takes the first.
    configs=configurations() if isinstance(matmul_kernel, triton.runtime.JITFunction) else configurations()[:1],
    key=["size", "outputs", "channels", "TAPS", "QUICK_GELU"],
    prune_configs_by={"early_config_prune": sensible},
)(matmul_kernel)


def matmul(x: Tensor, weight: Tensor, bias: Tensor | None, taps: int, quick_gelu: bool) -> Tensor:
    """Checked (B, L, C) and (O, taps * C) -> (B, L, O), contiguous; rows outside of a sample are zero.

    The first call for a size (a power of two of rows, C and O) measures a few configurations: make it outside of a graph's
    capture.
    """
    batch, length, channels = x.shape
    rows, outputs = batch * length, weight.shape[0]
    out = torch.empty((batch, length, outputs), dtype=x.dtype, device=x.device)
    if out.numel():
        size = min(max(triton.next_power_of_2(rows), 16), 2 * FEW_ROWS)
        bias = bias if bias is None else bias.contiguous()
        with on_device_of(x):
            tuned_kernel[lambda meta: (triton.cdiv(rows, meta["BLOCK_M"]) * triton.cdiv(outputs, meta["BLOCK_N"]),)](
                x, weight, bias, out, rows, length, outputs, channels, size, *x.stride(), *weight.stride(),
                TAPS=taps, QUICK_GELU=quick_gelu, EVEN=channels % BLOCK_K == 0, GROUP=GROUP, BLOCK_K=BLOCK_K,
            )  # fmt: skip
    return out
