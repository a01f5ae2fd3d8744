"""The command ``mmaudio-train``: arguments in, exit code out. Nothing heavy is imported before a subcommand runs.

Exit codes are those of ``mmaudio``: 0 done; 1 an error of ours; 2 wrong arguments; 3 media; 4 weights; 5 downloads; 6 a package
missing or broken; 130 interrupted; 143 terminated.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmaudio_core.cli import command_parser, run_command

COMMANDS: tuple[str, ...] = (
    "scan",
    "check_data",
    "extract",
    "run",
    "export",
    "family",
    "merge",
    "prove",
    "ablate",
    "vae",
    "vocoder",
    "clip",
    "sync",
    "world",
    "score",
    "curves",
    "figures",
)
"""Modules of this folder, each a subcommand with HELP, add_arguments(parser), run(args); "check_data" is ``check-data``."""


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``mmaudio-train`` with every subcommand."""
    words = "Trains MMAudio's networks on your own videos and recordings (arXiv 2412.15322)."
    return command_parser("mmaudio-train", words, __name__, COMMANDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line ``argv`` (default ``sys.argv``) and returns its exit code."""
    return run_command("mmaudio-train", build_parser().parse_args(argv))
