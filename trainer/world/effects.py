"""Backdrop, splashes, and what lasts: rolling, scraping, rain, wind in a tree, an engine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .plan import FLOOR_Y, SIZE, Hit, Lasting, Scene
from .sprites import FINE, burst, disc, flat, grid, put, stick

MARGIN = 16
Draw = Callable[[np.ndarray, float, float], None]
"""(frame, time_s, sway): draws into the frame."""
ROLL_TRAVEL = 118.0
"""Pixels of a plank that a ball rolls along at the most."""
SCRAPE_TRAVEL = 44.0
TURNS = 24
BURST_S = 0.12
BURST_LEAST, BURST_MORE = 14.0, 26.0
"""Pixels of a mark's radius for strength 0, and what strength 1 adds."""


class Backdrop:
    """A wall and a floor, wider than the picture, seen a little shifted."""

    def __init__(self, rng: np.random.Generator) -> None:
        wall, floor = rng.integers(110, 230, 3), rng.integers(60, 150, 3)
        height, width = SIZE, SIZE + 2 * MARGIN
        y, x = np.mgrid[0:height, 0:width]
        light = 1 - 0.25 * y / height + 0.06 * np.sin(x / rng.uniform(14, 40) + rng.uniform(0, 6))
        colours = np.where((y >= FLOOR_Y)[..., None], floor, wall) * light[..., None]
        colours += rng.normal(0, 3.0, (height, width, 1))
        self._picture = np.clip(np.rint(colours), 0, 255).astype(np.uint8)

    def view(self, sway: float) -> np.ndarray:
        left = MARGIN - int(np.clip(np.rint(sway), -MARGIN, MARGIN))
        return self._picture[:, left : left + SIZE].copy()


def splash(frame: np.ndarray, scene: Scene, hits: tuple[Hit, ...], drops: np.ndarray, time_s: float, sway: float) -> None:
    """Drops that fly up from water, more and higher after a hard strike."""
    for hit in hits:
        one, since = scene.things[hit.thing], time_s - hit.time_s
        if one.material != "water" or not 0 <= since < 0.6:
            continue
        count = 6 + int(18 * hit.strength)
        up = (60 + 110 * hit.strength) * (0.6 + 0.4 * np.abs(drops[:count, 1]))
        height = up * since - 260 * since * since
        x = one.x + sway + 70 * drops[:count, 0] * since
        inside = height > 0
        rows = np.clip((one.top - height[inside]).astype(int), 0, SIZE - 2)
        columns = np.clip(x[inside].astype(int), 0, SIZE - 2)
        for dy in (0, 1):
            for dx in (0, 1):
                frame[rows + dy, columns + dx] = (150, 200, 250)


class Bursts:
    """Marks of strikes, larger for a hard one, growing until they are gone: when and how hard something is struck shows in
    every picture of the first ``BURST_S``, also where the tool is small."""

    def __init__(self) -> None:
        self._pictures: dict[int, np.ndarray] = {}

    def draw(self, frame: np.ndarray, scene: Scene, hits: tuple[Hit, ...], time_s: float, sway: float) -> None:
        for hit in hits:
            since = time_s - hit.time_s
            if not 0 <= since < BURST_S:
                continue
            radius = round((0.55 + 0.45 * since / BURST_S) * (BURST_LEAST + BURST_MORE * hit.strength))
            picture = self._picture(radius)
            one = scene.things[hit.thing]
            put(frame, picture, one.x - radius + sway, one.top - radius)

    def _picture(self, radius: int) -> np.ndarray:
        if radius not in self._pictures:
            self._pictures[radius] = burst(radius)
        return self._pictures[radius]


def draw_lasting(scene: Scene, rng: np.random.Generator) -> Draw:
    """What draws the lasting parts of a scene; nothing for one without."""
    if not scene.lasting:
        return lambda frame, time_s, sway: None
    makers: dict[str, Callable[[Scene, np.random.Generator], Draw]] = {
        "roll": _roll,
        "scrape": _scrape,
        "rain": _rain,
        "wind": _wind,
        "engine": _engine,
    }
    return makers[scene.lasting[0].kind](scene, rng)


def place(one: Lasting, time_s: float) -> float:
    """Where what rolls or scrapes is on its way, in [-1, 1], as a function of time; outside of its time it stands."""
    since = min(max(time_s, one.start_s), one.end_s) - one.start_s
    if one.kind == "scrape":
        return float(np.sin(2 * np.pi * one.rate_hz * since)) * one.speed
    share = since / (one.end_s - one.start_s)
    travelled = one.speed * (one.end_s - one.start_s) * (share - np.sin(2 * np.pi * share) / (2 * np.pi))
    # To and fro along the plank, as on a track that bends back on itself.
    return float(1 - abs((travelled * 0.9) % 4 - 2)) * -1


