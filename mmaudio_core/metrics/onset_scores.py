"""How well times of onsets agree with those they should have.

The idea and ``PAPER_WINDOW_S`` come from arXiv 2412.15322, appendix C. The numbers do not compare with the paper's: its script
counts hits over true onsets as accuracy and takes AP and F1 of the confidences of matched detections, file by file.

A clip is a pair: the reference times in s, and the ``Onsets`` that were detected. Clips are pooled: every onset counts alike,
whichever clip it is in. An onset is right when it is matched to a reference time of its clip, one to one, not further away than
the window to either side.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from ..errors import InputError
from .onsets import Onsets

PAPER_WINDOW_S = 0.3
STRICT_WINDOW_S = 0.05
_ROUNDING_S = 1e-9
"""So that 1.05 lies within 0.05 of 1.0."""
Clip = tuple[Sequence[float], Onsets]


class OnsetScores(NamedTuple):
    """Shares in [0, 1]."""

    precision: float
    recall: float
    f1: float


def match_times(reference_s: Sequence[float], detected_s: Sequence[float], window_s: float) -> list[tuple[int, int]]:
    """Pairs (index in ``reference_s``, index in ``detected_s``), both in order of time; no other choice gives more pairs.

    Raises:
        InputError: for a window below 0, or times that are not in order or not finite.
    """
    if not 0 <= window_s < math.inf:
        raise InputError(f"A window of {window_s} s was given; a number of 0 or more is needed.")
    for times in (reference_s, detected_s):
        if not all(map(math.isfinite, times)) or list(times) != sorted(times):
            raise InputError("Times that are not finite or not in order were given; sort them first.")
    pairs: list[tuple[int, int]] = []
    i = j = 0
    # All windows are of one width, so the earliest two that can be matched may always be.
    while i < len(reference_s) and j < len(detected_s):
        apart = detected_s[j] - reference_s[i]
        if abs(apart) <= window_s + _ROUNDING_S:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif apart < 0:
            j += 1
        else:
            i += 1
    return pairs


def onset_scores(clips: Sequence[Clip], window_s: float) -> OnsetScores:
    """Precision (right ones among the detected), recall (right ones among the reference) and F1, their harmonic mean.

    With nothing to find and nothing found all are 1; where only one of the two is empty all are 0.

    Raises:
        InputError: see ``match_times``.
    """
    right = sum(len(match_times(reference, found.times_s, window_s)) for reference, found in clips)
    wanted, detected = sum(len(reference) for reference, _ in clips), sum(len(found.times_s) for _, found in clips)
    if not wanted and not detected:
        return OnsetScores(1.0, 1.0, 1.0)
    precision, recall = right / max(detected, 1), right / max(wanted, 1)
    return OnsetScores(precision, recall, 2 * right / (wanted + detected))


def onset_f1(reference_s: Sequence[float], detected_s: Sequence[float], window_s: float) -> float:
    """F1 of one clip; see ``onset_scores``."""
    found = Onsets(tuple(detected_s), (0.0,) * len(detected_s))
    return onset_scores([(reference_s, found)], window_s).f1


def onset_count_match(clips: Sequence[Clip]) -> float:
    """Share of the clips in which exactly as many onsets are detected as the reference has; when they are does not matter.

    Every clip counts once, however many onsets it has.

    Raises:
        InputError: without a clip.
    """
    if not clips:
        raise InputError("No clip was given; onset accuracy needs one or more.")
    return sum(len(reference) == len(found.times_s) for reference, found in clips) / len(clips)


def onset_average_precision(clips: Sequence[Clip], window_s: float) -> float:
    """The area under precision over recall, when the detections of all clips are taken in order of strength, strongest first.

    Each takes the nearest reference time of its clip within the window that none stronger took, or is wrong. Precision is not
    interpolated: AP = sum over right detections of the precision up to each / number of reference times. 1 with nothing to find
    and nothing found, 0 where only one of the two is empty.

    Raises:
        InputError: see ``match_times``.
    """
    for reference, found in clips:
        match_times(reference, found.times_s, window_s)  # the same checks
    wanted = sum(len(reference) for reference, _ in clips)
    # Equally strong ones in order of clip and time, so that the result does not depend on the sort.
    ranked = sorted(
        (-strength, number, time_s)
        for number, (_, found) in enumerate(clips)
        for time_s, strength in zip(found.times_s, found.strengths, strict=True)
    )
    if not wanted or not ranked:
        return float(not wanted and not ranked)
    free = [list(reference) for reference, _ in clips]
    right, area = 0, 0.0
    for rank, (_, number, time_s) in enumerate(ranked, 1):
        nearest = min(free[number], key=lambda wanted_s: abs(wanted_s - time_s), default=math.inf)
        if abs(nearest - time_s) <= window_s + _ROUNDING_S:
            free[number].remove(nearest)
            right += 1
            area += right / rank
    return area / wanted
