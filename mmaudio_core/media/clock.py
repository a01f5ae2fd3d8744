"""Stamps that a file carries to the times at which its pictures and its sound are shown, also where the stamps lie."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import pairwise
from statistics import median_low
from typing import Any, TypeVar

T = TypeVar("T")
_AHEAD = 8
"""Stamps looked at beyond a doubtful one, to see whether it or those before it are wrong; their frames are held meanwhile."""
_USUAL_STEPS = 4
_USUAL_S = Fraction(1, 4)
"""A stamp no further from the last one than this, and than a few steps, is not doubted."""
_RECENT_STEPS = 15
_LONGEST_HEADER_STEP_S = Fraction(1)
_BREAK_S = Fraction(10)
"""A longer gap in a format whose clock may jump is a jump (players agree), in others it needs a stated length to match."""
_STATED_SLACK_S = Fraction(1)
_LONGEST_GAP_S = Fraction(600)
_SAME_BREAK_S = Fraction(1)
_LEAST_OF_STEP = 100
_MOST_WAITING = 512
_CLOCK_MAY_JUMP = 0x200
"""FFmpeg's format flag AVFMT_TS_DISCONT: broadcasts, and files joined end to end."""


def clock_may_jump(container: Any) -> bool:
    """Whether the format allows its clock to begin anew midway (MPEG-TS, MPEG-PS)."""
    return bool(int(container.format.flags) & _CLOCK_MAY_JUMP)


class ShownClock:
    """Places items (frames, packets, blocks of sound) on one rising line of time, by the stamps that they carry.

    Stamps of an honest file come out as they are, whatever their gaps. A stamp that the next ones contradict is set aside.
    Where they go on from another place for good (files joined end to end, a clock that wraps or jumps), time goes on without a
    break. So the line never falls, and it never grows by more than ten minutes at once, or ten seconds without a reason.

    step: seconds from one item to the next by the header; only used until the stamps themselves say it.
    jumps: the format's clock may jump (see :func:`clock_may_jump`).
    stated_end: where the file says that it ends, on its own clock; ``None`` where it does not.
    shifts: those of the pictures' clock, for a track that is to stay beside them (see ``shifts`` below).
    """

    def __init__(
        self, step: Fraction, *, jumps: bool = False, stated_end: Fraction | None = None, shifts: Sequence[Fraction] = ()
    ) -> None:
        self._header_step = min(step, _LONGEST_HEADER_STEP_S)
        self._jumps, self._stated_end, self._known = jumps, stated_end, shifts
        self._steps: deque[Fraction] = deque(maxlen=_RECENT_STEPS)
        self._last: Fraction | None = None
        self._shift = Fraction(0)
        self.shifts: list[Fraction] = []
        """Seconds added to the stamps, from each place on where they go on from elsewhere."""

    @property
    def last(self) -> Fraction | None:
        """The time of the last item."""
        return self._last

    @property
    def step(self) -> Fraction:
        """Seconds from one item to the next, by the latest stamps."""
        return median_low(self._steps) if len(self._steps) > 1 else self._header_step

    @property
    def usual(self) -> Fraction:
        """The longest gap that is not doubted, in seconds."""
        return max(_USUAL_STEPS * self.step, _USUAL_S)

    def doubts(self, at: Fraction | None) -> bool:
        """Whether :meth:`place` should know the stamps that follow on ``at``."""
        if self._last is None:
            return True
        return at is not None and not 0 < at + self._shift - self._last <= self.usual

    def place(self, at: Fraction | None, following: Sequence[Fraction]) -> Fraction:
        """The time of the next item, which is stamped ``at`` (``None``: not at all) and followed by these stamps."""
        if self._last is None:
            self._last = self._first(at, following)
        elif at is None:
            self._last += self.step
        else:
            advance = self._advance(at, following)
            self._last += advance
            self._steps.append(advance)
        return self._last

    def _first(self, at: Fraction | None, following: Sequence[Fraction]) -> Fraction:
        stamps = [*([] if at is None else [at]), *following]
        self._steps.extend(later - earlier for earlier, later in pairwise(stamps) if later > earlier)
        if at is None:
            return following[0] - self.step if following else Fraction(0)
        lower = [other for other in following if other < at]
        if len(lower) * 4 > len(following) * 3 and len(lower) > 1:
            return lower[0] - self.step
        return at

    def _advance(self, at: Fraction, following: Sequence[Fraction]) -> Fraction:
        """Seconds from the last item to one stamped ``at``; above 0."""
        assert self._last is not None
        gap = at + self._shift - self._last
        if 0 < gap <= self.usual:
            return gap
        back = self._comes_back(gap, following)
        if back is not None:
            return min(self.step, back / 2)
        if gap > 0 and self._believed(at, gap, bool(following)):
            return gap
        if not following:
            return self.step
        shift = self._shift + self.step - gap
        self._shift = min(self._known, key=lambda known: abs(known - shift), default=shift)
        if abs(self._shift - shift) > _SAME_BREAK_S:
            self._shift = shift
        self.shifts.append(self._shift)
        return max(at + self._shift - self._last, self.step / _LEAST_OF_STEP)

    def _comes_back(self, gap: Fraction, following: Sequence[Fraction]) -> Fraction | None:
        """Seconds after the last item of the next stamp that goes on from there, where the doubtful one does not."""
        assert self._last is not None
        for count, other in enumerate(following, start=1):
            later = other + self._shift - self._last
            if 0 < later <= self.usual + count * self.step and (gap <= 0 or later < gap):
                return later
        return None

    def _believed(self, at: Fraction, gap: Fraction, goes_on: bool) -> bool:
        if gap > _LONGEST_GAP_S:
            return False
        if self._jumps:
            return gap <= _BREAK_S and goes_on
        if self._stated_end is not None:
            return at <= self._stated_end + _STATED_SLACK_S
        return gap <= _BREAK_S


def placed(
    items: Iterable[T], stamp: Callable[[T], Fraction | None], clock_of: Callable[[T], ShownClock]
) -> Iterator[tuple[T, Fraction]]:
    """Each of ``items``, in their order, with its time on its clock; items of several clocks may be mixed."""
    source = iter(items)
    waiting: deque[tuple[T, Fraction | None, ShownClock]] = deque()

    def following(clock: ShownClock) -> list[Fraction]:
        return [at for _, at, of in waiting if of is clock and at is not None]

    def look() -> bool:
        item = next(source, None)
        if item is not None:
            waiting.append((item, stamp(item), clock_of(item)))
        return item is not None

    while waiting or look():
        item, at, clock = waiting.popleft()
        known: list[Fraction] = []
        if clock.doubts(at):
            known = following(clock)
            while len(known) < _AHEAD and len(waiting) < _MOST_WAITING and look():
                known = following(clock)
        yield item, clock.place(at, known)
