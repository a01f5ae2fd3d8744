"""``mmaudio inspect``: what any file is."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from ..errors import WeightsError
from .progress import Bars

HELP = "say what a weights file is: part, variant, sizes, dtype, licence"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    parser.add_argument(
        "--checksum", action="store_true", help="also compare the md5 with the published files (reads all of it)"
    )


def run(args: argparse.Namespace) -> int:
    """Describes each file; returns 4 when one of them is no part of MMAudio, else 0."""
    from ..weights.inspect import describe

    code, bars = 0, Bars(args.quiet)
    for path in args.files:
        try:
            print(describe(path, checksum=args.checksum, progress=partial(bars, "checksum")))
        except WeightsError as error:
            print(error)
            code = 4
    return code
