"""What happens when a loss or a gradient is not finite, or explodes: the step is skipped or the run stops, and is recorded."""

from __future__ import annotations

import json
import logging
import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmaudio_core.errors import InputError, MMAudioError

from .distributed import Ranks, any_rank, gathered

log = logging.getLogger("mmaudio")


class UnhealthyError(MMAudioError):
    """Training went wrong by the rule of the run: a loss or gradient that is not finite or exploded."""


@dataclass(frozen=True)
class HealthRule:
    """What counts as bad, and what follows.

    on_bad: "skip" the step or "stop" the run. max_loss_factor: a loss above so many times the median of the last ``window``
    good losses is bad, once ``min_history`` of them are there. max_gradient_norm: a norm (before clipping) above it is bad.
    max_consecutive_skips: more bad steps than this in a row stop the run even under "skip". 0 turns one of the three off.
    """

    on_bad: Literal["skip", "stop"] = "skip"
    max_loss_factor: float = 10.0
    max_gradient_norm: float = 0.0
    max_consecutive_skips: int = 10
    window: int = 200
    min_history: int = 20

    def __post_init__(self) -> None:
        if self.on_bad not in ("skip", "stop"):
            raise InputError(f"The rule for bad steps is {self.on_bad!r}; use skip or stop.")
        if min(self.max_loss_factor, self.max_gradient_norm, self.max_consecutive_skips) < 0 or 0 < self.max_loss_factor <= 1:
            raise InputError("The limits for bad steps must be 0 (off) or positive, and that of the loss above 1.")
        if not 1 <= self.min_history <= self.window:
            raise InputError(f"The history of losses is {self.min_history} of {self.window}; at least 1, at most all.")


class Health:
    """Judges every step before the optimiser takes it; the same verdict on all ranks.

    path: the JSONL file that bad steps are appended to (by the first rank). Counts and the window of losses are in
    ``state_dict`` (JSON values), so that a resumed run judges as an unbroken one.
    """

    def __init__(self, rule: HealthRule, path: Path, ranks: Ranks) -> None:
        self.rule, self.path, self.ranks = rule, path, ranks
        self.skipped = 0
        self._losses: deque[float] = deque(maxlen=rule.window)
        self._in_a_row = 0

    def check(
        self, step: int, loss: float, gradient_norm: float, ids: Sequence[str], losses: Sequence[float] | None = None
    ) -> bool:
        """Whether the optimiser may take ``step``. All ranks must call.

        loss: mean over the global batch. gradient_norm: of the whole gradient, before clipping. ids: this rank's samples of the
        step, all micro-batches; losses: theirs, in the same order, recorded beside the ids.

        Raises:
            UnhealthyError: by the rule, after the batch was recorded; the weights are those before the step.
        """
        reason = self._fault(loss, gradient_norm)
        if not any_rank(bool(reason), self.ranks):
            self._losses.append(loss)
            self._in_a_row = 0
            return True
        self.skipped += 1
        self._in_a_row += 1
        limit = self.rule.max_consecutive_skips
        stop = self.rule.on_bad == "stop" or bool(limit and self._in_a_row > limit)
        reasons = [text for text in gathered(reason, self.ranks) if text]
        self._record(step, loss, gradient_norm, reasons[0], "stop" if stop else "skip", ids, losses)
        if stop:
            often = f" {self._in_a_row} steps in a row were bad." if self._in_a_row > 1 else ""
            raise UnhealthyError(
                f"Step {step} was not taken: {reasons[0]}.{often} The ids of its batch are in {self.path}; "
                "look at them, lower the learning rate, or resume from an earlier checkpoint."
            )
        log.warning("Step %d skipped: %s; the ids of its batch are in %s.", step, reasons[0], self.path)
        return False

    def _fault(self, loss: float, gradient_norm: float) -> str:
        rule = self.rule
        if not math.isfinite(loss):
            return f"the loss is {loss}"
        if not math.isfinite(gradient_norm):
            return f"the gradient norm is {gradient_norm}"
        if rule.max_gradient_norm and gradient_norm > rule.max_gradient_norm:
            return f"the gradient norm is {gradient_norm:.4g}, above the limit of {rule.max_gradient_norm:g}"
        if rule.max_loss_factor and len(self._losses) >= rule.min_history:
            usual = statistics.median(self._losses)
            if loss > rule.max_loss_factor * usual:
                return f"the loss is {loss:.4g}, more than {rule.max_loss_factor:g} times the usual {usual:.4g}"
        return ""

    def _record(
        self,
        step: int,
        loss: float,
        gradient_norm: float,
        reason: str,
        action: str,
        ids: Sequence[str],
        losses: Sequence[float] | None,
    ) -> None:
        own = {"ids": list(ids), "losses": None if losses is None else [_number(value) for value in losses]}
        by_rank = gathered(own, self.ranks)
        if not self.ranks.first:
            return
        samples = [name for part in by_rank for name in part["ids"]]
        each = None if losses is None else [value for part in by_rank for value in part["losses"]]
        line = {
            "step": step,
            "reason": reason,
            "action": action,
            "loss": _number(loss),
            "gradient_norm": _number(gradient_norm),
            "ids": samples,
            "losses": each,
        }
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def state_dict(self) -> dict[str, Any]:
        return {"losses": list(self._losses), "skipped": self.skipped, "in_a_row": self._in_a_row}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._losses = deque(state["losses"], maxlen=self.rule.window)
        self.skipped, self._in_a_row = int(state["skipped"]), int(state["in_a_row"])


def _number(value: float) -> float | str:
    # JSON has no NaN and no infinity.
    return value if math.isfinite(value) else str(value)
