"""What somebody would say about a scene, in several ways."""

from __future__ import annotations

import numpy as np

from .plan import Scene

NAMES = {
    "wood": ("a wooden block", "a piece of wood", "a wooden board"),
    "metal": ("a metal bar", "a piece of metal", "an iron plate"),
    "glass": ("a glass", "a pane of glass", "a glass bottle"),
    "drum": ("a drum", "a drum skin", "a small drum"),
    "rubber": ("a rubber block", "a piece of rubber", "a rubber mat"),
    "water": ("water", "a pool of water", "a basin of water"),
}
NUMBERS = ("no times", "once", "twice", "three times", "four times", "five times", "six times", "seven times", "eight times")
STRIKES = {"stick": ("a stick hits {}", "somebody strikes {} with a mallet", "tapping on {}", "knocking on {}"),
           "ball": ("a ball bounces on {}", "a ball falls onto {} and bounces", "a bouncing ball on {}")}  # fmt: skip
LASTING = {
    "roll": ("a ball rolls over {}", "something rolls on {}", "rolling on {}"),
    "scrape": ("a stick scrapes {}", "scratching on {}", "somebody scrapes over {}"),
    "rain": ("rain falls", "it is raining", "the sound of rain"),
    "wind": ("wind in a tree", "leaves rustle in the wind", "the wind blows"),
    "engine": ("an engine is running", "a machine with a wheel turns", "an engine chugs"),
}
STRONG = {
    "rain": ("heavy rain", "light rain"),
    "engine": ("a fast engine", "a slow engine"),
    "wind": ("a storm", "a light wind"),
}


def captions_of(scene: Scene, rng: np.random.Generator, count: int = 3) -> tuple[str, ...]:
    """``count`` different ways to say it."""
    out: list[str] = []
    while len(out) < count:
        said = _once(scene, rng)
        if said not in out:
            out.append(said)
    return tuple(out)


def _once(scene: Scene, rng: np.random.Generator) -> str:
    if scene.lasting:
        one = scene.lasting[0]
        if one.kind in STRONG and rng.random() < 0.4:
            level = one.rate_hz > 1.8 if one.kind == "engine" else one.speed > 0.65
            return STRONG[one.kind][0 if level else 1]
        return _pick(rng, LASTING[one.kind]).format(_name(rng, scene.things[0].material) if scene.things else "")
    parts = []
    for tool, hits in zip(scene.tools, scene.strikers, strict=True):
        materials = list(dict.fromkeys(scene.things[h.thing].material for h in hits))
        said = _pick(rng, STRIKES[tool]).format(_joined([_name(rng, m) for m in materials]))
        if rng.random() < 0.3 and len(hits) < len(NUMBERS):
            said += f" {NUMBERS[len(hits)]}"
        elif scene.steady_hz and tool == "stick" and rng.random() < 0.5:
            said += _pick(rng, (" steadily", f" at {60 * scene.steady_hz:.0f} beats a minute", _tempo(scene.steady_hz)))
        elif rng.random() < 0.25:
            mean = float(np.mean([h.strength for h in hits]))
            said += " hard" if mean > 0.7 else " softly" if mean < 0.45 else ""
        parts.append(said)
    return _pick(rng, (" and ", ", while ")).join(parts)


def _tempo(hz: float) -> str:
    return " quickly" if hz >= 2 else " slowly" if hz <= 1 else " in a steady rhythm"


def _name(rng: np.random.Generator, material: str) -> str:
    return _pick(rng, NAMES[material])


def _pick(rng: np.random.Generator, given: tuple[str, ...]) -> str:
    return given[int(rng.integers(len(given)))]


def _joined(names: list[str]) -> str:
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
