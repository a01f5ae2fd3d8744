"""Checks that every kind of training makes of its configuration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mmaudio_core.errors import InputError


def at_least(section: Any, name: str, least: float, keys: Iterable[str]) -> None:
    """Raises InputError for a value of ``section`` below ``least``."""
    for key in keys:
        if getattr(section, key) < least:
            raise InputError(f"{name}.{key} is {getattr(section, key):g}; {least:g} or more is needed.")


def check_named(manifest: str, folder: str) -> None:
    """Raises InputError where the manifest or the run's folder is not given."""
    if not manifest:
        raise InputError("data.manifest is empty; name a manifest.")
    if not folder:
        raise InputError("train.folder is empty; name the folder to keep the run in.")


def check_betas(betas: Sequence[float]) -> None:
    """Raises InputError for anything but Adam's two numbers."""
    if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
        raise InputError(f"optim.betas is {list(betas)}; two numbers from 0 to below 1 are needed.")


def check_pieces(batch: int, accumulation: int, key: str = "batch") -> None:
    """Raises InputError where a batch does not divide into its pieces."""
    if batch % accumulation:
        raise InputError(f"train.{key} = {batch} does not divide into train.accumulation = {accumulation} pieces.")
