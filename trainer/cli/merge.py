"""``mmaudio-train merge``: a LoRA into a file of the whole flow network."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from mmaudio_core.cli.progress import Bars

HELP = "merge a LoRA into a flow network's weights: one safetensors file that needs no LoRA loader"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "base", type=Path, metavar="BASE", help="the flow network that the LoRA was trained on, any weights file"
    )
    parser.add_argument("lora", type=Path, metavar="LORA", help="the LoRA (.safetensors)")
    parser.add_argument("--strength", type=float, default=1.0, help="how much of the LoRA; default 1.0")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace the output if it exists")


def run(args: argparse.Namespace) -> int:
    """Runs ``mmaudio-train merge`` and says what was written."""
    from ..lora.merge import merge_file

    bars = Bars(args.quiet)
    try:
        layers = merge_file(
            args.base,
            args.lora,
            args.output,
            args.strength,
            overwrite=args.overwrite,
            progress=partial(bars, "merge"),
        )
    finally:
        bars.close()
    if not args.quiet:
        print(f"{args.output}: {args.lora.name} added to {layers} layers of {args.base.name} at strength {args.strength:g}.")
    return 0
