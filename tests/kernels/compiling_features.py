"""The same as ``compiling`` for the kernels around the flow network.

``python -m tests.kernels.compiling_features CAPABILITY DTYPE [CALL ...]``
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch

from .compiling import Launch, compile_launch, counts, recorded


def matmul_launches(dtype: torch.dtype) -> Iterator[Launch]:
    """CLIP's first linear layer and a convolution of the flow network in every configuration that a tuner may choose."""
    from mmaudio_core.kernels.triton import matmul

    for rows, channels, outputs, taps in ((5840, 1280, 5120, 1), (690, 448, 2560, 3)):
        x, weight = torch.zeros(1, rows, channels, dtype=dtype), torch.zeros(outputs, taps * channels, dtype=dtype)
        args = (x, weight, x, x, rows, rows, outputs, channels, 16 * rows, *x.stride(), *weight.stride())
        named = {"TAPS": taps, "QUICK_GELU": taps == 1, "EVEN": True, "GROUP": matmul.GROUP, "BLOCK_K": matmul.BLOCK_K}
        for config in matmul.sensible(matmul.configurations(), {"x": x, "size": rows}):
            options = {"num_warps": config.num_warps, "num_stages": config.num_stages}
            yield matmul.matmul_kernel, args, named | config.kwargs | options


def calls(dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """Calls on the CPU, which only the launchers see."""
    from mmaudio_core.kernels.triton import divided_attention, pixel_norm, quick_gelu, snake

    x = torch.zeros(1, 96, 44160, dtype=dtype)
    rows = x.transpose(1, 2).contiguous().transpose(1, 2)
    channels, taps = torch.zeros(96), torch.zeros(12)
    qkv = torch.zeros(1, 1 + 8 * 196, 3 * 768, dtype=dtype)
    return {
        "snake": lambda: snake.anti_aliased_snake(x, channels, channels, taps),
        "snake, time-major": lambda: snake.anti_aliased_snake(rows, channels, channels, taps),
        "pixel_norm_silu": lambda: pixel_norm.pixel_norm_silu(x),
        "pixel_norm_silu, time-major": lambda: pixel_norm.pixel_norm_silu(rows),
        "quick_gelu_": lambda: quick_gelu.quick_gelu_(x),
        "divided_attention, time": lambda: divided_attention.divided_attention(qkv, 12, 8, True),
        "divided_attention, space": lambda: divided_attention.divided_attention(qkv, 12, 8, False),
        # Sizes of one are constants to the compiler, which have no type.
        "ones": lambda: (
            snake.anti_aliased_snake(x[:, :1, :1].contiguous(), channels[:1], channels[:1], taps),
            pixel_norm.pixel_norm_silu(x[:, :1, :1].contiguous()),
            divided_attention.divided_attention(qkv[:, :2, :192].contiguous(), 1, 1, True),
        ),
    }


def main(capability: int, dtype: torch.dtype, names: list[str]) -> None:
    for name, call in calls(dtype).items():
        if names and name not in names:
            continue
        with recorded() as launches:
            call()
        for launch in launches:
            print(json.dumps({"call": name} | counts(compile_launch(launch, capability))), flush=True)
    if not names:
        for launch in matmul_launches(dtype):
            compiled = compile_launch(launch, capability)
            print(json.dumps({"call": "matmul", "wgmma": compiled.asm["ptx"].count("wgmma.mma_async")}), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), getattr(torch, sys.argv[2]), sys.argv[3:])
