"""``mmaudio-train ablate``: the paper's ablations on the small world, each row trained alike with several seeds."""

from __future__ import annotations

import argparse
from pathlib import Path

from mmaudio_core.cli.progress import Bars
from mmaudio_core.errors import InputError

from .score import write_json

HELP = "train and score the paper's ablations on the features of a recipe"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="of mmaudio-train prove: its features and encoders are used")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these (default: all; an unknown one lists them)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S", help="of the trainings (default 0 1 2)")
    parser.add_argument("--steps", type=int, default=1000, metavar="N", help="of each training (default 1000)")
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="samples of each step (default 8)")
    parser.add_argument("--clips", type=int, default=100, metavar="N", help="held-out clips that are scored (default 100)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="trainings at once (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")


def run(args: argparse.Namespace) -> int:
    """Runs ``mmaudio-train ablate``; a Markdown table goes to standard output.

    Raises:
        InputError: an unknown row, a folder without features, or one whose rows were begun with other settings.
        StageError: a training or a score failed.
    """
    from ..prove.ablations import ROWS, collected, markdown, stages_of_rows
    from ..prove.run import run_stages
    from ..prove.stages import ENCODERS

    rows, seeds = list(dict.fromkeys(args.rows or ROWS)), list(dict.fromkeys(args.seeds))
    stages = stages_of_rows(rows, seeds, args.steps, args.batch, args.clips)
    if args.workers < 1:
        raise InputError(f"{args.workers} workers were asked for; 1 or more is needed.")
    for needed in (ENCODERS, "shards/train/index.json", "shards/val/index.json"):
        if not (args.folder / needed).is_file():
            raise InputError(f"{args.folder} has no {needed}; make it with: mmaudio-train prove {args.folder}")
    bars = Bars(args.quiet)
    try:
        run_stages(stages, args.folder, args.workers, lambda done, total: bars("ablate", done, total))
    finally:
        bars.close()
    found = collected(args.folder, rows, seeds)
    print(markdown(found))
    if args.json is not None:
        write_json(args.json, {"steps": args.steps, "batch": args.batch, "clips": args.clips, "seeds": seeds, "rows": found})
        print(args.json)
    return 0
