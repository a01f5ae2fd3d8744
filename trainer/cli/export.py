"""``mmaudio-train export``: what a run trained, as one safetensors file that ``mmaudio generate`` and the nodes load."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "write a run's flow network to one safetensors file, averaged over any relative width"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="RUN", help="the folder of the training run")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument(
        "--ema",
        type=float,
        default=0.05,
        metavar="WIDTH",
        help="relative width of the average over the training steps, also one that was not tracked (default 0.05)",
    )
    parser.add_argument("--raw", action="store_true", help="the weights as the optimiser left them, not averaged")
    parser.add_argument("--step", type=int, help="a step that the run kept (default: the last one)")
    parser.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="default float32")
    parser.add_argument("--licence", metavar="TEXT", help="what the file says of its licence; default: what the run says")
    parser.add_argument(
        "--family",
        nargs="*",
        type=Path,
        metavar="PATH",
        help="also the encoders, VAE and vocoder that fit, from these files and folders, into the same file "
        "(no PATH: MMAUDIO_WEIGHTS, else ~/.cache/mmaudio-graph/weights; tiny: the embedded model)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def run(args: argparse.Namespace) -> int:
    """Runs ``mmaudio-train export``; says what was written."""
    from mmaudio_core.pipeline.device import DTYPES
    from mmaudio_core.pipeline.files import EMBEDDED, EMBEDDED_FILE
    from mmaudio_core.weights.convert import check_target
    from mmaudio_core.weights.locate import default_folders

    from ..export.files import export
    from ..export.weights import averaged, unaveraged

    check_target(args.output, args.overwrite)  # before minutes of reading
    weights = unaveraged(args.folder, args.step) if args.raw else averaged(args.folder, args.ema, args.step)
    family = default_folders() if args.family == [] else args.family
    if family is not None:
        family = [EMBEDDED_FILE if str(path) == EMBEDDED else path for path in family]
    what = export(
        weights,
        args.folder,
        args.output,
        DTYPES[args.dtype] if args.dtype != "float32" else None,
        licence=args.licence,
        family=family,
        overwrite=args.overwrite,
    )
    if not args.quiet:
        average = "not averaged" if weights.sigma_rel is None else f"average of relative width {weights.sigma_rel:g}"
        print(f"{args.output}: {what}, step {weights.step}, {average}, {args.dtype}.")
    return 0
