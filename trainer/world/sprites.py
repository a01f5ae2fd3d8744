"""Small pictures with transparency, drawn once and then put into every frame: (h, w, 4) uint8."""

from __future__ import annotations

import numpy as np

from .materials import Material, material
from .plan import Thing

FINE = 3
"""Samples per pixel and direction while drawing, so that edges are smooth."""
BURST_RAYS = 8
Sprite = np.ndarray


def grid(height: float, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates (y, x) in pixels of the fine samples of a picture."""
    y, x = np.mgrid[0 : int(np.ceil(height)) * FINE, 0 : int(np.ceil(width)) * FINE]
    return (y + 0.5) / FINE, (x + 0.5) / FINE


def flat(mask: np.ndarray, colour: np.ndarray | tuple[int, int, int]) -> Sprite:
    """A picture of one colour (or one for each sample) where ``mask``."""
    h, w = mask.shape
    rgb = np.broadcast_to(np.asarray(colour, dtype=np.float64), (h, w, 3))
    alpha = mask.astype(np.float64).reshape(h // FINE, FINE, w // FINE, FINE).mean((1, 3))
    weighed = (rgb * mask[..., None]).reshape(h // FINE, FINE, w // FINE, FINE, 3).mean((1, 3))
    out = np.empty((h // FINE, w // FINE, 4), np.uint8)
    out[..., :3] = np.rint(weighed / np.maximum(alpha, 1e-9)[..., None])
    out[..., 3] = np.rint(alpha * 255)
    return out


def disc(radius: float, colour: tuple[int, int, int], mark: tuple[int, int, int] | None = None, turn: float = 0.0) -> Sprite:
    """A ball with a light side; with ``mark`` a stripe across it, turned by ``turn`` radians."""
    y, x = grid(2 * radius + 2, 2 * radius + 2)
    y, x = y - radius - 1, x - radius - 1
    inside = y * y + x * x <= radius * radius
    shade = 1 - 0.35 * (y + x) / (2 * radius)
    rgb = np.asarray(colour, dtype=np.float64) * shade[..., None]
    if mark is not None:
        across = np.abs(np.cos(turn) * y - np.sin(turn) * x) < radius * 0.28
        rgb = np.where(across[..., None], np.asarray(mark, dtype=np.float64), rgb)
    return flat(inside, np.clip(rgb, 0, 255))


def stick(colour: tuple[int, int, int]) -> Sprite:
    """An upright stick with a round head at its lower end: 28 wide, 92 high, the head's lowest point in the last row."""
    y, x = grid(92, 28)
    head = (y - 78.5) ** 2 + (x - 14) ** 2 <= 13.2**2
    shaft = (np.abs(x - 14) < 3.2) & (y < 72)
    rgb = np.where(head[..., None], np.asarray(colour), np.asarray((214, 190, 150)))
    return flat(head | shaft, rgb)


def burst(radius: float) -> Sprite:
    """Rays to all sides from a bright middle, as far as ``radius``: what comics draw where something is struck."""
    y, x = grid(2 * radius, 2 * radius)
    y, x = y - radius, x - radius
    far, turn = np.hypot(y, x) / radius, np.arctan2(y, x)
    rays = far < 0.45 + 0.55 * np.abs(np.cos(BURST_RAYS / 2 * turn)) ** 3
    rgb = np.where((far < 0.45)[..., None], np.asarray((255, 252, 226)), np.asarray((255, 214, 64)))
    return flat(rays, rgb)


def thing(one: Thing) -> Sprite:
    """A thing, as wide and high as it is, its top edge in the first row."""
    m = material(one.material)
    y, x = grid(one.height, one.width)
    height, width = one.height, one.width
    across, down = x / width, y / height
    inside = (x < width) & (y < height)
    if one.disc:
        round_end = height / 2
        end = np.maximum(np.maximum(round_end - x, x - (width - round_end)), 0)
        inside &= end**2 + (y - height / 2) ** 2 <= round_end**2
    return flat(inside, texture(m, across, down, x, y))


def texture(m: Material, across: np.ndarray, down: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """RGB of a material at places given in shares of its width and height and in pixels."""
    first, second = np.asarray(m.colour, dtype=np.float64), np.asarray(m.second, dtype=np.float64)
    if m.pattern == "stripes":  # grain of wood
        share = 0.5 + 0.5 * np.sin(1.1 * y + 1.4 * np.sin(0.09 * x))
    elif m.pattern == "shine":  # a bright band across polished metal
        share = np.exp(-(((across - 0.35 - 0.25 * down) / 0.12) ** 2)) + 0.5 * np.exp(-(((across - 0.75) / 0.05) ** 2))
    elif m.pattern == "rim":  # clear inside, bright at the edges
        edge = np.minimum(np.minimum(across, 1 - across) * 4, np.minimum(down, 1 - down) * 2)
        share = np.clip(1 - 2.5 * edge, 0, 1)
    elif m.pattern == "skin":  # a light skin over a red body
        share = (down > 0.32).astype(np.float64)
    elif m.pattern == "dots":
        share = ((np.mod(x, 7) - 3.5) ** 2 + (np.mod(y, 7) - 3.5) ** 2 < 4).astype(np.float64)
    else:  # waves
        share = 0.5 + 0.5 * np.sin(0.55 * x + 2.2 * np.sin(0.5 * y))
    return first + np.clip(share, 0, 1)[..., None] * (second - first)


def put(frame: np.ndarray, sprite: Sprite, left: float, top: float) -> None:
    """Puts a picture into ``frame`` (H, W, 3) uint8, its corner at the nearest pixel; what is outside is cut off."""
    x, y = int(np.rint(left)), int(np.rint(top))
    x0, y0 = max(x, 0), max(y, 0)
    x1, y1 = min(x + sprite.shape[1], frame.shape[1]), min(y + sprite.shape[0], frame.shape[0])
    if x1 <= x0 or y1 <= y0:
        return
    part = sprite[y0 - y : y1 - y, x0 - x : x1 - x]
    alpha = part[..., 3:].astype(np.uint16)
    below = frame[y0:y1, x0:x1]
    below[:] = (part[..., :3] * alpha + below * (255 - alpha) + 127) // 255
