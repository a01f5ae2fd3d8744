"""``python -m benchmarks.kernels``: every kernel beside its reference, on the shapes of the published variants."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys

import torch

from . import __path__ as folder
from .timing import table

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def machine(device: str) -> str:
    """One line that says what the numbers are of."""
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    try:
        triton = importlib.import_module("triton").__version__
    except ImportError:
        triton = "absent"
    return f"{name}; torch {torch.__version__}; Triton {triton}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("kernels", nargs="*", help="names of kernels; all where none is given")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default=None, choices=tuple(DTYPES), help="default: bfloat16 on cuda, float32 on cpu")
    parser.add_argument("--quick", action="store_true", help="few repetitions: whether it runs, not how fast")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; run with --device cpu")
    dtype = DTYPES[options.dtype or ("bfloat16" if options.device == "cuda" else "float32")]

    modules = {
        m.name: importlib.import_module(f"{__package__}.{m.name}") for m in pkgutil.iter_modules(folder) if m.name[0] != "_"
    }
    found = sorted(name for name, module in modules.items() if hasattr(module, "run"))
    unknown = set(options.kernels) - set(found)
    if unknown:
        parser.error(f"no benchmark named {', '.join(sorted(unknown))}; there are {', '.join(found)}")
    print(f"{machine(options.device)}; {str(dtype).removeprefix('torch.')}{'; quick' if options.quick else ''}")
    for name in options.kernels or found:
        print(f"\n## {name}\n\n{table(modules[name].run(options.device, dtype, options.quick))}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
