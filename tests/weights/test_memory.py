"""Loading must not hold a file twice: 4.1 GB of float32 within 4.6 GB, also while it is converted."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from mmaudio_core.spec.model import VARIANTS
from mmaudio_core.weights.build import build_module

LIMIT_GB = 4.6
CHILD = """
import sys, torch
from mmaudio_core.weights.build import load_part, build_module
from mmaudio_core.weights.convert import convert
def peak():
    # VmHWM and not ru_maxrss, which a child inherits from its parent.
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) / 1e6 * 1.024
path, what = sys.argv[1:]
base = peak()
if what == "convert":
    convert(path, path + ".out", torch.float16)
else:
    dtype, _, touch = what.partition("+")
    dtype, _, storage = dtype.partition("/")
    module, spec = load_part(path, "flow", dtype=getattr(torch, dtype) if dtype != "None" else None, storage=storage or None)
    if touch:
        sum(float(value.sum()) for value in module.state_dict().values())
print(base, peak())
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = tmp_path_factory.mktemp("large")
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in build_module(VARIANTS["large_44k_v2"]).state_dict().items()}
    torch.manual_seed(0)
    state = {name: torch.randn(shape) for name, shape in shapes.items()}
    torch.save(state, folder / "large.pth")
    from safetensors.torch import save_file

    save_file(state, folder / "large.safetensors")
    assert (folder / "large.pth").stat().st_size > 4.1e9
    del state
    yield folder
    for path in folder.iterdir():
        path.unlink()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak from /proc")
@pytest.mark.parametrize("what", ["None", "None+touch", "bfloat16", "bfloat16/fp8", "float16+touch", "convert"])
@pytest.mark.parametrize("name", ["large.safetensors", "large.pth"])
def test_peak_of_memory(large, name, what, record_property):
    result = subprocess.run([sys.executable, "-c", CHILD, str(large / name), what], check=True, capture_output=True, text=True)
    base, peak = (float(value) for value in result.stdout.split())
    record_property("peak_gb", peak)
    print(f"{name} {what}: {base:.2f} GB before, {peak:.2f} GB at most")
    if what == "None+touch":  # every number read once: the file itself and nothing more
        assert peak - base < 4.2
    else:
        assert peak < LIMIT_GB
        most = {"None": 0.2, "bfloat16": 2.7, "bfloat16/fp8": 1.8, "float16+touch": 2.7, "convert": 0.6}
        assert peak - base < most[what]
