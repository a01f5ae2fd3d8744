"""Guidance, steps and solver against the measure: how the settings of sampling change what is heard."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from mmaudio_core.pipeline.sample import TOLERANCE, SampleSettings

from ..score.classifier import Classifier
from ..score.lines import Wishes
from ..score.run import score

if TYPE_CHECKING:
    from mmaudio_core.pipeline.model import MMAudio

GUIDANCE = (1.0, 2.0, 3.0, 4.5, 6.0, 7.5)
STEPS = (1, 2, 5, 10, 25, 50, 100)
SOLVERS = (("euler", 25), ("midpoint", 12), ("dopri5", 1))
"""With the steps that cost about as much; the adaptive one takes what it needs."""
ADAPTIVE_TOLERANCE = 1e-3
"""About 360 evaluations a sound; ten times less takes 2,500, and the published 1e-7 more than 20,000."""


@dataclass(frozen=True)
class Point:
    """curve: "guidance", "steps" or "solver"; the settings of one measurement."""

    curve: str
    settings: SampleSettings


def points(guidance: float = 4.5, solvers: tuple[tuple[str, int], ...] = SOLVERS) -> tuple[Point, ...]:
    """Every measurement; where guidance does not vary it is ``guidance``, and steps 25, Euler."""
    usual = SampleSettings(cfg_strength=guidance)
    tolerances = {"dopri5": ADAPTIVE_TOLERANCE}
    return (
        *(Point("guidance", replace(usual, cfg_strength=value)) for value in GUIDANCE),
        *(Point("steps", replace(usual, steps=value)) for value in STEPS),
        *(
            Point("solver", replace(usual, solver=name, steps=steps, tolerance=tolerances.get(name, TOLERANCE)))  # type: ignore[arg-type]
            for name, steps in solvers
        ),
    )


def curves(
    model: MMAudio,
    classifier: Classifier,
    wanted: tuple[Point, ...],
    clips: int,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[dict[str, Any]]:
    """For every point its curve, its settings and the numbers of the line ``model``; settings that come twice are made once.

    Raises:
        InputError: when the clips hold fewer than two strikes.
    """
    known: dict[SampleSettings, dict[str, Any]] = {}
    rows = []
    for number, point in enumerate(wanted):
        if point.settings not in known:
            known[point.settings] = score(
                model,
                None,
                classifier,
                Wishes(clips, seed, settings=point.settings, lines=("model",)),
                lambda done, total, number=number: progress(number * total + done, len(wanted) * total),  # type: ignore[misc]
            )["model"]
        rows.append({"curve": point.curve, **asdict(point.settings), **known[point.settings]})
    return rows
