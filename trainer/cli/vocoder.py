"""``mmaudio-train vocoder``: the vocoder from recordings."""

from __future__ import annotations

import argparse

HELP = "train the BigVGAN vocoder on recordings and videos' sound"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config", metavar="CONFIG", help="a TOML file, a run's folder, or vocoder_44k, vocoder_16k, vocoder_smoke"
    )
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="change one value; repeatable")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in train.folder, if there is one")


def run(args: argparse.Namespace) -> int:
    """Runs ``mmaudio-train vocoder``; returns 143 or 130 when it was asked to stop and saved."""
    from ..adversarial.config import VocoderConfig, load
    from ..adversarial.loop import train

    return train(load(VocoderConfig, args.config, args.set), args.resume, args.quiet)
