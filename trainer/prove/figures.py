"""The pictures of docs/proving-ground.md: a clip with its sounds, the curves of sampling's settings, the ablations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmaudio_core.errors import DependencyError, InputError
from mmaudio_core.media.atomic import atomic_path

from ..world import HELD_OUT_SEED, make_clip
from .picture import clip_picture, write_picture

if TYPE_CHECKING:
    from mmaudio_core.pipeline.model import MMAudio

SHOWN_SEED = HELD_OUT_SEED + 500_000_007
MEASURES = (("onset_f1_50ms", "onset F1, 50 ms"), ("onset_f1", "onset F1, 0.3 s"), ("material_accuracy", "material"))
AXES = {"guidance": ("cfg_strength", "guidance strength"), "steps": ("steps", "Euler steps")}
PANELS = (("onset_f1_50ms", "onset F1, 50 ms"), ("material_accuracy", "material"), ("frechet_distance", "Fréchet distance"))
DPI = 110


def clip_figure(model: MMAudio, path: Path, seed: int = SHOWN_SEED, scene: str = "two") -> Path:
    """Frames of a clip, the spectrogram of its true sound, and below it that of the model's, marked at the strikes; a PNG."""
    clip = make_clip(seed, scene=scene)
    made = model.generate(frames=clip.frames, fps=clip.fps, prompt=clip.captions[0], seed=seed).takes[0].audio
    sounds = [(clip.samples, clip.sample_rate_hz), (made.samples[0, 0].cpu().numpy(), made.sample_rate_hz)]
    return write_picture(clip_picture(clip, sounds), path)


def curves_figure(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    """Curves as ``prove.curves.curves`` gives them; a PNG.

    Raises:
        InputError: when a curve or a measure is missing.
        DependencyError: without matplotlib.
    """
    figure = _figure(3.4)
    left, middle, right = figure.subplots(1, 3, sharey=True)
    for axes, curve in ((left, "guidance"), (middle, "steps")):
        key, title = AXES[curve]
        points = _of(rows, curve, key)
        for measure, label in MEASURES:
            axes.plot([p[key] for p in points], [p[measure] for p in points], marker="o", label=label)
        axes.set_xlabel(title)
        axes.grid(alpha=0.3)
    middle.set_xscale("log")
    left.set_ylim(0, 1)
    left.legend(loc="lower right")
    bars = _of(rows, "solver", "solver")
    for k, (measure, _) in enumerate(MEASURES):
        places = [number + (k - 1) * 0.27 for number in range(len(bars))]
        right.bar(places, [bar[measure] for bar in bars], width=0.25)
    names = [f"{bar['solver']} {bar['tolerance' if bar['solver'] == 'dopri5' else 'steps']:g}" for bar in bars]
    right.set_xticks(range(len(bars)), names)
    right.set_xlabel("solver and steps, or tolerance")
    return _saved(figure, path)


def ablations_figure(rows: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> Path:
    """Row -> the numbers of each seed, as ``prove.ablations.collected`` gives them: a dot each, and a line over them; a PNG.

    Raises:
        InputError: when there is no row, or a measure is missing.
        DependencyError: without matplotlib.
    """
    lacking = [name for name, seeds in rows.items() if not seeds or any(key not in one for one in seeds for key, _ in PANELS)]
    if lacking or not rows:
        raise InputError(f"No numbers for {lacking or 'any row'}; give what mmaudio-train ablate --json wrote.")
    figure = _figure(0.9 + 0.27 * len(rows))
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (key, title) in zip(panels, PANELS, strict=True):
        for place, seeds in enumerate(rows.values()):
            values = [one[key] for one in seeds]
            axes.hlines(place, min(values), max(values), color="tab:blue", alpha=0.5)
            axes.plot(values, [place] * len(values), "o", color="tab:blue", markersize=4)
        axes.set_xlabel(title)
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    panels[0].set_yticks(range(len(rows)), list(rows))
    panels[0].invert_yaxis()
    return _saved(figure, path)


def _figure(height: float) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError(f"matplotlib cannot be imported ({error}); install it: pip install matplotlib") from error
    return Figure(figsize=(11, height), dpi=DPI, layout="constrained")


def _saved(figure: Any, path: Path) -> Path:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png")
    return path


def _of(rows: Sequence[dict[str, Any]], curve: str, key: str) -> list[dict[str, Any]]:
    found = [row for row in rows if row.get("curve") == curve]
    needed = (key, *(measure for measure, _ in MEASURES))
    if not found or any(name not in row for row in found for name in needed):
        raise InputError(
            f"The curve {curve!r} with {', '.join(needed)} is missing; give what mmaudio-train curves --json wrote."
        )
    return found if key == "solver" else sorted(found, key=lambda row: float(row[key]))
