"""``mmaudio convert``: any readable weights file to one self-describing safetensors file."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from .progress import Bars

HELP = "turn a weights file (.pth, .pt, .bin, .safetensors) into safetensors that describe themselves"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="the file to read")
    parser.add_argument("target", type=Path, help="the .safetensors file to write")
    parser.add_argument("--dtype", help="float32, float16 or bfloat16; default: as in the source")
    parser.add_argument("--overwrite", action="store_true", help="replace the target if it exists")


def run(args: argparse.Namespace) -> int:
    """Runs ``mmaudio convert`` and says what was written."""
    import torch

    from ..pipeline.device import choose_dtype
    from ..weights.convert import convert
    from ..weights.inspect import describe

    dtype = choose_dtype(args.dtype, torch.device("cpu")) if args.dtype else None
    bars = Bars(args.quiet)
    try:
        convert(args.source, args.target, dtype, overwrite=args.overwrite, progress=partial(bars, "convert"))
    finally:
        bars.close()
    if not args.quiet:
        print(describe(args.target))
    return 0