def _roll(scene: Scene, rng: np.random.Generator) -> Draw:
    plank = scene.things[0]
    radius = float(rng.uniform(9, 13))
    colour = tuple(int(c) for c in rng.integers(80, 230, 3))
    balls = [disc(radius, (colour[0], colour[1], colour[2]), (250, 250, 250), np.pi * k / TURNS) for k in range(TURNS)]

    def draw(frame: np.ndarray, time_s: float, sway: float) -> None:
        along = ROLL_TRAVEL / 2 * place(_current(scene.lasting, time_s), time_s)
        turn = int(np.rint(along / radius * TURNS / np.pi)) % TURNS
        put(frame, balls[turn], plank.x + along - radius - 1 + sway, plank.top - 2 * radius - 1)

    return draw


def _scrape(scene: Scene, rng: np.random.Generator) -> Draw:
    plank = scene.things[0]
    picture = stick((70, 70, 80))

    def draw(frame: np.ndarray, time_s: float, sway: float) -> None:
        one = _current(scene.lasting, time_s)
        along = SCRAPE_TRAVEL * place(one, time_s)
        lifted = 0 if one.start_s <= time_s < one.end_s else 14
        put(frame, picture, plank.x + along - picture.shape[1] / 2 + sway, plank.top - 92 - lifted)

    return draw


def _current(lasting: tuple[Lasting, ...], time_s: float) -> Lasting:
    """The one that goes on, or went on last; before all, the first."""
    begun = [one for one in lasting if one.start_s <= time_s]
    return begun[-1] if begun else lasting[0]


def _rain(scene: Scene, rng: np.random.Generator) -> Draw:
    count = int(40 + 220 * scene.lasting[0].speed)
    x, y = rng.uniform(0, SIZE, count), rng.uniform(0, SIZE, count)
    speed = rng.uniform(320, 420, count)

    def draw(frame: np.ndarray, time_s: float, sway: float) -> None:
        rows = (y + speed * time_s) % SIZE
        columns = ((x + sway) % SIZE).astype(int)
        for k in range(9):
            frame[((rows + k) % SIZE).astype(int), columns] = (206, 220, 236)

    return draw


def _wind(scene: Scene, rng: np.random.Generator) -> Draw:
    one = scene.lasting[0]
    y, x = grid(96, 12)
    trunk = flat(np.abs(x - 6) < 4 + 0 * y, (92, 62, 36))
    leaves = [disc(float(r), (int(40 + 4 * r), int(110 + 3 * r), 50)) for r in rng.uniform(13, 24, 11)]
    at = np.stack((rng.uniform(-40, 40, 11), rng.uniform(20, 92, 11)), 1)

    def draw(frame: np.ndarray, time_s: float, sway: float) -> None:
        put(frame, trunk, 106 + sway, FLOOR_Y - 96)
        lean = gust(one, time_s)
        for picture, (dx, up) in zip(leaves, at, strict=True):
            put(frame, picture, 112 + dx + 26 * lean * up / 92 - picture.shape[1] / 2 + sway, FLOOR_Y - 40 - up)

    return draw


def gust(one: Lasting, time_s: float | np.ndarray) -> np.ndarray:
    """How strongly the wind blows at a time, in [0, 1]."""
    slow = np.sin(2 * np.pi * 0.11 * one.rate_hz * np.asarray(time_s)) * np.sin(
        2 * np.pi * 0.17 * np.asarray(time_s) + one.rate_hz
    )
    return np.asarray(one.speed * (0.5 + 0.5 * slow))


def _engine(scene: Scene, rng: np.random.Generator) -> Draw:
    one = scene.lasting[0]
    wheels = []
    for k in range(2 * TURNS):
        y, x = grid(84, 84)
        y, x = y - 42, x - 42
        r, turn = np.hypot(y, x), np.arctan2(y, x) - np.pi * k / TURNS
        rim = (r < 40) & (r > 32)
        spokes = (r < 33) & ((np.abs(np.sin(turn)) * r < 4) | (np.abs(np.cos(turn)) * r < 4))
        marked = np.where(((np.mod(turn, 2 * np.pi) < 0.5) & rim)[..., None], (230, 60, 50), (58, 60, 66))
        wheels.append(flat(rim | spokes, marked))
    block = flat(np.ones((30 * FINE, 60 * FINE), bool), (96, 100, 110))

    def draw(frame: np.ndarray, time_s: float, sway: float) -> None:
        turned = one.rate_hz * time_s
        put(frame, wheels[int(turned * 2 * TURNS) % (2 * TURNS)], 70 + sway, FLOOR_Y - 84)
        put(frame, block, 132 + sway, FLOOR_Y - 40 - 16 * np.sin(2 * np.pi * turned))

    return draw
