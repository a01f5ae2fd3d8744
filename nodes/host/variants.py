"""The files of a variant: found in the model folders, or fetched when the user says so."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from ...mmaudio_core.errors import InputError, WeightsError
from ...mmaudio_core.pipeline.files import EMBEDDED, EMBEDDED_WARNING, embedded_files
from ...mmaudio_core.spec.model import VARIANTS
from ...mmaudio_core.weights.locate import choose, missing_parts
from ...mmaudio_core.weights.registry import files_for
from . import folders
from .memory import precision_dtype

log = logging.getLogger("mmaudio")

LICENCE_NOTE = (
    "The published weights are CC-BY-NC 4.0 (no commercial use), CLIP is under Apple's research licence, the vocoder MIT."
)


def names() -> list[str]:
    """The embedded variant first, then the published ones, then own ones found in the model folders."""
    try:
        own = sorted({part.variant for part in folders.found_parts() if part.kind == "flow"} - set(VARIANTS) - {EMBEDDED})
    except Exception:  # a list in a menu must never keep the pack from loading
        log.exception("The model folders could not be searched.")
        own = []
    return [folders.EMBEDDED_NAME, *VARIANTS, *own]


def files_of(variant: str, download: bool, precision: str, progress: Any = None) -> dict[str, Path]:
    """The file for each kind of part of ``variant``.

    Raises:
        WeightsError: when files are missing and ``download`` is False, naming them.
        DownloadError: when a download fails; what has arrived is kept.
    """
    if variant in (folders.EMBEDDED_NAME, EMBEDDED):
        log.warning(EMBEDDED_WARNING)
        return embedded_files().paths
    dtype = precision_dtype(precision)
    found = folders.found_parts()
    if variant not in VARIANTS and variant not in {part.variant for part in found if part.kind == "flow"}:
        raise InputError(f"There is no variant {variant!r}; choose one of {', '.join(names())}.")
    missing = missing_parts(found, variant)
    if missing and variant in VARIANTS and download:
        _fetch(variant, missing, dtype != torch.float32, progress)
        found = folders.found_parts()
    try:
        return choose(found, variant, dtype)
    except WeightsError as error:
        where = " or ".join(str(folder) for folder in folders.folders())
        raise WeightsError(
            f"{error} Put them into {where}, or set download to yes: they are then fetched there. {LICENCE_NOTE}"
        ) from None


def stamp_of(variant: str | None, precision: str | None) -> str:
    """What tells the files of a variant from others that may take their place; "" for the embedded one, or where some miss."""
    if not variant or variant in (folders.EMBEDDED_NAME, EMBEDDED):
        return ""
    try:
        files = choose(folders.found_parts(), variant, precision_dtype(precision or "auto"))
    except (InputError, WeightsError):
        return ""
    return " ".join(folders.stamp(path) for path in files.values())


def _fetch(variant: str, kinds: list[str], half: bool, progress: Any) -> None:
    from ...mmaudio_core.weights.hub import download

    folder = folders.folders()[0]
    folder.mkdir(parents=True, exist_ok=True)
    files = files_for(variant, half=half)
    for kind in kinds:
        file = files[kind]
        log.info("Fetching %s (%s, licence: %s) into %s.", file.name, file.page, file.licence, folder)
        download(file, folder, progress=False, on_bytes=lambda done, total: progress(done, total or 0) if progress else None)
