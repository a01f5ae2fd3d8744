"""Asked to stop (SIGTERM of a scheduler, Ctrl-C), a run ends at a step that all ranks agree on, and saves first."""

from __future__ import annotations

import logging
import signal
import time
from types import FrameType
from typing import Any

from .distributed import Ranks, any_rank

SAME_REQUEST_S = 5.0
"""A terminal and torchrun both pass Ctrl-C on; what comes within this time is the same wish."""
log = logging.getLogger("mmaudio")


class StopRequest:
    """Within ``with StopRequest() as stop``, SIGTERM and SIGINT only set a flag; ``stop.agreed(ranks)`` is asked once a step.

    A SIGINT more than 5 s after the first ends the process at once (KeyboardInterrupt). To be entered in the main thread. What
    handled the signals before is put back at the end.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._at_s = 0.0
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for signum in (signal.SIGTERM, signal.SIGINT):
            self._previous[signum] = signal.signal(signum, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    @property
    def requested(self) -> bool:
        """Whether this process was asked; other ranks may not have been."""
        return self.signum is not None

    @property
    def exit_code(self) -> int:
        """What a command ended by the signal returns: 130 after Ctrl-C, else 143."""
        return 130 if self.signum == signal.SIGINT else 143

    def agreed(self, ranks: Ranks) -> bool:
        """Whether any rank was asked to stop: the same answer on all ranks, all of which must call."""
        return any_rank(self.requested, ranks)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        now_s = time.monotonic()
        if self.signum is None:
            self.signum, self._at_s = signum, now_s
            log.info("Asked to stop (%s): saving after this step.", signal.Signals(signum).name)
        elif signum == signal.SIGINT and now_s - self._at_s > SAME_REQUEST_S:
            raise KeyboardInterrupt
