"""The paper's ablations in small: what each row changes, its stages, and the table of all (arXiv 2412.15322, section 4)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmaudio_core.errors import InputError

from .stages import ENCODERS, Stage

ROWS: dict[str, tuple[str, ...]] = {
    "full": (),
    "no sync": ("model.sizes.sync=none",),
    "sync in the visual stream": ("model.sizes.sync=visual",),
    "plain RoPE": ("model.sizes.rope=plain",),
    "no RoPE": ("model.sizes.rope=none",),
    "MLP for ConvMLP": ("model.sizes.mlp=linear",),
    "1 + 3 blocks": ("model.sizes.joint_blocks=1", "model.sizes.audio_blocks=3"),
    "3 + 1 blocks": ("model.sizes.joint_blocks=3", "model.sizes.audio_blocks=1"),
    "4 + 0 blocks": ("model.sizes.joint_blocks=4", "model.sizes.audio_blocks=0"),
    "AV + AT": ("data.captions=sound",),
    "AVT + A": ("data.captions=video",),
    "AVT": ("data.sound_share=0",),
    "AV": ("data.sound_share=0", "data.captions=none"),
    "50 % of AT": ("data.sound_share=0.5",),
    "25 % of AT": ("data.sound_share=0.25",),
    "10 % of AT": ("data.sound_share=0.1",),
    "all learned": ("model.empty=learned",),
    "zeros": ("model.empty=zeros",),
}
"""By the paper's words. "full" is also AVT + AT, 100 % of AT, 2 + 2 blocks and the published way with missing inputs; "AVT" is
also 0 % of AT."""
MEASURES = ("onset_f1_50ms", "onset_f1", "onset_count_match", "onset_ap", "material_accuracy", "frechet_distance", "kl")
FOLDER, CLASSIFIER = "ablations", "materials.safetensors"


def stages_of_rows(rows: Sequence[str], seeds: Sequence[int], steps: int, batch: int, clips: int) -> tuple[Stage, ...]:
    """Training, export and score of each of ``rows`` with each of ``seeds``, in the folder of a recipe.

    Raises:
        InputError: for an unknown row, or no steps, clips or seeds.
    """
    if unknown := [row for row in rows if row not in ROWS]:
        raise InputError(f"The row {unknown[0]!r} is unknown; known are {', '.join(ROWS)}.")
    if min(steps, batch, clips, len(rows), len(seeds)) < 1:
        raise InputError(
            f"{len(rows)} rows, {len(seeds)} seeds, {steps} steps of {batch} samples, {clips} clips: "
            "1 or more of each is needed."
        )
    # The first score trains the classifier that all judge by; two at once would each train one, and write the same file.
    first = f"{cell(rows[0], seeds[0])} score"
    return tuple(stage for seed in seeds for row in rows for stage in _stages(row, seed, steps, batch, clips, first))


def _stages(row: str, seed: int, steps: int, batch: int, clips: int, first: str) -> tuple[Stage, ...]:
    name = cell(row, seed)
    folder = f"{FOLDER}/{name}"
    # One checkpoint and one snapshot of the averages: many of these runs must lie side by side.
    usual = (
        *(f"train.folder={folder}", f"train.seed={seed}", f"train.steps={steps}", f"model.text_encoder={ENCODERS}"),
        *("checkpoint.keep=1", f"train.global_batch={batch}"),
        *(f"checkpoint.every={steps}", f"ema.snapshot_every={steps}", "validation.every=0"),
        f"optim.warmup_steps={min(200, steps // 5)}",
    )
    family = f"{folder}/family.safetensors"
    export = ("export", folder, "-o", family, "--family", ENCODERS, "--dtype", "float16", "--overwrite")
    score = ("score", "--weights", family, "--clips", str(clips), "--seed", "0", "--lines", "model")
    return (
        Stage(f"{name} run", ("run", "world", *(word for change in (*usual, *ROWS[row]) for word in ("--set", change)))),
        Stage(f"{name} export", export, (f"{name} run",)),
        Stage(
            f"{name} score",
            (*score, "--classifier", CLASSIFIER, "--json", f"{folder}/score.json"),
            (f"{name} export", *((first,) if first != f"{name} score" else ())),
        ),
    )


def cell(row: str, seed: int) -> str:
    """The folder's name of one run."""
    plain = row.replace("%", "percent").replace("+", "and")
    return f"{'_'.join(plain.split())}-{seed}"


def collected(folder: Path, rows: Sequence[str], seeds: Sequence[int]) -> dict[str, list[dict[str, float]]]:
    """Row -> the numbers of each seed, in order.

    Raises:
        InputError: when a score is missing or is none.
    """
    found: dict[str, list[dict[str, float]]] = {}
    for row in rows:
        for seed in seeds:
            path = folder / FOLDER / cell(row, seed) / "score.json"
            try:
                values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["model"]
                found.setdefault(row, []).append({measure: float(values[measure]) for measure in MEASURES})
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{path} holds no score ({error}); delete it and its mark in stages, and start again."
                ) from error
    return found


def markdown(found: dict[str, list[dict[str, float]]]) -> str:
    """A table with the mean of each measure and, in brackets, its least and largest value."""
    lines = [f"| | {' | '.join(MEASURES)} |", f"|---|{'---|' * len(MEASURES)}"]
    for row, values in found.items():
        lines.append(f"| {row} | {' | '.join(_spread([one[measure] for one in values]) for measure in MEASURES)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    mean = sum(values) / len(values)
    digits = 3 if mean < 10 else 1
    brackets = f" ({min(values):.{digits}f}-{max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{mean:.{digits}f}{brackets}"
