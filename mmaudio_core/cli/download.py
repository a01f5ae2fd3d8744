"""``mmaudio download``: the published files of a variant, with their licences named."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from ..errors import InputError

HELP = "fetch the published weights of a variant from the Hugging Face hub"
log = logging.getLogger("mmaudio")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("variant", nargs="?", help="small_16k, small_44k, medium_44k, large_44k or large_44k_v2")
    parser.add_argument("--list", action="store_true", help="list every published file with its licence and fetch nothing")
    parser.add_argument(
        "--folder",
        type=Path,
        help="where to put the files; default: first folder of MMAUDIO_WEIGHTS, else ~/.cache/mmaudio-graph/weights",
    )
    parser.add_argument("--half", action="store_true", help="float16 copies where such are published: half the size")
    parser.add_argument("--offline", action="store_true", help="never touch the network; only say what is missing and where")
    parser.add_argument("--endpoint", help="another hub address, such as a mirror's")


def run(args: argparse.Namespace) -> int:
    """Fetches every file of the variant; prints the paths."""
    from ..weights.hub import download
    from ..weights.locate import default_folders
    from ..weights.registry import PUBLISHED, files_for

    if args.list:
        for file in PUBLISHED:
            print(f"{file.name}\n    {file.kind} {file.variant}  {file.page}  licence: {file.licence}")
        return 0
    if not args.variant:
        raise InputError("No variant was given; name one, such as large_44k_v2, or use --list.")
    folder = args.folder or default_folders()[0]
    for file in files_for(args.variant, half=args.half).values():
        log.info("%s from %s, licence: %s", file.name, file.page, file.licence)
        print(download(file, folder, offline=args.offline, endpoint=args.endpoint, progress=not args.quiet))
    return 0
