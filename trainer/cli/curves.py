"""``mmaudio-train curves``: how guidance, steps and solver change what is measured on the small world."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mmaudio_core.cli.progress import Bars
from mmaudio_core.errors import InputError

from .score import COLUMNS, add_weights, find_classifier, load_model, write_json

HELP = "measure on the small world what guidance, steps and solver change"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_weights(parser)
    parser.add_argument("--clips", type=int, default=48, metavar="N", help="held-out clips (default 48)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="first clip, and noise of the model (default 0)")
    parser.add_argument(
        "--guidance", "--cfg", type=float, default=4.5, help="guidance where it does not vary (default 4.5, as published)"
    )
    parser.add_argument("--no-dopri5", action="store_true", help="without the adaptive solver, which takes most of the time")
    parser.add_argument("--classifier", type=Path, metavar="FILE", help="of materials, as for score")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: the best there is)")


def run(args: argparse.Namespace) -> int:
    """Runs ``mmaudio-train curves``; the table goes to standard output, everything else to standard error.

    Raises:
        InputError: wrong arguments.
        WeightsError: weights that are missing or wrong.
    """
    from ..prove.curves import SOLVERS, curves, points

    if args.json is not None and not args.json.resolve().parent.is_dir():
        raise InputError(f"The folder of {args.json} does not exist; create it or choose another file.")
    wanted = points(args.guidance, SOLVERS[:-1] if args.no_dopri5 else SOLVERS)
    model, bars = load_model(args.weights, args.device), Bars(args.quiet)
    try:
        classifier = find_classifier(args.classifier, bars)
        rows = curves(model, classifier, wanted, args.clips, args.seed, lambda done, total: bars("curves", done, total))
    finally:
        bars.close()
    print(table(rows))
    if args.json is not None:
        write_json(args.json, {"clips": args.clips, "seed": args.seed, "rows": rows})
        print(args.json)
    return 0


def table(rows: list[dict[str, Any]]) -> str:
    """One measurement a row."""
    head = f"{'curve':<10}{'solver':<10}{'steps':>6}{'guidance':>10}"
    lines = [head + "".join(f"{title:>10}" for title, _ in COLUMNS)]
    for row in rows:
        said = f"{row['curve']:<10}{row['solver']:<10}{row['steps']:>6}{row['cfg_strength']:>10.1f}"
        lines.append(said + "".join(f"{row[key]:10.3f}" for _, key in COLUMNS))
    return "\n".join(lines)
