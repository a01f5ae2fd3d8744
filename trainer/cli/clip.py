"""``mmaudio-train clip``: a CLIP from videos and captions."""

from __future__ import annotations

import argparse

HELP = "train a CLIP on videos and captions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="a TOML file, a run's folder, or clip_world")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one value; repeatable")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in train.folder, if there is one")


def run(args: argparse.Namespace) -> int:
    """Runs ``mmaudio-train clip``; returns 143 or 130 when it was asked to stop and saved."""
    from ..contrastive.config import ClipConfig, load
    from ..contrastive.loop import train

    return train(load(ClipConfig, args.config, args.set), args.resume, args.quiet)
