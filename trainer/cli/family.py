"""``mmaudio-train family``: encoders, VAE and vocoder in one file, with a flow network that is still to be trained."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

HELP = "join trained parts in one file with a flow network that is not trained yet, for extract to begin with"
log = logging.getLogger("mmaudio")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "parts", nargs="+", type=Path, metavar="FILE", help="files with a VAE, vocoder, Synchformer, CLIP model"
    )
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE", help="the .safetensors file to write")
    parser.add_argument(
        "--flow", required=True, metavar="CONFIG", help="the configuration of mmaudio-train run whose network will be trained"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the file if it exists")


def run(args: argparse.Namespace) -> int:
    """Runs ``mmaudio-train family``; extract then takes ``--weights FILE``.

    Raises:
        InputError, WeightsError: a file that is missing or no part, or a configuration that is none.
    """
    from mmaudio_core.errors import InputError

    from ..config.checks import spec_of
    from ..config.load import load_run_config
    from ..export.join import join

    spec = spec_of(load_run_config(args.flow).model)
    if spec is None:
        raise InputError(
            f"The configuration {args.flow} takes its network from a file (model.base); one with a variant is needed."
        )
    kinds = join(args.parts, args.output, spec, args.overwrite)
    log.info("%s holds %s.", args.output, ", ".join(kinds))
    print(args.output)
    return 0
