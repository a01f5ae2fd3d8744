"""``mmaudio-train check-data``: what VAE and vocoder can represent of the clips, before hours go into training on them."""

from __future__ import annotations

import argparse
import json
import logging
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mmaudio_core.cli.progress import Bars
from mmaudio_core.errors import InputError

if TYPE_CHECKING:
    from ..data.manifest import Row
    from ..data.report import Report
    from ..data.round_trip import RoundTrip, RoundTripper

HELP = "measure, clip by clip, what is lost on the way through VAE and vocoder"
SHOWN = 20
log = logging.getLogger("mmaudio")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="a .tsv or .jsonl file from mmaudio-train scan")
    parser.add_argument("--vae", type=Path, metavar="FILE", help="any file with a VAE and its encoder")
    parser.add_argument("--vocoder", type=Path, metavar="FILE", help="any file with a vocoder of the same rate")
    parser.add_argument(
        "--variant", help="instead: VAE and vocoder of a published variant, or tiny (default: the best whose files are present)"
    )
    parser.add_argument(
        "--weights",
        action="append",
        type=Path,
        metavar="DIR",
        help="folder with weights (may be repeated); default: MMAUDIO_WEIGHTS, else ~/.cache/mmaudio-graph/weights",
    )
    parser.add_argument("--split", metavar="NAME", help="only rows of this split (default: all)")
    parser.add_argument("--limit", type=int, metavar="N", help="check N files, drawn from the whole manifest, always the same")
    parser.add_argument("--duration", type=float, default=8.0, metavar="S", help="seconds of a training clip (default 8)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every clip's numbers, worst first")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: the best there is)")


def run(args: argparse.Namespace) -> int:
    """Runs ``mmaudio-train check-data``; the table goes to standard output, everything else to standard error.

    Raises:
        InputError: wrong arguments, or no clip of the manifest can be read.
    """
    from ..data.report import Report
    from ..data.round_trip import sentences, table

    if args.limit is not None and args.limit < 1:
        raise InputError(f"--limit {args.limit} was given; 1 file is the least.")
    report = Report()
    rows = chosen_rows(args.manifest, args.split, args.limit, report)
    weights, tripper = load(args)
    bars = Bars(args.quiet)
    try:
        trips = list(measure(rows, args, tripper, report, bars))
    finally:
        bars.close()
    bad = report.summary()
    if not trips:
        raise InputError(f"No clip of {args.manifest} can be checked. {bad or 'It has no row of that split'}.")
    print(table(trips, SHOWN))
    for sentence in sentences(trips):
        log.info(sentence)
    if bad:
        log.info("Left out: %s.", bad)
    if args.json is not None:
        write_json(args.json, weights, trips)
        print(args.json)
    return 0


def chosen_rows(manifest: Path, split: str | None, limit: int | None, report: Report) -> list[Row]:
    """Rows of ``split``, each piece of sound once however many captions it has; ``limit`` of them, drawn evenly.

    Raises:
        InputError: when the manifest cannot be read.
    """
    from ..data.manifest import Row, read_manifest

    chosen: list[Row] = []
    seen: set[tuple[str, float | None, float | None]] = set()
    dice = random.Random(0)
    for row in read_manifest(manifest):
        if not isinstance(row, Row):
            report.add(row)
            continue
        piece = (row.path, row.start_s, row.end_s)
        if split not in (None, row.split) or piece in seen:
            continue
        seen.add(piece)
        if limit is None or len(chosen) < limit:
            chosen.append(row)
        elif (place := dice.randrange(len(seen))) < limit:  # reservoir: every row has the same chance
            chosen[place] = row
    return sorted(chosen, key=lambda row: row.line)


def load(args: argparse.Namespace) -> tuple[dict[str, str], RoundTripper]:
    """(kind -> file, the two networks), in float32.

    Raises:
        InputError: one of --vae and --vocoder without the other, or both beside --variant.
        WeightsError: files that are missing, wrong, or of two rates.
    """
    from typing import cast

    import torch

    from mmaudio_core.autoencoder.vae import VAE
    from mmaudio_core.pipeline.device import choose_device
    from mmaudio_core.pipeline.files import EMBEDDED, find_files
    from mmaudio_core.vocoder.bigvgan import BigVGAN
    from mmaudio_core.weights.build import load_part

    from ..data.round_trip import RoundTripper

    given = [args.vae, args.vocoder]
    if any(given) and (not all(given) or args.variant or args.weights):
        raise InputError("Give --vae and --vocoder together and neither --variant nor --weights, or leave both out.")
    paths = {"vae": args.vae, "vocoder": args.vocoder}
    if not any(given):
        files = find_files(args.variant, args.weights, torch.float32)
        paths = {kind: files.paths[kind] for kind in paths}
        for note in files.notes:
            log.warning(note)
        if files.variant == EMBEDDED:
            log.warning("Its numbers show that the check works, and say nothing of your sounds.")
    device = choose_device(args.device)
    vae, _ = load_part(paths["vae"], "vae", dtype=torch.float32, device=device)
    vocoder, _ = load_part(paths["vocoder"], "vocoder", dtype=torch.float32, device=device)
    return {kind: str(path) for kind, path in paths.items()}, RoundTripper(cast(VAE, vae), cast(BigVGAN, vocoder))


def measure(
    rows: list[Row], args: argparse.Namespace, tripper: RoundTripper, report: Report, bars: Bars
) -> Iterator[RoundTrip]:
    """The round trip of every crop of ``rows``, read as extraction reads them; what cannot be read goes to ``report``."""
    from mmaudio_core.spec.timing import sequence_lengths

    from ..data.report import BadRow
    from ..extract.clips import ClipReader

    lengths = sequence_lengths(args.duration, tripper.audio)
    reader = ClipReader(args.manifest, tripper.audio, lengths, clip_size=0, sync_size=0, video=False)
    for done, row in enumerate(rows, 1):
        for clip in reader.read(row):
            if isinstance(clip, BadRow):
                report.add(clip)
                log.info("%s: %s. %s", clip.id, clip.reason, clip.detail)
            else:
                yield tripper.measure(clip.samples, clip.record.id, clip.record.path, clip.record.start_s)
        bars("check", done, len(rows))


def write_json(path: Path, weights: dict[str, str], trips: list[RoundTrip]) -> None:
    """All numbers as one JSON file, whole or not at all."""
    from mmaudio_core.media.atomic import atomic_path

    from ..data.round_trip import as_dict

    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps({"weights": weights, **as_dict(trips)}, indent=1, ensure_ascii=False), encoding="utf-8")
