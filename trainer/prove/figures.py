"""The pictures of docs/proving-ground.md: a clip with its sounds, the curves of sampling's settings."""

from __future__ import annotations

from collections.abc import Sequence
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
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise DependencyError(f"matplotlib cannot be imported ({error}); install it: pip install matplotlib") from error
    figure = Figure(figsize=(11, 3.4), dpi=DPI, layout="constrained")
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
    names = [bar["solver"] if bar["solver"] == "dopri5" else f"{bar['solver']} {bar['steps']}" for bar in bars]
    right.set_xticks(range(len(bars)), names)
    right.set_xlabel("solver and steps")
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
