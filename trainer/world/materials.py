"""Six materials: how each looks, and how it rings when it is struck (modal synthesis)."""

from __future__ import annotations

from dataclasses import dataclass

MATERIALS = ("wood", "metal", "glass", "drum", "rubber", "water")


@dataclass(frozen=True)
class Material:
    """Look and sound of one material.

    colour, second: RGB of the ground and of its pattern. pattern: see ``sprites.texture``.
    low_hz, high_hz: the lowest mode of the largest and of the smallest thing. ratios: modes relative to the lowest.
    decay_s: time in which the lowest mode falls by 60 dB; ``damping`` is how much faster the higher ones fall, as a power of
    their ratio. noise, noise_decay_s, noise_hz: share, 60 dB time and upper end of the noise of the contact. rise: share by
    which the pitch rises while it decays (a bubble).
    """

    name: str
    colour: tuple[int, int, int]
    second: tuple[int, int, int]
    pattern: str
    low_hz: float
    high_hz: float
    ratios: tuple[float, ...]
    decay_s: float
    damping: float
    noise: float
    noise_decay_s: float
    noise_hz: float
    rise: float = 0.0


# Free bars have the ratios 1, 2.76, 5.40, 8.93, ...; round membranes 1, 1.59, 2.14, 2.30, ... (Fletcher and Rossing, The
# Physics of Musical Instruments, chapters 2 and 3).
_ALL = (
    Material("wood", (150, 96, 48), (104, 62, 26), "stripes", 260, 640, (1, 2.76, 5.40, 8.93), 0.22, 0.9, 0.25, 0.03, 4000),
    Material(
        "metal",
        (150, 158, 172),
        (236, 240, 248),
        "shine",
        420,
        1100,
        (1, 2.76, 5.40, 8.93, 13.3),
        2.2,
        0.55,
        0.06,
        0.02,
        7500,
    ),
    Material(
        "glass",
        (150, 222, 226),
        (226, 252, 252),
        "rim",
        1500,
        2900,
        (1, 1.58, 2.32, 2.74),
        0.75,
        0.6,
        0.12,
        0.012,
        7800,
    ),
    Material(
        "drum",
        (236, 222, 186),
        (150, 30, 34),
        "skin",
        82,
        190,
        (1, 1.59, 2.14, 2.30, 2.65, 2.92),
        0.6,
        0.8,
        0.35,
        0.07,
        2200,
    ),
    Material("rubber", (48, 46, 52), (84, 82, 92), "dots", 70, 150, (1, 1.9), 0.11, 0.5, 0.3, 0.05, 600),
    Material(
        "water", (36, 92, 190), (120, 176, 240), "waves", 480, 980, (1, 1.47, 2.09), 0.32, 0.4, 0.5, 0.22, 6500, rise=0.35
    ),
)


def material(name: str) -> Material:
    """The material called ``name``, one of MATERIALS."""
    return _ALL[MATERIALS.index(name)]
