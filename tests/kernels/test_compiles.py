"""The kernels compile for GPUs of several generations, none of which has to be here, and into what was meant."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .interpreter import triton

ROOT = Path(__file__).resolve().parents[2]
if tuple(int(part) for part in triton.__version__.split(".")[:2]) < (3, 3):
    pytest.skip("compiling for an absent GPU is asked of Triton 3.3 and newer here", allow_module_level=True)


def compiled(capability: int, dtype: str, *names: str) -> list[dict]:
    """In a process of its own: here Triton may be interpreting."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.kernels.compiling", str(capability), dtype, *names]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_runs_at_every_step_moves_16_bytes_at_a_time() -> None:
    """In half precision every thread loads and stores vectors, and nothing changes places between threads.

    The published packing of q, k and v is the exception: two bytes at a time out of cached lines.
    """
    names = ("gated_add_adaln", "heads, parts", "heads, interleaved")
    found = {entry.pop("call"): entry for entry in compiled(90, "bfloat16", *names)}
    assert set(found) == set(names)
    for name, counts in found.items():
        assert counts["exchanges"] == 0, name
        moves = {n: c for n, c in counts.items() if n.startswith(("ld.", "st."))}
        row_of_the_table = moves.pop("ld.global.b32", 0)
        assert row_of_the_table == (1 if name == "gated_add_adaln" else 0), name
        narrow = moves.pop("ld.global.b16", 0)
        assert narrow == (24 if name == "heads, interleaved" else 0), name
        assert set(moves) == {"ld.global.v4.b32", "st.global.v4.b32"}, name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("capability", "dtype"), [(75, "float16"), (80, "float16"), (89, "bfloat16"), (90, "float32"), (120, "bfloat16")]
)
def test_all_compile(capability: int, dtype: str) -> None:
    assert len({entry["call"] for entry in compiled(capability, dtype)}) == 13
