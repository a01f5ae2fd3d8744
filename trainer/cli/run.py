"""``mmaudio-train run``: training of the flow network."""

from __future__ import annotations

import argparse

from ..config.load import load_run_config, preset_names

HELP = "train the flow network, or a LoRA beside it, on shards; goes on where an earlier run of the folder ended"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "config",
        metavar="CONFIG",
        help=f"a TOML file, the folder of a run, or one of ours: {', '.join(preset_names())}",
    )
    parser.add_argument(
        "--set",
        action="append",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        dest="changes",
        help="a value in place of the file's, such as train.steps=1000 (several, and may be repeated)",
    )
    parser.add_argument("--show", action="store_true", help="print the whole configuration as it would be used, and end")


def run(args: argparse.Namespace) -> int:
    """Runs ``mmaudio-train run``; with several GPUs or machines every process of torchrun does."""
    config = load_run_config(args.config, [change for group in args.changes for change in group])
    if args.show:
        from ..config.tables import dump_toml, to_table

        print(dump_toml(to_table(config)), end="")
        return 0

    from ..flow.loop import train

    return train(config, args.quiet)
