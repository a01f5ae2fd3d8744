"""``mmaudio-train sync``: the visual tower of a Synchformer from videos with sound."""

from __future__ import annotations

import argparse

HELP = "train the visual tower of a Synchformer on videos with sound"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="a TOML file, a run's folder, or sync_world")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one value; repeatable")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in train.folder, if there is one")


def run(args: argparse.Namespace) -> int:
    """Runs ``mmaudio-train sync``; returns 143 or 130 when it was asked to stop and saved."""
    from ..contrastive.config import SyncConfig, load
    from ..contrastive.loop import train

    return train(load(SyncConfig, args.config, args.set), args.resume, args.quiet)
