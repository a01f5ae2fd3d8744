"""The kernels around the flow network compile for GPUs of several generations, none of which has to be here."""

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
    command = [sys.executable, "-m", "tests.kernels.compiling_features", str(capability), dtype, *names]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_a_snake_stays_in_its_registers() -> None:
    """No thread waits for another or needs what one has, and in channel-first memory 16 bytes move at a time."""
    found = {entry.pop("call"): entry for entry in compiled(90, "bfloat16", "snake", "snake, time-major")}
    for counts in found.values():
        assert "bar.sync" not in counts
    assert found["snake"]["ld.global.v4.b32"] == 2
    assert {n for n in found["snake"] if n.startswith("st.")} == {"st.global.v4.b32"}


@pytest.mark.slow
@pytest.mark.parametrize(("capability", "dtype"), [(80, "float16"), (89, "bfloat16"), (90, "float32"), (90, "bfloat16")])
def test_all_compile(capability: int, dtype: str) -> None:
    found = compiled(capability, dtype)
    assert len({entry["call"] for entry in found}) == 9
    assert len(found) >= 8 + 3 + 3 + 2 * 2  # two kernels of divided attention each time, and the configurations
    if (capability, dtype) == (90, "bfloat16"):
        assert all(entry["wgmma"] > 0 for entry in found if entry["call"] == "matmul")
