"""The frames of a scene: what is the same in all of them is drawn once, what moves is put at its place for the time."""

from __future__ import annotations

import numpy as np

from .effects import Backdrop, Bursts, draw_lasting, splash
from .motion import tool_at
from .plan import DURATION_S, SIZE, Distractor, Hit, Scene
from .sprites import disc, put, stick, thing

FPS = 25
STICKS = ((196, 60, 48), (60, 150, 70), (240, 190, 60), (120, 80, 180))
BALLS = ((230, 120, 40), (40, 160, 210), (220, 60, 140), (250, 230, 90))
SHAKE_PX, SHAKE_S = 9.0, 0.09
"""How far a thing moves at a strike of strength 1, and how fast that dies out."""


def draw_frames(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """(frames, SIZE, SIZE, 3) uint8, frame k as it is at k / FPS."""
    backdrop = Backdrop(rng)
    things = [thing(one) for one in scene.things]
    tools = []
    for kind in scene.tools:
        if kind == "stick":
            tools.append(stick(STICKS[int(rng.integers(len(STICKS)))]))
        else:
            tools.append(disc(float(rng.uniform(11, 15)), BALLS[int(rng.integers(len(BALLS)))], (250, 250, 250), 0.6))
    drops = rng.uniform(-1, 1, (24, 2))
    lasting, bursts = draw_lasting(scene, rng), Bursts()
    extras = [disc(7, d.colour) for d in scene.distractors]
    frames = np.empty((round(DURATION_S * FPS), SIZE, SIZE, 3), np.uint8)
    for k in range(len(frames)):
        time_s = k / FPS
        sway = scene.camera.sway * np.sin(2 * np.pi * scene.camera.rate_hz * time_s + scene.camera.phase)
        frame = backdrop.view(sway)
        for distractor, picture in zip(scene.distractors, extras, strict=True):
            _distract(frame, distractor, picture, time_s, sway)
        for index, (one, picture) in enumerate(zip(scene.things, things, strict=True)):
            down = _shake(scene, index, time_s)
            put(frame, picture, one.x - one.width / 2 + sway, one.top + down)
        for kind, hits, picture in zip(scene.tools, scene.strikers, tools, strict=True):
            _tool(frame, scene, kind, hits, picture, time_s, sway)
            bursts.draw(frame, scene, hits, time_s, sway)
            splash(frame, scene, hits, drops, time_s, sway)
        lasting(frame, time_s, sway)
        frames[k] = _zoomed(frame, scene.camera.zoom) if time_s >= scene.camera.cut_s else frame
    return frames


def _tool(
    frame: np.ndarray, scene: Scene, kind: str, hits: tuple[Hit, ...], picture: np.ndarray, time_s: float, sway: float
) -> None:
    x, height, below = tool_at(kind, hits, scene.things, time_s)
    bottom = scene.things[below].top - height
    put(frame, picture, x - picture.shape[1] / 2 + sway, bottom - picture.shape[0])


def _shake(scene: Scene, index: int, time_s: float) -> float:
    """Pixels by which a thing is pushed down after the strikes on it."""
    out = 0.0
    for hits in scene.strikers:
        for hit in hits:
            since = time_s - hit.time_s
            if hit.thing == index and 0 <= since < 6 * SHAKE_S:
                out += SHAKE_PX * hit.strength * np.exp(-since / SHAKE_S) * np.cos(2 * np.pi * 7 * since)
    return float(out)


def _distract(frame: np.ndarray, one: Distractor, picture: np.ndarray, time_s: float, sway: float) -> None:
    angle = 2 * np.pi * one.rate_hz * time_s + one.phase
    if one.kind == "bird":
        x = (one.x + 60 * one.rate_hz * time_s) % (SIZE + 40) - 20
        put(frame, picture, x + sway / 2, one.y + 8 * np.sin(3 * angle))
    else:
        put(frame, picture, one.x + 26 * np.sin(angle) + sway / 2, one.y + 14 * np.cos(angle) ** 2)


def _zoomed(frame: np.ndarray, zoom: float) -> np.ndarray:
    """The lower middle of the picture, nearer."""
    side = SIZE / zoom
    left, top = (SIZE - side) / 2, SIZE - side - 8 / zoom
    rows = np.clip((top + (np.arange(SIZE) + 0.5) / zoom).astype(int), 0, SIZE - 1)
    columns = np.clip((left + (np.arange(SIZE) + 0.5) / zoom).astype(int), 0, SIZE - 1)
    return np.asarray(frame[rows][:, columns])
