"""Progress bars of the long steps, on a terminal only."""

from __future__ import annotations

from typing import Any


class Bars:
    """Turns (stage, done, in all) into one tqdm bar after another; a total of 0 means unknown."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._stage = ""
        self._bar: Any = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._quiet:
            return
        if stage != self._stage:
            self.close()
            from tqdm import tqdm

            self._stage = stage
            # disable=None: silent where stderr is no terminal.
            self._bar = tqdm(total=total or None, desc=f"{stage:<12}", unit_scale=True, disable=None)
        self._bar.update(done - self._bar.n)
        if total and done >= total:
            self.close()

    def close(self) -> None:
        """Ends the current bar."""
        if self._bar is not None:
            self._bar.close()
        self._bar, self._stage = None, ""
