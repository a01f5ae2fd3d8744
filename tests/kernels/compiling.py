"""What Triton makes of a kernel for a GPU that need not be here: launches are recorded instead of made, and compiled.

The interpreter accepts more than the compiler does. ``python -m tests.kernels.compiling CAPABILITY DTYPE [CALL ...]`` prints
one JSON object for each launch; in a process of its own, since one process either interprets or compiles.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

POINTERS = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.int32: "*i32",
    torch.int64: "*i64",
}
Launch = tuple[Any, tuple[Any, ...], dict[str, Any]]


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Every launch of a Triton kernel goes into the list: kernel, positional and named arguments."""
    from triton.runtime.jit import JITFunction

    launches: list[Launch] = []
    run = JITFunction.run

    def record(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        launches.append((kernel, args, kwargs))

    JITFunction.run = record
    try:
        yield launches
    finally:
        JITFunction.run = run


def compile_launch(launch: Launch, capability: int) -> Any:
    """The launch's kernel, specialised to its arguments as at run time: ones are constants, multiples of 16 known."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel, args, kwargs = launch
    given = dict(zip(kernel.arg_names, args, strict=False)) | {n: v for n, v in kwargs.items() if n in kernel.arg_names}
    constants = {p.name for p in kernel.params if p.is_constexpr}
    signature, values, attributes = {}, {}, {}
    for i, name in enumerate(kernel.arg_names):
        value = given[name]
        if isinstance(value, Tensor):
            signature[name] = POINTERS[value.dtype]
        elif name in constants or value is None or value == 1 or not isinstance(value, (int, float)):
            signature[name], values[(i,)] = "constexpr", value
        else:
            signature[name] = "fp32" if isinstance(value, float) else "i32" if -(2**31) <= value < 2**31 else "i64"
        if isinstance(value, Tensor) or (signature[name] in ("i32", "i64") and value % 16 == 0):
            attributes[(i,)] = [["tt.divisibility", 16]]
    options = {n: kwargs[n] for n in ("num_warps", "num_stages") if n in kwargs}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=attributes)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def counts(compiled: Any) -> dict[str, int]:
    """Global loads and stores by width, barriers, and exchanges between threads in the machine's intermediate code."""
    ptx = compiled.asm["ptx"]
    found: dict[str, int] = {"exchanges": compiled.asm["ttgir"].count("ttg.convert_layout")}
    for name in (*re.findall(r"\b((?:ld|st)\.global\S*)", ptx), *re.findall(r"\b(bar\.sync)", ptx)):
        found[name] = found.get(name, 0) + 1
    return found


def _flow(dtype: torch.dtype, width: int, length: int) -> dict[str, Callable[[], Any]]:
    """Calls of the flow network's kernels, on the CPU, which only their launchers see."""
    from mmaudio_core.kernels.triton import adaln, gate, heads, swiglu

    heads_count = width // 64
    x = torch.zeros(2, length, width, dtype=dtype)
    table = torch.zeros(210, 6 * width, dtype=dtype).chunk(6, dim=-1)
    rows = torch.zeros(2, length, dtype=torch.int32)
    packed = torch.zeros(2, length, 3 * width, dtype=dtype)
    weight, rope = torch.zeros(64, dtype=dtype), torch.zeros(length, 32, 2)
    shared = [torch.zeros(2, heads_count, length + 141, 64, dtype=dtype) for _ in range(3)]

    def train(function: Callable[..., Any], *args: Any) -> None:
        out = function(
            *(a.requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() and a is not rope else a for a in args)
        )
        outs = (out,) if isinstance(out, Tensor) else out
        torch.autograd.backward(outs, [torch.zeros_like(o) for o in outs])

    def own(*tensors: Tensor) -> list[Tensor]:
        return [t.detach().clone() for t in tensors]

    return {
        "adaln": lambda: adaln.adaln(x, table[0], table[1], rows),
        "adaln, row per sample": lambda: adaln.adaln(x, table[0][:2], table[1][:2]),
        "gated_add": lambda: gate.gated_add(x, x, table[0], rows),
        "gated_add_adaln": lambda: gate.gated_add_adaln(x, x, *table[:3], rows),
        "swiglu": lambda: swiglu.swiglu(packed[..., : 2 * width]),
        "heads, interleaved": lambda: heads.split_heads_into(packed, heads_count, weight, weight, rope, True, *shared, 5),
        "heads, parts": lambda: heads.split_heads_into(packed, heads_count, weight, weight, rope, False, *shared, 5),
        "heads, keys and values": lambda: heads.split_heads_into(
            packed[..., : 2 * width].contiguous(), heads_count, None, weight, None, False, None, *shared[1:], 5
        ),
        "adaln, training": lambda: train(adaln.adaln, *own(x, *table[:2]), rows),
        "gated_add_adaln, training": lambda: train(gate.gated_add_adaln, *own(x, x, *(t[:2] for t in table[:3]))),
        "gated_add, training": lambda: train(gate.gated_add, *own(x, x, table[0]), rows),
        "swiglu, training": lambda: train(swiglu.swiglu, *own(packed)),
        "heads, training": lambda: train(heads.split_heads, *own(packed), heads_count, *own(weight, weight), rope, True),
    }


def main(capability: int, dtype: torch.dtype, names: list[str]) -> None:
    for name, call in _flow(dtype, 448, 345).items():
        if names and name not in names:
            continue
        with recorded() as launches:
            call()
        for launch in launches:
            result = {"call": name, "kernel": launch[0].fn.__qualname__} | counts(compile_launch(launch, capability))
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), getattr(torch, sys.argv[2]), sys.argv[3:])
