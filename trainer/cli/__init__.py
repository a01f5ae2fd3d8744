"""The command ``mmaudio-train``: arguments in, exit code out. Nothing heavy is imported before a subcommand runs.

Exit codes are those of ``mmaudio``: 0 done; 1 an error of ours; 2 wrong arguments; 3 media; 4 weights; 5 downloads; 6 a package
missing or broken; 130 interrupted; 143 terminated.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

from mmaudio_core.cli import run_command
from mmaudio_core.version import __version__

COMMANDS: tuple[str, ...] = ("scan", "check_data", "extract", "run", "export", "merge", "vae", "vocoder")
"""Modules of this folder, each a subcommand with HELP, add_arguments(parser), run(args); "check_data" is ``check-data``."""


def build_parser() -> argparse.ArgumentParser:
    """The parser with every subcommand; each module of ``COMMANDS`` adds its own arguments."""
    parser = argparse.ArgumentParser(
        prog="mmaudio-train",
        description="Trains MMAudio's networks on your own videos and recordings (arXiv 2412.15322).",
        epilog="Exit codes: 0 done, 1 our error, 2 wrong arguments, 3 media, 4 weights, 5 download, 6 packages, 130 stopped.",
    )
    parser.add_argument("--version", action="version", version=f"mmaudio-graph {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in COMMANDS:
        module = import_module(f".{name}", __name__)
        sub = commands.add_parser(name.replace("_", "-"), help=module.HELP, description=module.HELP)
        module.add_arguments(sub)
        sub.add_argument("--quiet", action="store_true", help="only errors and results, no progress")
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line ``argv`` (default ``sys.argv``) and returns its exit code."""
    return run_command("mmaudio-train", build_parser().parse_args(argv))
