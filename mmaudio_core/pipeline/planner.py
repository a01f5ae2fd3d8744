"""Plans the runs of one model, from its files, its device and what is loaded already."""

from __future__ import annotations

import logging

from ..errors import InputError
from .free_memory import free_bytes
from .parts import Parts
from .plan import Memory, Plan, check_memory, plan, unplanned
from .stages import Run

log = logging.getLogger("mmaudio")

SHARE = 0.9
"""Of the free memory: allocators leave gaps, and others take some meanwhile."""


class Planner:
    """Decides once per run and says it in one sentence.

    Raises:
        InputError: when ``memory`` is no mode and no number of bytes, or wants what ``keep_parts`` False forbids.
    """

    def __init__(self, parts: Parts, memory: Memory = "auto", keep_parts: bool = True) -> None:
        self._parts, self._memory, self._keep_parts = parts, check_memory(memory), keep_parts
        if memory == "resident" and not keep_parts:
            raise InputError("Memory 'resident' was asked for, and that no parts are kept; ask for one of them.")
        self.now: Plan = unplanned(memory, keep_parts)

    def decide(self, run: Run) -> Plan:
        """The plan for ``run``, which holds until the next one; parts that it does not keep are let go.

        Raises:
            InputError: when the budget in bytes is below what the run needs.
        """
        parts = self._parts
        kinds = ["flow", "vae", "vocoder"]
        kinds += ["clip"] if run.video or run.image or run.texts else []
        kinds += ["synchformer"] if run.video else []
        free = free_bytes(parts.device)
        if free is not None:
            free = int(SHARE * free) + parts.releasable_bytes()
        with parts.report.stage("load"):  # counting weights builds every module without them, and imports what that takes
            specs, loaded = parts.specs(kinds), parts.loaded_bytes()
            self.now = plan(specs, parts.precision, run, free, self._memory, self._keep_parts, loaded)
        log.info(self.now.sentence())
        if free is not None and self.now.peak_bytes > free and not isinstance(self._memory, int):
            log.warning(
                "This run may need %.2f GB, and %.2f GB are free; expect it to be slow or to fail.",
                self.now.peak_bytes / 1e9,
                free / 1e9,
            )
        parts.keep_only(self.now.kept)
        return self.now

    def done_with(self, part: str) -> None:
        """Lets ``part`` go if it is not to stay."""
        if part not in self.now.kept:
            self._parts.release(part)
