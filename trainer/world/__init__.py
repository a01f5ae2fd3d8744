"""A small world whose truth is known: 8 s of pictures, sound, words and exact event times from a seed.

What is seen tells what is heard: the material by its look, the strength by height, speed and shaking, the time by contact.
Everything is numpy in float64, rounded once to 8 and 16 bits, so a seed gives the same clip everywhere.
"""

from .clip import DURATION_S, FPS, HELD_OUT_SEED, SIZE, WorldClip, make_clip
from .materials import MATERIALS
from .plan import SCENES, STRIKE_SCENES, Event
from .unseen import WorldSound, make_sound

__all__ = [
    "DURATION_S",
    "FPS",
    "HELD_OUT_SEED",
    "MATERIALS",
    "SCENES",
    "SIZE",
    "STRIKE_SCENES",
    "Event",
    "WorldClip",
    "WorldSound",
    "make_clip",
    "make_sound",
]
