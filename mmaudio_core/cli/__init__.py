"""The command ``mmaudio``: arguments in, exit code out. Nothing heavy is imported before a subcommand runs.

Exit codes: 0 done; 1 an error of ours (please report it); 2 wrong arguments; 3 a video, image or sound that cannot be read
or written; 4 weights missing or wrong; 5 a download that failed; 6 a package missing or broken; 130 interrupted.
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from ..errors import DependencyError, DownloadError, MediaError, MMAudioError, WeightsError
from ..version import __version__

COMMANDS = ("generate", "convert", "inspect", "download", "bench")
EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (MediaError, 3),
    (WeightsError, 4),
    (DownloadError, 5),
    (DependencyError, 6),
    (MMAudioError, 2),
)
INTERRUPTED, TERMINATED, OURS = 130, 143, 1


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``mmaudio`` with every subcommand."""
    words = "Sound for silent video, from images or from text (MMAudio, arXiv 2412.15322)."
    return command_parser("mmaudio", words, __name__, COMMANDS)


def command_parser(program: str, description: str, package: str, names: Sequence[str]) -> argparse.ArgumentParser:
    """A parser with a subcommand for each module ``names`` of ``package``, which has HELP, add_arguments(parser) and run(args).

    An underscore in a module's name is a hyphen in the command's.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog="Exit codes: 0 done, 1 our error, 2 wrong arguments, 3 media, 4 weights, 5 download, 6 packages, 130 stopped.",
    )
    parser.add_argument("--version", action="version", version=f"mmaudio-graph {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in names:
        module = import_module(f".{name}", package)
        sub = commands.add_parser(name.replace("_", "-"), help=module.HELP, description=module.HELP)
        module.add_arguments(sub)
        sub.add_argument("--quiet", action="store_true", help="only errors, no progress and no table")
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line ``argv`` (default ``sys.argv``) and returns its exit code."""
    return run_command("mmaudio", build_parser().parse_args(argv))


def run_command(program: str, args: argparse.Namespace) -> int:
    """``args.run(args)`` under the rules of this command line: log to standard error, errors as one sentence, exit codes.

    args: with ``run``, ``quiet`` and ``debug``.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    log = logging.getLogger("mmaudio")
    log.addHandler(handler)
    level = log.level
    log.setLevel(logging.ERROR if args.quiet else logging.INFO)
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        return args.run(args) or 0
    except KeyboardInterrupt:
        _say("Interrupted; no half-written file remains.")
        return INTERRUPTED
    except MMAudioError as error:
        if args.debug:
            raise
        _say(f"{program}: {error}")
        return next(code for kind, code in EXIT_CODES if isinstance(error, kind))
    except Exception as error:
        if args.debug:
            raise
        _say(f"{program}: unexpected {type(error).__name__}: {error}\nRun again with --debug and report it, please.")
        return OURS
    finally:
        signal.signal(signal.SIGTERM, previous)
        log.removeHandler(handler)
        log.setLevel(level)


def _terminate(signum: int, frame: Any) -> None:
    # An exception rather than a sudden end, so that temporary files are removed on the way out.
    raise SystemExit(TERMINATED)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
