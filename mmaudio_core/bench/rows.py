"""What a benchmark says: rows, a table, a JSON file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..media.atomic import atomic_path

PLAIN = "plain"


@dataclass(frozen=True)
class Row:
    """One stage of one variant, computed in one way.

    median_s, spread_s: seconds of a call, and the distance between the quarters of all calls. peak_bytes: the allocator's on a
    CUDA device, weights included, else of the process. error_rel: |out - reference| / |reference|, the reference being the
    plain path in float32 on the same device. flops: counted on the plain path; not in the JSON.
    """

    variant: str
    stage: str
    backend: str
    device: str
    dtype: str
    duration_s: float
    median_s: float
    spread_s: float
    peak_bytes: int
    error_rel: float
    flops: float = field(default=0.0, metadata={"internal": True})

    def to_json(self) -> dict[str, object]:
        """The fields that are promised to readers of the file."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if not f.metadata.get("internal")}


@dataclass(frozen=True)
class Ceilings:
    """What the device was measured to do: FLOP/s of a large matrix product in ``dtype``, bytes/s of a copy, both ways."""

    dtype: str
    matrix_flops: float
    copy_bytes: float

    def sentence(self) -> str:
        return (
            f"Measured ceilings: {self.matrix_flops / 1e12:.2f} TFLOP/s in a {self.dtype} matrix product, "
            f"{self.copy_bytes / 1e9:.0f} GB/s in a copy."
        )


def table(rows: Sequence[Row], ceilings: Ceilings | None) -> str:
    """A text table. "x" is the plain path's time by this one's; "%" the counted FLOP rate by the measured one."""
    plain = {(r.variant, r.stage): r.median_s for r in rows if r.backend == PLAIN}
    head = ("variant", "stage", "backend", "ms", "+-", "x", "peak MB", "error", "TFLOP/s", "%")
    lines = [head]
    for r in rows:
        base = plain.get((r.variant, r.stage))
        rate = r.flops / r.median_s if r.median_s else 0.0
        lines.append(
            (
                r.variant,
                r.stage,
                r.backend,
                f"{r.median_s * 1e3:.2f}",
                f"{r.spread_s * 1e3:.2f}",
                f"{base / r.median_s:.2f}" if base and r.median_s else "-",
                f"{r.peak_bytes / 1e6:.0f}",
                f"{r.error_rel:.1e}",
                f"{rate / 1e12:.2f}" if rate else "-",
                f"{100 * rate / ceilings.matrix_flops:.0f}" if rate and ceilings else "-",
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    left = 3
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def write_json(rows: Sequence[Row], path: Path) -> None:
    """A list of rows, under its name only once it is whole.

    Raises:
        MediaError: when it cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps([row.to_json() for row in rows], indent=1) + "\n", encoding="utf-8")
