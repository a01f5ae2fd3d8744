"""All backends, and which of them can run where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch

from ..errors import InputError
from . import flash, flex, sage, sdpa, xformers
from .protocol import Backend

BACKENDS: tuple[Backend, ...] = (*sdpa.BACKENDS, *flash.BACKENDS, *xformers.BACKENDS, *flex.BACKENDS, *sage.BACKENDS)
"""In the order in which "auto" prefers them where two are equally fast."""
AUTO = "auto"


@dataclass(frozen=True)
class Row:
    """Whether a backend can run; ``reason`` says why not, or, where it can, what a user should know ("" for nothing)."""

    name: str
    usable: bool
    exact: bool
    reason: str


def named(name: str, backends: Sequence[Backend] = BACKENDS) -> Backend:
    """The backend of that name.

    Raises:
        InputError: where there is none.
    """
    for backend in backends:
        if backend.name == name:
            return backend
    known = ", ".join((AUTO, *(backend.name for backend in backends)))
    raise InputError(f"The attention backend {name!r} is unknown; use one of {known}.")


def listing(device: torch.device, dtype: torch.dtype, head_dim: int, backends: Sequence[Backend] = BACKENDS) -> list[Row]:
    """A row for every backend; the optional packages that could run on ``device`` are imported to find out."""
    rows = []
    for backend in backends:
        reason = backend.reason(device, dtype, head_dim)
        rows.append(Row(backend.name, reason is None, backend.exact, backend.note if reason is None else reason))
    return rows


def table(rows: Iterable[Row]) -> str:
    """The rows as aligned text."""
    cells = [("backend", "usable", "exact", "")]
    cells += [(r.name, "yes" if r.usable else "no", "yes" if r.exact else "no", r.reason) for r in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(3)]
    return "\n".join("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]).rstrip() for row in cells)
