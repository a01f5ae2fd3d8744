"""Which files a model is made of: the best variant that is present, the one asked for, or the embedded one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import WeightsError
from ..spec.model import VARIANTS
from ..weights.locate import KINDS, PREFERENCE, FoundFile, best_variant, choose, default_folders, find_parts

EMBEDDED = "tiny"
EMBEDDED_FILE = Path(__file__).resolve().parents[1] / "assets" / "tiny.safetensors"
EMBEDDED_WARNING = (
    "The embedded model 'tiny' knows ONLY A SMALL MADE-UP WORLD (things struck, rolled and scraped, rain, wind, an engine): "
    "for a real video it makes sounds of that world, not the video's own."
)


@dataclass(frozen=True)
class ModelFiles:
    """A file for each kind of part ("flow", "vae", "vocoder", "synchformer", "clip") of ``variant``.

    notes: what a user should know of the choice, in whole sentences.
    """

    variant: str
    paths: dict[str, Path]
    notes: tuple[str, ...] = ()


def embedded_files(*notes: str) -> ModelFiles:
    """The model inside the package."""
    return ModelFiles(EMBEDDED, dict.fromkeys(KINDS, EMBEDDED_FILE), (*notes, EMBEDDED_WARNING))


def find_files(
    variant: str | None = None,
    folders: Iterable[str | os.PathLike[str]] | None = None,
    dtype: torch.dtype | None = None,
) -> ModelFiles:
    """The files of ``variant``, or of the best variant that is complete in ``folders``, else the embedded model.

    ``folders`` None means those of ``MMAUDIO_WEIGHTS``, else ``~/.cache/mmaudio-graph/weights``. Of several files for one part
    those in ``dtype`` come first. Nothing is downloaded.

    Raises:
        WeightsError: for an unknown variant, or when files of the one asked for are missing.
    """
    if variant == EMBEDDED:
        return embedded_files()
    searched = [Path(f).expanduser() for f in (folders if folders is not None else default_folders())]
    where = " or ".join(str(f) for f in searched)
    found = find_parts(searched)
    if variant is None:
        best = best_variant(found)
        if best is None:
            return embedded_files(_how_to_get(found, where))
        note = f"Using {best}, the best variant whose files are all in {where}."
        if best != PREFERENCE[0]:
            note += f" For a better one: mmaudio download {PREFERENCE[0]}"
        return ModelFiles(best, choose(found, best, dtype), (note,))
    known = {item.variant for item in found if item.kind == "flow"}
    if variant not in VARIANTS and variant not in known:
        raise WeightsError(f"There is no variant {variant!r}; known are {', '.join((EMBEDDED, *VARIANTS))}.")
    try:
        return ModelFiles(variant, choose(found, variant, dtype))
    except WeightsError as error:
        raise WeightsError(
            f"{error} Put them into {where}, or fetch them with: mmaudio download {variant} --folder {searched[0]}"
        ) from None


def _how_to_get(found: list[FoundFile], where: str) -> str:
    present = sorted({item.variant for item in found if item.kind == "flow"})
    partial = f" ({', '.join(present)} is there, but other parts are missing)" if present else ""
    return (
        f"No complete published model lies in {where}{partial}; using the embedded one. "
        "For the real sound, fetch a published model, for example: mmaudio download large_44k_v2"
    )
