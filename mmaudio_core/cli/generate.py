"""``mmaudio generate``: the main job."""

from __future__ import annotations

import argparse
import logging
import sys
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import InputError, MediaError
from ..spec.timing import SYNC_TIMINGS
from .progress import Bars

if TYPE_CHECKING:
    from ..pipeline.result import Result

HELP = "make sound for a video, an image or a text"
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
log = logging.getLogger("mmaudio")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", nargs="?", type=Path, help="a video or an image; leave out to make sound from --prompt alone")
    parser.add_argument("--output", "-o", type=Path, help="FILE.flac, .wav, or .mp4 (.mov, .mkv): the video with its new sound")
    parser.add_argument("--prompt", "-p", action="append", metavar="TEXT", help="what to hear; several give several sounds")
    parser.add_argument("--negative-prompt", default="", metavar="TEXT", help="what not to hear")
    parser.add_argument(
        "--variant",
        help="small_16k, small_44k, medium_44k, large_44k, large_44k_v2 or tiny; default: the best whose files are present",
    )
    parser.add_argument(
        "--weights",
        action="append",
        type=Path,
        metavar="PATH",
        help="folder with weights, or a file (may be repeated, the first one is preferred); default: MMAUDIO_WEIGHTS, else "
        "~/.cache/mmaudio-graph/weights",
    )
    parser.add_argument("--duration", type=float, metavar="S", help="seconds of sound; default: the whole video, or 8")
    parser.add_argument(
        "--sync-timing",
        choices=SYNC_TIMINGS,
        help="how what moves is laid over a sound that is not 8 s long: stretched as published, or steady at the pace of 8 s, "
        "which keeps the times of shorter ones and does not help longer ones; default: the network's own (published networks: "
        "stretched)",
    )
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="where in the video to begin (default 0)")
    parser.add_argument("--steps", type=int, default=25, help="Euler steps (default 25)")
    parser.add_argument("--cfg", type=float, default=4.5, help="guidance strength; 1 or less turns it off (default 4.5)")
    parser.add_argument(
        "--solver",
        choices=("euler", "midpoint", "dopri5"),
        default="euler",
        help="midpoint: two evaluations a step; dopri5: adaptive, slow, reference",
    )
    parser.add_argument("--tolerance", type=float, default=1e-7, help="of dopri5, relative (default 1e-7, as published)")
    parser.add_argument("--seed", type=int, default=0, help="one seed, one sound, on any device (default 0)")
    parser.add_argument("--count", type=int, default=1, help="takes per prompt, with seeds SEED, SEED+1, ... (default 1)")
    parser.add_argument("--batch-size", type=int, default=4, help="takes that go through the network together (default 4)")
    parser.add_argument(
        "--original-audio",
        choices=("replace", "keep"),
        default="replace",
        help="for video output: drop the video's own sound, or keep it as a second track (default replace)",
    )
    add_computing_arguments(parser.add_argument_group("computing", "where, in which number formats, and with how much memory"))


def add_computing_arguments(parser: argparse._ArgumentGroup) -> None:
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: the best there is)")
    parser.add_argument("--dtype", default="auto", help="float32, float16, bfloat16 (default: by device)")
    parser.add_argument(
        "--stage-dtype",
        action="append",
        default=[],
        metavar="STAGE=DTYPE",
        help="another dtype for one stage: clip, synchformer, flow, vae or vocoder (may be repeated), e.g. vocoder=float32",
    )
    parser.add_argument(
        "--weights-storage",
        choices=("fp8",),
        help="fp8: keep the large weights of CLIP, Synchformer and flow network in 8 bits; less memory, less exact, not faster",
    )
    parser.add_argument(
        "--memory",
        default="auto",
        metavar="auto|resident|staged|chunked|N",
        help="auto: each part goes when its stage is done, in smaller pieces where memory is short; resident: all parts stay; "
        "staged: parts go, pieces as usual; chunked: the least memory; N: a limit in GB beside the CUDA context (default auto)",
    )
    parser.add_argument(
        "--kernels",
        default="auto",
        help="auto, plain (the reference, slow), torch, triton, cuda or compile; the result differs by rounding (default auto)",
    )
    parser.add_argument("--attention", default="auto", metavar="NAME", help="auto, sdpa, flash2 ...; see mmaudio bench (auto)")
    parser.add_argument("--no-graphs", action="store_true", help="no CUDA graphs")
    parser.add_argument(
        "--published-time-features",
        action="store_true",
        help="in half precision, round the time as the published program does (it moves large_44k_v2's time features by 67 %%)",
    )


