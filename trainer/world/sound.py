"""The sound of a scene: strikes, what lasts, a room, and a quiet background."""

from __future__ import annotations

import numpy as np

from .effects import gust, place
from .materials import material
from .modal import strike
from .noise import in_room, shaped_noise
from .plan import DURATION_S, Lasting, Scene

STRIKE_LEVEL = 0.4
"""Of a strike of strength 1, about its peak."""
LOUDEST = 0.95


def sound_of(scene: Scene, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    """(N,) float64 in [-1, 1]; events begin at the sample nearest to their time."""
    length = round(DURATION_S * rate_hz)
    dry = np.zeros(length)
    for hits in scene.strikers:
        for hit in hits:
            one = scene.things[hit.thing]
            ring = STRIKE_LEVEL * strike(material(one.material), one.smallness, hit.strength, rate_hz, rng)
            first = round(hit.time_s * rate_hz)
            dry[first : first + len(ring)] += ring[: length - first]
    makers = {"roll": _rubbed, "scrape": _rubbed, "rain": _rain, "wind": _wind, "engine": _engine}
    for lasting in scene.lasting:
        makers[lasting.kind](dry, scene, lasting, rate_hz, rng)
    wet = in_room(dry, rate_hz, rng)
    wet += 10 ** (rng.uniform(-66, -52) / 20) * shaped_noise(length, rate_hz, 60.0, 4000.0, -2.0, rng)
    return np.asarray(wet * min(1.0, LOUDEST / max(float(np.abs(wet).max()), 1e-12)))


def _rubbed(dry: np.ndarray, scene: Scene, one: Lasting, rate_hz: int, rng: np.random.Generator) -> None:
    """Noise as loud as the speed, coloured by the material; rolling adds the bumps of a ball that is not quite round."""
    m = material(scene.things[0].material)
    first, last = round(one.start_s * rate_hz), round(one.end_s * rate_hz)
    time_s = np.arange(first, last) / rate_hz
    # A clock of 200 Hz is fine for a motion seen at 25 frames a second.
    coarse = np.arange(one.start_s, one.end_s + 0.01, 0.005)
    speed = np.abs(np.gradient(np.array([place(one, t) for t in coarse]), 0.005))
    loud = np.interp(time_s, coarse, speed)
    middle = m.low_hz * 2 if one.kind == "roll" else m.low_hz * 5
    noise = shaped_noise(last - first, rate_hz, middle, min(middle * 5, 7000.0), 0.0, rng)
    ring = shaped_noise(last - first, rate_hz, m.low_hz * 0.9, m.low_hz * 1.2, 0.0, rng)
    level = 0.02 * loud * (1 + (0.6 * np.sin(2 * np.pi * 11 * np.cumsum(loud) / rate_hz) if one.kind == "roll" else 0))
    dry[first:last] += level * (0.7 * noise + 0.5 * ring)


def _rain(dry: np.ndarray, scene: Scene, one: Lasting, rate_hz: int, rng: np.random.Generator) -> None:
    dry += 0.05 * one.speed * shaped_noise(len(dry), rate_hz, 900.0, 7500.0, -1.0, rng)
    drops = rng.integers(0, len(dry) - 400, int(60 + 700 * one.speed))
    click = np.exp(-np.arange(400) / (0.003 * rate_hz))
    for at, level, hz in zip(drops, rng.uniform(0.02, 0.12, len(drops)), rng.uniform(1200, 4200, len(drops)), strict=True):
        dry[at : at + 400] += level * click * np.sin(2 * np.pi * hz * np.arange(400) / rate_hz)


def _wind(dry: np.ndarray, scene: Scene, one: Lasting, rate_hz: int, rng: np.random.Generator) -> None:
    time_s = np.arange(len(dry)) / rate_hz
    blow = gust(one, time_s)
    low = shaped_noise(len(dry), rate_hz, 120.0, 500.0, 0.0, rng)
    high = shaped_noise(len(dry), rate_hz, 600.0, 2200.0, -2.0, rng)
    dry += 0.16 * blow * ((1 - blow) * low + (0.3 + blow) * high)


def _engine(dry: np.ndarray, scene: Scene, one: Lasting, rate_hz: int, rng: np.random.Generator) -> None:
    """Eight firings for each turn of the wheel, every second one stronger, and a hum that follows the rate."""
    time_s = np.arange(len(dry)) / rate_hz
    fired = np.mod(time_s * one.rate_hz * 8 + rng.uniform(), 1.0) / (one.rate_hz * 8)
    noise = shaped_noise(len(dry), rate_hz, 80.0, 1500.0, -1.5, rng)
    hum = sum(np.sin(2 * np.pi * one.rate_hz * 16 * h * time_s + h) / h for h in range(1, 9))
    dry += 0.09 * one.speed * (noise * np.exp(-fired * 45) * 2 + np.asarray(hum))
