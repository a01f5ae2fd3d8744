"""Which parts stay in memory between stages, and how much each stage takes on at once, decided before a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Literal, cast

import torch

from ..errors import InputError
from ..features.clip import FRAMES_PER_CHUNK as CLIP_FRAMES
from ..features.synchformer import SEGMENTS_PER_CHUNK
from ..spec.model import PartSpec
from ..vocoder.chunked import FRAMES_PER_CHUNK as MEL_FRAMES
from ..weights.fp8 import KINDS
from .precision import Precision
from .stages import LEAST_MEL_FRAMES, Need, Run, needs_of

Mode = Literal["resident", "staged", "chunked"]
Memory = Literal["auto", "resident", "staged", "chunked"] | int
"""How to use memory; a number is a budget in bytes."""
MODES: tuple[str, ...] = ("auto", "resident", "staged", "chunked")
SIZES = {
    "clip image": "frames_per_chunk",
    "synchformer": "segments_per_chunk",
    "flow": "batch_size",
    "vocoder": "mel_frames_per_chunk",
}
PARTS = ("clip image", "synchformer", "clip text", "flow", "vae", "vocoder")
CONTEXT = "The CUDA context and the libraries' own buffers (about 0.5 GB) come on top."
GB = 1e9


@dataclass(frozen=True)
class Stage:
    """One stage of a plan: its part's weights, its work beside them, and the bytes of other parts that stay meanwhile."""

    name: str
    weight_bytes: int
    work_bytes: int
    resident_bytes_before: int

    @property
    def peak_bytes(self) -> int:
        return self.weight_bytes + self.work_bytes + self.resident_bytes_before


@dataclass(frozen=True)
class Plan:
    """What a run does with memory. The CUDA context is not counted, nor weights that a CPU lays out anew beside the first ones.

    mode: "resident" (all parts stay), "staged" (each goes when its stage is done, but those of ``kept``), "chunked" (staged,
    and stages take on less at once). The sizes are of CLIP frames, Synchformer segments, samples and mel frames that are worked
    on together; ``batch_size`` None leaves it to the settings. stages: in order, as in a second run, when all of ``kept`` are
    there from the start.
    """

    mode: Mode
    kept: tuple[str, ...] = PARTS
    frames_per_chunk: int = CLIP_FRAMES
    segments_per_chunk: int = SEGMENTS_PER_CHUNK
    batch_size: int | None = None
    mel_frames_per_chunk: int = MEL_FRAMES
    stages: tuple[Stage, ...] = ()
    budget_bytes: int | None = None

    @property
    def peak_bytes(self) -> int:
        """An upper bound of what is in use at once."""
        return max((stage.peak_bytes for stage in self.stages), default=0)

    def table(self) -> str:
        """A text table of the stages in GB (10^9 bytes), with what is not in it below."""
        head = f"{'stage':<12}{'weights':>9}{'work':>9}{'others':>9}{'sum':>9}  GB"
        rows = [
            f"{s.name:<12}"
            + "".join(f"{n / GB:>9.3f}" for n in (s.weight_bytes, s.work_bytes, s.resident_bytes_before, s.peak_bytes))
            for s in self.stages
        ]
        return "\n".join([head, *rows, CONTEXT])

    def sentence(self) -> str:
        """What was decided, for the log."""
        what = {
            "resident": "all parts stay loaded",
            "staged": "each part goes when its stage is done",
            "chunked": "each part goes when its stage is done, and stages work in smaller pieces",
        }[self.mode]
        if self.mode != "resident" and self.kept:
            what += f" ({', '.join(self.kept)} stay)"
        smaller = [(name, getattr(self, name)) for name in SIZES.values() if getattr(self, name) != getattr(Plan, name)]
        if smaller:
            what += f" ({', '.join(f'{name} {size}' for name, size in smaller)})"
        free = "" if self.budget_bytes is None else f" of {self.budget_bytes / GB:.2f}"
        return f"Memory: {what}; at most {self.peak_bytes / GB:.2f}{free} GB, without the CUDA context."


def check_memory(wish: Memory) -> Memory:
    """``wish`` if it is one of the words, or a number of bytes above 0.

    Raises:
        InputError: for anything else.
    """
    if wish in MODES or (isinstance(wish, int) and not isinstance(wish, bool) and wish > 0):
        return wish
    raise InputError(f"Memory {wish!r} was asked for; use {', '.join(MODES)}, or a number of bytes above 0.")


def parse_memory(text: str) -> Memory:
    """A mode, or a number of GB (10^9 bytes).

    Raises:
        InputError: for anything else.
    """
    if text in MODES:
        return cast(Memory, text)
    try:
        size = float(text)
    except ValueError:
        size = 0.0
    if not 0 < size < inf:
        raise InputError(f"The memory {text!r} was given; use {', '.join(MODES)}, or a number of GB above 0.")
    return max(1, int(size * GB))


