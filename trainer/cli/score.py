"""``mmaudio-train score``: how well a model's sounds fit held-out clips of the small world."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmaudio_core.cli.progress import Bars
from mmaudio_core.errors import InputError
from mmaudio_core.spec.timing import SYNC_TIMINGS

if TYPE_CHECKING:
    from mmaudio_core.pipeline.model import MMAudio

    from ..data.round_trip import RoundTripper
    from ..score.classifier import Classifier
    from ..score.lines import Wishes

HELP = "measure on the small world whether the sound falls on the event, and is the right one"
COLUMNS = (
    ("F1 50 ms", "onset_f1_50ms"),
    ("F1", "onset_f1"),
    ("count", "onset_count_match"),
    ("AP", "onset_ap"),
    ("material", "material_accuracy"),
    ("Frechet", "frechet_distance"),
    ("KL", "kl"),
    ("loudness", "loudness_correlation"),
)
log = logging.getLogger("mmaudio")


def add_weights(parser: argparse.ArgumentParser) -> None:
    """The option that ``load_model`` is given, here and in other commands."""
    parser.add_argument(
        "--weights",
        action="append",
        type=Path,
        metavar="PATH",
        help="a file, or a folder with weights (may be repeated); default: the embedded model",
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_weights(parser)
    parser.add_argument("--clips", type=int, default=200, metavar="N", help="held-out clips (default 200)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="first clip, and noise of the model (default 0)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers, line by line")
    parser.add_argument("--steps", type=int, default=25, help="Euler steps (default 25)")
    parser.add_argument(
        "--guidance", "--cfg", type=float, default=4.5, help="guidance strength; 1 or less turns it off (default 4.5)"
    )
    parser.add_argument(
        "--solver", choices=("euler", "midpoint", "dopri5"), default="euler", help="dopri5: adaptive, slow, reference"
    )
    parser.add_argument("--tolerance", type=float, default=1e-7, help="of dopri5, relative (default 1e-7, as published)")
    parser.add_argument("--batch-size", type=int, default=4, metavar="N", help="clips that are made together (default 4)")
    parser.add_argument(
        "--prompts", choices=("caption", "none"), default="caption", help="what the model reads of a clip (default caption)"
    )
    parser.add_argument("--negative", default="", metavar="TEXT", help="negative prompt for all clips (default: none)")
    parser.add_argument("--no-video", action="store_true", help="the model sees nothing: text alone")
    parser.add_argument("--duration", type=float, default=8.0, metavar="S", help="the clips' first seconds (default 8)")
    parser.add_argument("--sync-timing", choices=SYNC_TIMINGS, help="as for mmaudio generate; default: the network's own")
    parser.add_argument(
        "--lines",
        nargs="+",
        metavar="LINE",
        help="only these of model, truth, round_trip, silence, shuffled (default: all)",
    )
    parser.add_argument(
        "--classifier",
        type=Path,
        metavar="FILE",
        help="of materials; trained and written there when the file does not exist (default: trained anew, half a minute)",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps (default: the best there is)")


def run(args: argparse.Namespace) -> int:
    """Runs ``mmaudio-train score``; the table goes to standard output, everything else to standard error.

    Raises:
        InputError: wrong arguments.
        WeightsError: weights that are missing or wrong.
    """
    from mmaudio_core.pipeline.sample import SampleSettings

    from ..score.lines import LINES, Wishes
    from ..score.run import score

    settings = SampleSettings(args.steps, args.guidance, args.solver, args.batch_size, args.tolerance)
    lines = tuple(args.lines or LINES)
    wishes = Wishes(
        args.clips,
        args.seed,
        args.prompts,
        args.negative,
        not args.no_video,
        args.duration,
        args.sync_timing,
        settings=settings,
        lines=lines,
    )
    if args.json is not None and not args.json.resolve().parent.is_dir():  # before minutes of listening
        raise InputError(f"The folder of {args.json} does not exist; create it or choose another file.")
    model = load_model(args.weights, args.device)
    tripper = load_tripper(model) if "round_trip" in lines else None
    bars = Bars(args.quiet)
    try:
        classifier = find_classifier(args.classifier, bars)
        values = score(model, tripper, classifier, wishes, lambda done, total: bars("score", done, total))
    finally:
        bars.close()
    values["settings"] = described(args, wishes, model, classifier) | values.pop("counts")
    print(table(values, lines))
    if args.json is not None:
        write_json(args.json, values)
        print(args.json)
    return 0


def load_model(weights: list[Path] | None, device: str) -> MMAudio:
    """The embedded model, or the one of ``weights``.

    Raises:
        WeightsError: when ``weights`` hold no whole model; nothing stands in for it here.
    """
    from mmaudio_core.errors import WeightsError
    from mmaudio_core.pipeline.files import EMBEDDED, EMBEDDED_FILE
    from mmaudio_core.pipeline.model import load

    model = load(None if weights else EMBEDDED, weights or None, device)
    if weights and EMBEDDED_FILE in model.parts.files.paths.values() and EMBEDDED_FILE not in weights:
        raise WeightsError(
            f"{', '.join(map(str, weights))} hold no whole model; give all its files: flow network, VAE, vocoder, encoders."
        )
    return model


def load_tripper(model: MMAudio) -> RoundTripper:
    """The model's VAE, with its encoder, and vocoder, in float32.

    Raises:
        WeightsError: when the VAE's file has no encoder.
    """
    from typing import cast

    import torch

    from mmaudio_core.autoencoder.vae import VAE
    from mmaudio_core.vocoder.bigvgan import BigVGAN
    from mmaudio_core.weights.build import load_part

    from ..data.round_trip import RoundTripper

    paths = model.parts.files.paths
    vae, vocoder = (load_part(paths[k], k, dtype=torch.float32, device=model.device)[0] for k in ("vae", "vocoder"))
    return RoundTripper(cast(VAE, vae), cast(BigVGAN, vocoder))


def find_classifier(path: Path | None, bars: Bars) -> Classifier:
    """The one in ``path``; where there is none, one is trained, and written to ``path``.

    Raises:
        WeightsError: when ``path`` is something else, or cannot be written.
    """
    from ..score.classifier import load_classifier
    from ..score.learn import train_classifier

    if path is not None and path.exists():
        return load_classifier(path)
    classifier = train_classifier(progress=lambda done, total: bars("classifier", done, total))
    if path is not None:
        classifier.save(path)
    return classifier


def described(args: argparse.Namespace, wishes: Wishes, model: MMAudio, classifier: Classifier) -> dict[str, Any]:
    """How the numbers came about."""
    from dataclasses import asdict

    return {
        "seed": wishes.seed,
        "first_clip_seed": wishes.seeds[0],
        "steps": args.steps,
        "guidance": args.guidance,
        "solver": args.solver,
        "tolerance": args.tolerance,
        "prompts": wishes.prompts,
        "negative": wishes.negative,
        "video": wishes.video,
        "duration_s": wishes.duration_s,
        "sync_timing": wishes.sync_timing,
        "variant": model.variant,
        "weights": {kind: str(path) for kind, path in model.parts.files.paths.items()},
        "device": str(model.device),
        "classifier": asdict(classifier.training),
    }


def table(values: dict[str, dict[str, Any]], lines: tuple[str, ...]) -> str:
    """One line of sounds a row."""
    rows = [f"{'':<12}" + "".join(f"{title:>10}" for title, _ in COLUMNS)]
    rows += [f"{line:<12}" + "".join(f"{values[line][key]:10.3f}" for _, key in COLUMNS) for line in lines]
    s = values["settings"]
    rows.append(
        f"{s['strikes']} strikes in {s['clips_with_strikes']} of {s['clips']} clips; the classifier names "
        f"{100 * s['classifier']['accuracy']:.1f} % of held-out strikes."
    )
    return "\n".join(rows)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """All numbers as one JSON file, whole or not at all."""
    from mmaudio_core.media.atomic import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
