"""``mmaudio-train prove``: the world, the tiny family and its score from nothing, by one command."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from mmaudio_core.cli.progress import Bars

HELP = "make the small world, train the tiny family on it and measure it: the recipe of the embedded model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="where everything is made; a stopped run goes on there")
    parser.add_argument(
        "--size", default="full", choices=("full", "smoke"), help="smoke: a few steps of everything (default full)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the world and of every training (default 0)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="stages at once (default: processors)"
    )


def run(args: argparse.Namespace) -> int:
    """Runs ``mmaudio-train prove``; a table of what each stage took goes to standard output.

    Raises:
        InputError: a folder that holds another recipe, or a number of workers below 1.
        StageError: a stage failed.
    """
    from mmaudio_core.errors import InputError

    from ..prove.run import run_stages
    from ..prove.stages import stages_of

    if args.workers < 1:
        raise InputError(f"{args.workers} workers were asked for; 1 or more is needed.")
    bars = Bars(args.quiet)
    try:
        took = run_stages(
            stages_of(args.size, args.seed), args.folder, args.workers, lambda done, total: bars("prove", done, total)
        )
    finally:
        bars.close()
    for name, seconds in took.items():
        print(f"{name:<14}{seconds:>8.0f} s")
    return 0