def unplanned(wish: Memory, keep_parts: bool) -> Plan:
    """What holds while no run was planned, for stages that are called one by one."""
    if wish == "chunked":
        return Plan("chunked", (), 1, 1, 1, LEAST_MEL_FRAMES)
    return Plan("resident") if wish == "resident" or (keep_parts and wish != "staged") else Plan("staged", ())


def plan(
    specs: Mapping[str, PartSpec],
    dtype: torch.dtype | Precision,
    run: Run,
    free_bytes: int | None = None,
    memory: Memory = "auto",
    keep_parts: bool = True,
    loaded: Mapping[str, int] | None = None,
) -> Plan:
    """The plan for ``run`` on a device with ``free_bytes`` (None: unknown) for it and for the parts that it holds already.

    specs: kind ("flow", "vae", ...) -> spec; only those that the run uses are needed. memory: a mode is taken as it is; "auto"
    takes the first that fits of resident, staged with the smaller parts kept, staged, chunked, and the least there is where
    none does; a number does the same for that many bytes. ``keep_parts`` False: none stays. loaded: the parts that are loaded
    already, with their bytes; those that the run does not use stay as long as there is room.

    Raises:
        InputError: when a budget in bytes is below the smallest possible peak, which is named.
    """
    precision = dtype if isinstance(dtype, Precision) else Precision(dtype)
    needs = needs_of(specs, precision, run)
    weights = {need.part: need.weight_bytes for need in needs} | dict(loaded or {})
    budget = memory if isinstance(memory, int) else free_bytes
    least = max(need.least_bytes for need in needs)

    if memory == "resident":
        return _assemble("resident", PARTS, needs, weights, None, budget)
    if memory == "staged":
        return _assemble("staged", (), needs, weights, None, budget)
    if memory == "chunked":
        return _assemble("chunked", (), needs, weights, least, budget)
    if budget is None:
        return _assemble(*next(iter(_candidates(weights, keep_parts))), needs, weights, None, None)
    for mode, kept in _candidates(weights, keep_parts):
        found = _assemble(mode, kept, needs, weights, None, budget)
        if found.peak_bytes <= budget:
            return found
    if least > budget and isinstance(memory, int):
        raise InputError(_too_little(budget, max(needs, key=lambda need: need.least_bytes), precision))
    return _assemble("chunked", (), needs, weights, max(budget, least), budget)


def _candidates(weights: Mapping[str, int], keep_parts: bool) -> Iterable[tuple[Mode, tuple[str, ...]]]:
    """What could stay, most first: all, all but the largest, and so on to none."""
    smallest_first = sorted(weights, key=lambda part: weights[part])
    if keep_parts:
        yield "resident", PARTS
        for count in range(len(smallest_first) - 1, 0, -1):
            yield "staged", tuple(smallest_first[:count])
    yield "staged", ()


def _assemble(
    mode: Mode,
    kept: tuple[str, ...],
    needs: list[Need],
    weights: Mapping[str, int],
    room_bytes: int | None,
    budget: int | None,
) -> Plan:
    """``room_bytes`` None: every stage takes on as much as usual."""
    sizes: dict[str, Any] = {}
    stages = []
    for need in needs:
        amount, work = need.options[0] if room_bytes is None else need.within(room_bytes)
        if amount < need.options[0][0]:
            sizes[SIZES[need.part]] = amount
        beside = sum(size for part, size in weights.items() if part in kept and part != need.part)
        stages.append(Stage(need.name, need.weight_bytes, work, beside))
    return replace(Plan(mode, kept, stages=tuple(stages), budget_bytes=budget), **sizes)


def _too_little(budget: int, largest: Need, precision: Precision) -> str:
    kind = largest.part.split()[0]
    ways = ["give more"]
    if precision.of(kind) == torch.float32:
        ways.append("compute in bfloat16 or float16")
    if precision.storage is None and kind in KINDS:
        ways.append("keep the weights in fp8")
    ways.append("use a smaller variant or a shorter duration" if kind == "flow" else "use the CPU")
    work = largest.least_bytes - largest.weight_bytes
    return (
        f"A memory budget of {budget / GB:.2f} GB was given; in the smallest pieces this run needs at least "
        f"{largest.least_bytes / GB:.2f} GB beside the CUDA context (the stage {largest.name!r}: weights of "
        f"{largest.weight_bytes / GB:.2f} GB, work of {work / GB:.2f} GB); {', or '.join(ways)}."
    )
