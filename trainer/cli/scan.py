"""``mmaudio-train scan``: a manifest of what there is to train on."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from mmaudio_core.cli.progress import Bars
from mmaudio_core.errors import InputError

if TYPE_CHECKING:
    from ..data.layouts import Items
    from ..data.manifest import Row
    from ..data.report import Report
    from ..data.scan import ScanSettings, Tally

HELP = "list videos and recordings in a manifest, and what is wrong with the others in a report"
LAYOUTS = ("folder", "vggsound", "audiocaps", "clotho", "wavcaps")
WITH_VIDEO, WITH_CAPTION = ("vggsound",), ("audiocaps", "clotho", "wavcaps")
"""Layouts whose clips are of no use without pictures, or without text."""
log = logging.getLogger("mmaudio")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, metavar="SOURCE", help="a folder of media files, or the data set's CSV or JSON")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="FILE", help="the manifest: FILE.tsv or FILE.jsonl")
    parser.add_argument("--layout", choices=LAYOUTS, default="folder", help="how SOURCE names its clips (default folder)")
    parser.add_argument("--media", type=Path, metavar="DIR", help="where the list's files lie (default: the list's own folder)")
    parser.add_argument(
        "--captions",
        choices=("txt", "json", "folder", "none"),
        help='for a folder: from NAME.txt, from {"caption": ...} in NAME.json, from the folder\'s name, or none (default txt)',
    )
    parser.add_argument("--split", metavar="NAME", help="the split of all rows (default: the list's own, else train)")
    parser.add_argument(
        "--split-fraction",
        action="append",
        default=[],
        metavar="NAME=SHARE",
        help="move a share of the train rows to another split, by a hash of the id, e.g. val=0.05 (may be repeated)",
    )
    parser.add_argument(
        "--exclude",
        action="append",
        nargs="+",
        type=Path,
        default=[],
        metavar="IDS.txt",
        help="lists of ids, one a line, that must not be in the manifest: your test sets (may be repeated)",
    )
    parser.add_argument("--report", type=Path, metavar="FILE", help="bad rows with reasons (default: beside it, .bad.jsonl)")
    parser.add_argument("--deep", action="store_true", help="decode every sound, to find silent and cut-off files; slower")
    parser.add_argument("--need-video", action="store_true", help="refuse clips without pictures (as vggsound does)")
    parser.add_argument(
        "--need-caption", action="store_true", help="refuse clips without text (as audiocaps, clotho, wavcaps do)"
    )
    parser.add_argument("--duration", type=float, default=8.0, metavar="S", help="seconds of a training clip (default 8)")
    parser.add_argument("--workers", type=int, metavar="N", help="threads that open files (default: twice the processors)")


def run(args: argparse.Namespace) -> int:
    """Runs ``mmaudio-train scan``; the manifest's path goes to standard output, everything else to standard error.

    Raises:
        InputError: wrong arguments, a list of another layout, or no usable row at all (the report is written all the same).
    """
    from ..data.report import report_to
    from ..data.scan import Tally

    settings, items = settings_of(args), items_of(args)
    report_file = args.report or args.output.with_suffix(".bad.jsonl")
    tally = Tally(settings.duration_s)
    bars = Bars(args.quiet)
    try:
        with report_to(report_file) as report:
            written = _write(items, settings, report, tally, bars)
    finally:
        bars.close()
    bad = report.summary()
    if not written:
        raise InputError(f"{args.source} gives no row that can be trained on. {bad or 'Nothing was found'}; see {report_file}.")
    log.info("%s.", tally.summary())
    if bad:
        log.info("%s; see %s.", bad, report_file)
    print(args.output)
    return 0


def _write(items: Items, settings: ScanSettings, report: Report, tally: Tally, bars: Bars) -> int:
    from ..data.manifest import write_manifest
    from ..data.scan import scan

    def rows() -> Iterator[Row]:
        for good in scan(items, settings, report, lambda looked: bars("scan", looked, 0)):
            tally.add(good)
            yield good.row

    found = rows()
    first = next(found, None)  # a manifest of nothing is not written
    return 0 if first is None else write_manifest(chain((first,), found), settings.manifest)


def settings_of(args: argparse.Namespace) -> ScanSettings:
    """The arguments as checked settings.

    Raises:
        InputError: a number out of range, or a share that is none.
    """
    from mmaudio_core.media.in_order import usable_cpus
    from mmaudio_core.spec.timing import check_duration

    from ..data.guard import Guard
    from ..data.manifest import ENDINGS
    from ..data.scan import ScanSettings, check_fractions

    if args.output.suffix.lower() not in ENDINGS:
        raise InputError(f"A manifest ends in {' or '.join(ENDINGS)}; {args.output.name} was given.")
    workers = 2 * usable_cpus() if args.workers is None else args.workers
    if workers < 0:
        raise InputError(f"--workers {workers} was given; 0 is the least, and opens the files one after the other.")
    return ScanSettings(
        manifest=args.output,
        duration_s=check_duration(args.duration),
        deep=args.deep,
        need_video=args.need_video or args.layout in WITH_VIDEO,
        need_caption=args.need_caption or args.layout in WITH_CAPTION,
        fractions=check_fractions(dict(map(_share, args.split_fraction))),
        guard=Guard.from_files(chain.from_iterable(args.exclude)),
        workers=workers,
    )


def items_of(args: argparse.Namespace) -> Items:
    """What the chosen layout makes of SOURCE.

    Raises:
        InputError: an argument that the layout has no use for; what is wrong with SOURCE comes with the first item.
    """
    from ..data import layouts

    if args.layout == "folder":
        if args.media is not None:
            raise InputError("--media is for lists; with --layout folder SOURCE itself is the folder of the files.")
        return layouts.folder(args.source, args.captions or "txt", args.split or "train")
    if args.captions is not None:
        raise InputError(f"--captions is for folders; the layout {args.layout} has its captions in the list.")
    media = args.media or args.source.parent
    if not media.is_dir():
        raise InputError(f"There is no folder {media}; --media must name the folder of the list's files.")
    read = {"vggsound": layouts.vggsound, "audiocaps": layouts.audiocaps, "clotho": layouts.clotho, "wavcaps": layouts.wavcaps}
    return read[args.layout](args.source, media, args.split)


def _share(text: str) -> tuple[str, float]:
    name, _, share = text.partition("=")
    try:
        return name, float(share)
    except ValueError:
        raise InputError(f"--split-fraction {text} was given; NAME=SHARE is needed, such as val=0.05.") from None
