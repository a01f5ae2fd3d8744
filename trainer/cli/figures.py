"""``mmaudio-train figures``: the pictures of the proving ground's page."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TypeVar

from mmaudio_core.errors import InputError

from .score import add_weights, load_model

T = TypeVar("T", list, dict)
HELP = "draw a clip with its sounds, and what curves and ablate have measured"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--output", "-o", required=True, type=Path, metavar="DIR", help="folder of the pictures; made if missing"
    )
    parser.add_argument("--curves", type=Path, metavar="FILE", help="what curves --json wrote; without it no curves are drawn")
    parser.add_argument("--ablations", type=Path, metavar="FILE", help="what ablate --json wrote; the same")
    add_weights(parser)
    parser.add_argument("--clip", type=int, metavar="SEED", help="the clip that is shown")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: the best there is)")


def run(args: argparse.Namespace) -> int:
    """Runs ``mmaudio-train figures``; the pictures' paths go to standard output.

    Raises:
        InputError: a file of curves or ablations that is none.
        WeightsError: weights that are missing or wrong.
        DependencyError: without matplotlib.
    """
    from ..prove.figures import SHOWN_SEED, ablations_figure, clip_figure, curves_figure

    rows = None if args.curves is None else read_rows(args.curves, "curves", list)
    ablations = None if args.ablations is None else read_rows(args.ablations, "ablate", dict)
    args.output.mkdir(parents=True, exist_ok=True)
    if rows is not None:
        print(curves_figure(rows, args.output / "curves.png"))
    if ablations is not None:
        print(ablations_figure(ablations, args.output / "ablations.png"))
    model = load_model(args.weights, args.device)
    print(clip_figure(model, args.output / "clip.png", SHOWN_SEED if args.clip is None else args.clip))
    return 0


def read_rows(path: Path, command: str, kind: type[T]) -> T:
    """The rows of a file that ``mmaudio-train curves`` (a list) or ``ablate`` (a dictionary) wrote.

    Raises:
        InputError: for any other file.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        if not isinstance(rows, kind):
            raise TypeError(f"its rows are a {type(rows).__name__}")
        return rows
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no file of that kind ({error}); give what mmaudio-train {command} --json wrote."
        ) from error
