"""``mmaudio bench``: how long each stage takes here, in every way there is to compute it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    import torch

    from ..bench.rows import Row

HELP = "time every stage on this device, with made-up weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--variants", default="all", metavar="NAMES", help="comma-separated, or all published (default); tiny")
    parser.add_argument(
        "--stages",
        default="all",
        metavar="NAMES",
        help="of clip, text, sync, conditions, step, vae, vocoder, total, text_only (default all)",
    )
    parser.add_argument(
        "--backends",
        default="plain,auto",
        metavar="NAMES",
        help="of plain (the reference), auto, torch, triton, cuda, compile, or an attention backend such as sdpa-flash, which "
        "goes with the kernels of auto (default plain,auto)",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    parser.add_argument("--dtype", default="auto", help="float32, float16, bfloat16 (default: by device)")
    parser.add_argument("--duration", type=float, default=8.0, metavar="S", help="seconds of the clip (default 8)")
    parser.add_argument("--seconds-per-row", type=float, default=2.0, metavar="S", help="calls of a row (default 2 s)")
    parser.add_argument("--limit", type=float, default=7.5, metavar="MIN", help="begin no row after this (default 7.5 minutes)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there too")


def run(args: argparse.Namespace) -> int:
    """Prints the table to standard output, progress and what could not be had to standard error."""
    from ..bench.made_up import variant_names
    from ..bench.rows import table, write_json
    from ..bench.run import Wanted, parse_names, run
    from ..bench.stages import STAGES
    from ..bench.timing import ceilings
    from ..pipeline.device import choose_device, choose_dtype
    from ..spec.timing import check_duration

    device = choose_device(args.device)
    dtype = choose_dtype(args.dtype, device)
    if args.json and not args.json.resolve().parent.is_dir():  # before minutes of measuring
        raise InputError(f"The folder of {args.json} does not exist; create it or choose another file.")
    if args.seconds_per_row <= 0 or args.limit <= 0:
        raise InputError("--seconds-per-row and --limit must be above 0.")
    wanted = Wanted(
        variants=parse_names(args.variants, variant_names()[1:]),
        stages=parse_names(args.stages, STAGES),
        backends=parse_names(args.backends, ("plain", "auto", "torch", "triton", "cuda", "compile")),
        device=device,
        dtype=dtype,
        duration_s=check_duration(args.duration),
        budget_s=args.seconds_per_row,
        limit_s=60 * args.limit,
    )
    rows: list[Row] = []

    def report(row: Row) -> None:
        rows.append(row)
        if not args.quiet:
            print(f"{row.variant} {row.stage} {row.backend}: {row.median_s * 1e3:.2f} ms", file=sys.stderr)

    best = ceilings(device, dtype)
    left_out = run(wanted, report)
    print(machine(device))
    print(best.sentence())
    print(table(rows, best))
    if not args.quiet:
        print(backends(device, dtype))
    for sentence in left_out:
        print(f"Left out: {sentence}", file=sys.stderr)
    if args.json:
        write_json(rows, args.json)
    return 0


def machine(device: torch.device) -> str:
    """The device and the versions that the numbers belong to."""
    import platform

    import torch

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.machine()} {device}"
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    return f"{name}{threads}; torch {torch.__version__}, Python {platform.python_version()}, {platform.system()}."


def backends(device: torch.device, dtype: torch.dtype) -> str:
    """Which attention backends can run here, and why others cannot."""
    from ..attention.listing import listing, table
    from ..spec.model import HEAD_DIM

    return "Attention backends for the flow network:\n" + table(listing(device, dtype, HEAD_DIM))
