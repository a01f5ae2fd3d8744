"""Where a stick's head or a ball is at a time: (x, height over the top of the thing), contact exactly at each hit."""

from __future__ import annotations

from bisect import bisect_right

from .plan import DURATION_S, FASTEST, GAP_S, GRAVITY, Hit, Thing

FALL_S = 0.16
"""Time of a stick's stroke, from its highest point to contact."""
HIGHEST = 78.0
"""Pixels that a stick is raised for strength 1."""
AWAY = 150.0
"""Height of a ball that is not in the picture."""


def stick_height(strength: float) -> float:
    return HIGHEST * (0.12 + 0.88 * strength)


def stick_at(hits: tuple[Hit, ...], things: tuple[Thing, ...], time_s: float) -> tuple[float, float, int]:
    """(x, height, number of the thing below): raised in time, then a stroke that gets faster until contact."""
    after = bisect_right([h.time_s for h in hits], time_s)
    last, coming = hits[after - 1] if after else None, hits[after] if after < len(hits) else None
    if coming is None:
        assert last is not None
        up = _ease((time_s - last.time_s) / 0.5)
        return things[last.thing].x, up * stick_height(0.25), last.thing
    x, high = things[coming.thing].x, stick_height(coming.strength)
    start = last.time_s if last else coming.time_s - 4 * FALL_S
    fall = min(FALL_S, 0.45 * (coming.time_s - start))
    begin = coming.time_s - fall
    if time_s >= begin:
        return x, high * (1 - ((time_s - begin) / fall) ** 2), coming.thing
    if last is None:
        return x, high, coming.thing
    part = _ease((time_s - start) / (begin - start))
    return things[last.thing].x * (1 - part) + x * part, high * part, coming.thing


def ball_at(hits: tuple[Hit, ...], things: tuple[Thing, ...], time_s: float) -> tuple[float, float, int]:
    """The same for a ball: parabolas between bounces; between falls it is away."""
    after = bisect_right([h.time_s for h in hits], time_s)
    if after < len(hits):
        coming = hits[after]
        left = coming.time_s - time_s
        speed = coming.strength * FASTEST
        height = speed * left - 0.5 * GRAVITY * left * left
        if (after and _bounces(hits[after - 1], coming)) or left <= speed / GRAVITY:
            return things[coming.thing].x, max(height, 0.0), coming.thing
    if after:
        # After its last bounce it rolls off behind the thing.
        last = hits[after - 1]
        since = time_s - last.time_s
        speed = min(0.4 * last.strength * FASTEST, 0.5 * GRAVITY * GAP_S)
        height = speed * since - 0.5 * GRAVITY * since * since
        if since < 2 * speed / GRAVITY:
            return things[last.thing].x + 60 * since, height, last.thing
    return -100.0, AWAY, 0


def _bounces(last: Hit, coming: Hit) -> bool:
    flight = 2 * coming.strength * FASTEST / GRAVITY
    return last.thing == coming.thing and abs(coming.time_s - last.time_s - flight) < 1e-6


def _ease(part: float) -> float:
    part = min(max(part, 0.0), 1.0)
    return part * part * (3 - 2 * part)


def tool_at(tool: str, hits: tuple[Hit, ...], things: tuple[Thing, ...], time_s: float) -> tuple[float, float, int]:
    """``stick_at`` or ``ball_at``."""
    assert 0 <= time_s <= DURATION_S
    return (stick_at if tool == "stick" else ball_at)(hits, things, time_s)
