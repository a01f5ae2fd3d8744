"""``mmaudio-train extract``: media to shards of latents and features."""

from __future__ import annotations

import argparse
import logging
import os
import time
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from mmaudio_core.cli.progress import Bars
from mmaudio_core.errors import InputError

if TYPE_CHECKING:
    from ..extract.encoders import Encoders
    from ..extract.run import Done, Task
    from ..extract.settings import ExtractSettings, Ranks

HELP = "encode the media of a manifest once, into shards that training reads"
log = logging.getLogger("mmaudio")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", type=Path, metavar="MANIFEST", help="a .tsv or .jsonl file from mmaudio-train scan")
    parser.add_argument("--output", "-o", type=Path, required=True, metavar="DIR", help="folder of the shards; begun or new")
    parser.add_argument("--split", default="train", metavar="NAME", help="rows to take; all takes every one (default train)")
    parser.add_argument("--duration", type=float, default=8.0, metavar="S", help="seconds of a clip (default 8)")
    parser.add_argument(
        "--rows-per-shard", type=int, default=64, metavar="N", help="rows of the manifest per shard (default 64)"
    )
    parser.add_argument(
        "--exclude",
        action="append",
        nargs="+",
        type=Path,
        default=[],
        metavar="IDS.txt",
        help="lists of ids, one a line, that must not enter: your test sets (may be repeated)",
    )
    parser.add_argument("--without-video", action="store_true", help="no CLIP and Synchformer features of pictures")
    parser.add_argument("--without-text", action="store_true", help="no features of captions")
    parser.add_argument("--latents-only", action="store_true", help="neither: the latents of the sound alone")
    parser.add_argument(
        "--variant",
        help="the encoders of small_16k, small_44k, medium_44k, large_44k, large_44k_v2 or tiny; "
        "default: of the best whose files are present",
    )
    parser.add_argument(
        "--weights",
        action="append",
        type=Path,
        metavar="DIR",
        help="folder with weights (may be repeated); default: MMAUDIO_WEIGHTS, else ~/.cache/mmaudio-graph/weights",
    )
    computing = parser.add_argument_group("computing", "with how much at once, where, and in which number format")
    computing.add_argument("--batch-size", type=int, default=8, metavar="N", help="clips encoded together (default 8)")
    computing.add_argument("--workers", type=int, metavar="N", help="files read together (default: processors, 8 at most)")
    computing.add_argument(
        "--device", default="auto", help="cpu, cuda, cuda:1, mps (default: the best; torchrun: one per rank)"
    )
    computing.add_argument("--dtype", default="auto", help="of CLIP and Synchformer: float32, float16, bfloat16 (by device)")


def run(args: argparse.Namespace) -> int:
    """Runs ``mmaudio-train extract``; the index's path goes to standard output, everything else to standard error.

    Raises:
        InputError: wrong arguments, or a folder that was begun with other ones.
    """
    from ..data.guard import Guard
    from ..extract.clips import ClipReader
    from ..extract.run import Task, extract
    from ..extract.settings import ExtractSettings, Ranks

    for name in ("batch_size", "rows_per_shard"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name)} was given; it must be 1 or more.")
    video, text = not (args.without_video or args.latents_only), not (args.without_text or args.latents_only)
    settings = ExtractSettings(args.duration, args.rows_per_shard, args.split, video, text)
    excluded = tuple(chain.from_iterable(args.exclude))
    guard = Guard.from_files(excluded)
    ranks = Ranks.from_environment(os.environ)
    task = Task(args.manifest, args.output, settings, excluded, args.batch_size, _workers(args.workers))
    encoders = _encoders(args, settings, ranks)
    reader = ClipReader(
        args.manifest,
        encoders.audio,
        encoders.lengths,
        encoders.clip_size,
        encoders.sync_size,
        video,
        guard,
        workers=0 if task.workers > 1 else None,
    )
    bars = Bars(args.quiet or ranks.rank > 0)
    began = time.perf_counter()
    try:
        done = extract(task, encoders, reader, ranks, lambda rows, total: bars("extract", rows, total))
    finally:
        bars.close()
    _tell(done, task, ranks, time.perf_counter() - began)
    return 0


def _workers(wish: int | None) -> int:
    from mmaudio_core.media.in_order import usable_cpus

    if wish is not None and wish < 0:
        raise InputError(f"--workers {wish} was given; 0 is the least, and reads the files one after the other.")
    return min(8, usable_cpus()) if wish is None else wish


def _encoders(args: argparse.Namespace, settings: ExtractSettings, ranks: Ranks) -> Encoders:
    import torch

    from mmaudio_core.pipeline.device import choose_device, choose_dtype
    from mmaudio_core.pipeline.files import find_files

    from ..extract.encoders import Encoders

    wish = args.device
    if wish in ("auto", "cuda") and ranks.world > 1 and torch.cuda.is_available():
        wish = f"cuda:{int(os.environ.get('LOCAL_RANK', 0)) % torch.cuda.device_count()}"
    device = choose_device(wish)
    dtype = choose_dtype(args.dtype, device)
    files = find_files(args.variant, args.weights, dtype)
    for note in files.notes if ranks.rank == 0 else ():
        log.warning(note)
    encoders = Encoders(files, device, dtype, settings)
    if ranks.rank == 0:
        precision = str(dtype).removeprefix("torch.")
        log.info("Encoders of %s on %s in %s, sound of %s.", files.variant, device, precision, encoders.audio.name)
    return encoders


def _tell(done: Done, task: Task, ranks: Ranks, seconds: float) -> None:
    who = f"Rank {ranks.rank}: " if ranks.world > 1 else ""
    count = done.samples.total()
    if count or done.bad:
        left_out = ", ".join(f"{number} {reason}" for reason, number in sorted(done.bad.items()))
        log.info(
            "%s%d samples (%d with video, %d sound alone) in %.0f s, %.1f s of sound per second%s.",
            who,
            count,
            done.samples["av"],
            done.samples["at"],
            seconds,
            count * task.settings.duration_s / seconds,
            f"; left out: {left_out}" if left_out else "",
        )
    else:
        log.info("%sNothing was left to do.", who)
    if done.index is None:
        log.info("%sShards of other ranks are still missing; the last one to finish writes the index.", who)
    else:
        print(done.index)