def run(args: argparse.Namespace) -> int:
    """Runs ``mmaudio generate``; paths of what was written go to standard output, everything else to standard error."""
    is_image = args.input is not None and args.input.suffix.lower() in IMAGE_ENDINGS
    video = None if is_image else args.input
    if args.input is None and not args.prompt:
        raise InputError("Neither a video, an image nor --prompt was given; give at least one of them.")
    output = args.output or default_output(args.input, is_image)

    from ..pipeline.accelerate import Speed
    from ..pipeline.model import load
    from ..pipeline.plan import parse_memory
    from ..pipeline.precision import parse_stage_dtypes
    from ..pipeline.result import check_target
    from ..pipeline.sample import SampleSettings

    check_target(output, video, args.original_audio)
    settings = SampleSettings(args.steps, args.cfg, args.solver, args.batch_size, args.tolerance)
    speed = Speed(args.kernels, args.attention, False if args.no_graphs else None)
    bars = Bars(args.quiet)
    try:
        model = load(
            args.variant,
            args.weights,
            args.device,
            args.dtype,
            progress=bars,
            keep_parts=args.memory == "resident",  # a command needs each part once
            memory=parse_memory(args.memory),
            stage_dtypes=parse_stage_dtypes(args.stage_dtype),
            weights_storage=args.weights_storage,
            published_time_features=args.published_time_features,
            speed=speed,
        )
        result = model.generate(
            video,
            args.prompt or "",
            image=args.input if is_image else None,
            negative_prompt=args.negative_prompt,
            duration_s=args.duration,
            start_s=args.start,
            seed=args.seed,
            count=args.count,
            settings=settings,
            sync_timing=args.sync_timing,
        )
        paths = save(result, output, args.original_audio)
    finally:
        bars.close()
    if not args.quiet:
        print(result.report.table(), file=sys.stderr)
        log.info("%.3f s of sound at %d Hz, variant %s:", result.duration_s, result.audio.sample_rate_hz, result.variant)
    for path in paths:
        print(path)
    return 0


def save(result: Result, output: Path, original_audio: Literal["replace", "keep"]) -> list[Path]:
    """Saves ``result``; where that fails, the sound is kept beside it, since minutes may have gone into it.

    Raises:
        MediaError: what went wrong, and where the sound is.
    """
    from ..pipeline.result import AUDIO_ENDINGS

    try:
        return result.save(output, original_audio=original_audio)
    except MediaError as error:
        is_sound = output.suffix.lower() in AUDIO_ENDINGS
        kept = result.save(_unused(result, output if is_sound else output.with_suffix(AUDIO_ENDINGS[0])))
        raise MediaError(f"{error} The sound was saved as {', '.join(map(str, kept))}.") from error


def _unused(result: Result, path: Path) -> Path:
    """``path``, changed where a take's file is there already: it may be the one that cannot be replaced."""
    others = (path.with_stem(f"{path.stem}_new{number}") for number in count(1))
    return next(other for other in chain((path,), others) if not any(take.exists() for take in result.paths(other)))


def default_output(source: Path | None, is_image: bool) -> Path:
    """Beside nothing but in the current folder: ``NAME_sound.mp4`` for a video, ``NAME_sound.flac`` otherwise."""
    if source is None:
        return Path("sound.flac")
    return Path(f"{source.stem}_sound{'.flac' if is_image else '.mp4'}")
