"""What happens in a clip, drawn from a seed: things, who strikes them when and how hard, and how it is filmed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .materials import MATERIALS

DURATION_S = 8.0
SIZE = 224
"""Pixels of a side of the square picture."""
FLOOR_Y = 176.0
GAP_S = 0.22
"""Least time between two strikes of a clip."""
STRIKE_SCENES = ("stick", "ball", "two")
SCENES = (*STRIKE_SCENES, "roll", "scrape", "rain", "wind", "engine")
_SHARES = (0.42, 0.2, 0.12, 0.07, 0.07, 0.04, 0.04, 0.04)
GRAVITY = 420.0
"""Pixels per second squared: slow enough for a ball to be seen falling."""
FASTEST = 340.0
"""Pixels per second of a ball that strikes with strength 1."""


@dataclass(frozen=True)
class Event:
    """Something heard at a time; for what lasts, its beginning. ``strength`` in (0, 1]."""

    time_s: float
    kind: str
    material: str
    strength: float


@dataclass(frozen=True)
class Thing:
    """Something that can be struck: the middle of its top edge, and its size in pixels; ``disc`` has round ends."""

    material: str
    x: float
    top: float
    width: float
    height: float
    disc: bool

    @property
    def smallness(self) -> float:
        """0 for the largest, 1 for the smallest: what its pitch follows."""
        return min(max((76 - self.width) / 40, 0.0), 1.0)


@dataclass(frozen=True)
class Hit:
    """One strike on thing number ``thing``."""

    time_s: float
    thing: int
    strength: float


@dataclass(frozen=True)
class Lasting:
    """What goes on for a while: ``speed`` in (0, 1] is how fast or dense it is, ``rate_hz`` how often it turns or goes to and
    fro."""

    kind: str
    start_s: float
    end_s: float
    thing: int
    speed: float
    rate_hz: float


@dataclass(frozen=True)
class Distractor:
    """Moves and makes no sound: "bird" passes through, "pendulum" swings."""

    kind: str
    x: float
    y: float
    rate_hz: float
    phase: float
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class Camera:
    """Sways by ``sway`` pixels ``rate_hz`` times a second; from ``cut_s`` on (the end: never) it is nearer by ``zoom``."""

    sway: float
    rate_hz: float
    phase: float
    cut_s: float
    zoom: float


@dataclass(frozen=True)
class Scene:
    """A whole clip. ``strikers`` has one tuple of hits for each stick or ball; ``steady_hz`` is 0 without a steady beat."""

    kind: str
    things: tuple[Thing, ...]
    strikers: tuple[tuple[Hit, ...], ...]
    tools: tuple[str, ...]
    lasting: tuple[Lasting, ...]
    distractors: tuple[Distractor, ...]
    camera: Camera
    steady_hz: float

    @property
    def events(self) -> tuple[Event, ...]:
        """Everything that begins to be heard, in order of time."""
        hits = [h for striker in self.strikers for h in striker]
        out = [Event(h.time_s, "strike", self.things[h.thing].material, h.strength) for h in hits]
        for one in self.lasting:
            name = self.things[one.thing].material if self.things else ""
            out.append(Event(one.start_s, one.kind, name, one.speed))
        return tuple(sorted(out, key=lambda e: e.time_s))


def draw_scene(rng: np.random.Generator, kind: str | None = None) -> Scene:
    """A scene of one of SCENES, or of a kind drawn by how usual it is."""
    kind = str(rng.choice(SCENES, p=_SHARES)) if kind is None else kind
    things = _things(rng, kind)
    strikers: list[tuple[Hit, ...]] = []
    tools: list[str] = []
    steady_hz = 0.0
    if kind in ("stick", "two"):
        hits, steady_hz = _stick_hits(rng, len(things))
        strikers, tools = [hits], ["stick"]
    if kind in ("ball", "two"):
        hits = _ball_hits(rng, len(things))
        if strikers:
            hits = _apart(hits, strikers[0])
        if hits:
            strikers, tools = [*strikers, hits], [*tools, "ball"]
    return Scene(
        kind=kind,
        things=things,
        strikers=tuple(strikers),
        tools=tuple(tools),
        lasting=_lasting(rng, kind),
        distractors=tuple(_distractor(rng) for _ in range(int(rng.choice([0, 1, 2], p=[0.55, 0.3, 0.15])))),
        camera=_camera(rng),
        steady_hz=steady_hz,
    )


def _things(rng: np.random.Generator, kind: str) -> tuple[Thing, ...]:
    if kind in ("rain", "wind", "engine"):
        return ()
    count = 1 if kind in ("roll", "scrape") else int(rng.choice([1, 2, 3], p=[0.5, 0.32, 0.18]))
    middles = {1: [112.0], 2: [66.0, 158.0], 3: [44.0, 112.0, 180.0]}[count]
    widest = {1: 76.0, 2: 70.0, 3: 54.0}[count]
    materials = rng.permutation(MATERIALS)[:count] if rng.random() < 0.8 else rng.choice(MATERIALS, count)
    out = []
    for x, name in zip(middles, materials, strict=True):
        width = float(rng.uniform(36, widest))
        height = float(rng.uniform(18, 34))
        if kind in ("roll", "scrape"):
            width, height = 150.0, float(rng.uniform(16, 26))
            name = str(rng.choice([m for m in MATERIALS if m != "water"]))
        thing = Thing(str(name), x + float(rng.uniform(-8, 8)), FLOOR_Y - height, width, height, bool(rng.random() < 0.4))
        out.append(replace(thing, disc=thing.disc and kind not in ("roll", "scrape") and name != "water"))
    return tuple(out)


def _stick_hits(rng: np.random.Generator, things: int) -> tuple[tuple[Hit, ...], float]:
    """Strikes of a stick: steady or free; hard and soft ones. With them the beat, 0 when free."""
    first = float(rng.uniform(0.3, 1.5))
    steady_hz = 0.0
    if rng.random() < 0.45:
        steady_hz = float(rng.choice([0.75, 1.0, 1.5, 2.0, 2.5]))
        times = np.arange(first, DURATION_S - 0.3, 1 / steady_hz)
        times = times[: int(rng.integers(3, 16))]
    else:
        times = first + np.cumsum(rng.exponential(0.75, 24) + GAP_S)
        times = times[times < DURATION_S - 0.3][: int(rng.integers(2, 14))]
        times = np.append(first, times) if len(times) == 0 else times
    even = rng.random() < 0.4
    level = float(rng.uniform(0.3, 1.0))
    strengths = np.full(len(times), level) if even else rng.uniform(0.15, 1.0, len(times))
    where = rng.integers(0, things, len(times)) if rng.random() < 0.6 else np.arange(len(times)) % things
    hits = tuple(Hit(float(t), int(i), float(s)) for t, i, s in zip(times, where, strengths, strict=True))
    return hits, steady_hz


def _ball_hits(rng: np.random.Generator, things: int) -> tuple[Hit, ...]:
    """Falls of a ball that then bounces, lower each time; one to three times."""
    hits: list[Hit] = []
    time_s = float(rng.uniform(0.5, 1.6))
    while time_s < DURATION_S - 0.4 and len(hits) < 16:
        thing = int(rng.integers(0, things))
        speed, kept = float(rng.uniform(170, FASTEST)), float(rng.uniform(0.55, 0.82))
        while 2 * speed / GRAVITY > GAP_S and time_s < DURATION_S - 0.25:
            hits.append(Hit(time_s, thing, min(speed / FASTEST, 1.0)))
            speed *= kept
            time_s += 2 * speed / GRAVITY
        time_s += float(rng.uniform(0.9, 2.4))
        if rng.random() < 0.35:
            break
    return tuple(hits)


def _apart(hits: tuple[Hit, ...], others: tuple[Hit, ...]) -> tuple[Hit, ...]:
    """The ball's hits, if none is too near to one of the stick's in time or on its thing; else none at all."""
    clash = any(abs(h.time_s - o.time_s) < GAP_S or h.thing == o.thing for h in hits for o in others)
    return () if clash else hits


def _lasting(rng: np.random.Generator, kind: str) -> tuple[Lasting, ...]:
    if kind in STRIKE_SCENES:
        return ()
    speed, rate_hz = float(rng.uniform(0.35, 1.0)), float(rng.uniform(0.8, 3.0))
    if kind in ("rain", "wind", "engine"):
        return (Lasting(kind, 0.0, DURATION_S, 0, speed, rate_hz),)
    out, start = [], float(rng.uniform(0.3, 1.2))
    while start < DURATION_S - 1.4:
        end = min(start + float(rng.uniform(1.0, 2.6)), DURATION_S - 0.3)
        out.append(Lasting(kind, start, end, 0, float(rng.uniform(0.35, 1.0)), rate_hz))
        start = end + float(rng.uniform(0.7, 1.8))
    return tuple(out)


def _distractor(rng: np.random.Generator) -> Distractor:
    colour = tuple(int(c) for c in rng.integers(60, 240, 3))
    return Distractor(
        str(rng.choice(["bird", "pendulum"])),
        float(rng.uniform(20, 204)),
        float(rng.uniform(14, 60)),
        float(rng.uniform(0.1, 0.7)),
        float(rng.uniform(0, 2 * np.pi)),
        (colour[0], colour[1], colour[2]),
    )


def _camera(rng: np.random.Generator) -> Camera:
    sway = float(rng.uniform(3, 10)) if rng.random() < 0.35 else 0.0
    cut_s = float(rng.uniform(2.0, 6.0)) if rng.random() < 0.2 else DURATION_S
    zoom = float(rng.uniform(1.1, 1.3)) if rng.random() < 0.8 else 1.0
    return Camera(sway, float(rng.uniform(0.05, 0.3)), float(rng.uniform(0, 2 * np.pi)), cut_s, zoom)
