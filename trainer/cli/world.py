"""``mmaudio-train world``: clips of the small procedural world, with manifest and exact event times."""

from __future__ import annotations

import argparse
import logging
import os
from pathlib import Path

from mmaudio_core.cli.progress import Bars

HELP = "make clips of a small procedural world: pictures, sound, words, and exact event times"
log = logging.getLogger("mmaudio")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="where they go, with data.tsv (manifest) and events.jsonl (truth)"
    )
    parser.add_argument("--clips", type=int, default=100, metavar="N", help="videos with sound to train on (default 100)")
    parser.add_argument(
        "--sounds", type=int, default=0, metavar="N", help="recordings without pictures to train on (default 0)"
    )
    parser.add_argument("--val", type=int, default=0, metavar="N", help="videos of held-out seeds, split val (default 0)")
    parser.add_argument("--test", type=int, default=0, metavar="N", help="further ones, split test (default 0)")
    parser.add_argument("--silent", type=int, default=0, metavar="N", help="videos without sound, in no manifest (default 0)")
    parser.add_argument("--stills", type=int, default=0, metavar="N", help="single pictures, in no manifest (default 0)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default 0)")
    parser.add_argument("--rate", type=int, default=16_000, metavar="HZ", help="sample rate (default 16000; 44100)")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: all processors)"
    )


def run(args: argparse.Namespace) -> int:
    """Runs ``mmaudio-train world``; the manifest's path goes to standard output.

    Raises:
        InputError: numbers that make no world, or a folder that holds another one.
    """
    from ..world.files import MANIFEST, WorldFiles, jobs_of, world_hash, write_world

    given = WorldFiles(args.clips, args.sounds, args.val, args.test, args.silent, args.stills, args.seed, args.rate)
    total = len(jobs_of(given))
    bars = Bars(args.quiet)
    try:
        for done in write_world(args.folder, given, args.workers):
            bars("world", done, total)
    finally:
        bars.close()
    log.info("%d files; truth and sounds have the hash %s.", total, world_hash(args.folder)[:16])
    print(args.folder / MANIFEST)
    return 0
