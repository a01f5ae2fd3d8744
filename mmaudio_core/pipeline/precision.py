"""Number formats of a model: one for all of it, others for single stages, and how large weights are kept."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from ..errors import InputError
from ..weights.fp8 import KINDS, check_storage
from .device import choose_dtype

log = logging.getLogger("mmaudio")

STAGES = ("clip", "synchformer", "flow", "vae", "vocoder")


@dataclass(frozen=True)
class Precision:
    """``dtype`` for all stages but those in ``stages``.

    storage: "fp8" keeps the large weights of CLIP, Synchformer and flow network in 8 bits (``weights/fp8.py``).
    published_time_features: in half precision the flow network's time is rounded as in the published program (trap R2).
    """

    dtype: torch.dtype
    stages: Mapping[str, torch.dtype] = field(default_factory=dict)
    storage: str | None = None
    published_time_features: bool = False

    def of(self, stage: str) -> torch.dtype:
        """What ``stage`` ("clip", "synchformer", "flow", "vae", "vocoder") computes in."""
        return self.stages.get(stage, self.dtype)

    def storage_of(self, stage: str) -> str | None:
        """How ``stage`` keeps its large weights; None is in the dtype that it computes in."""
        return self.storage if stage in KINDS else None

    def sentence(self) -> str:
        """For instance: bfloat16 (vocoder float32), large weights in fp8."""
        others = ", ".join(f"{stage} {_name(dtype)}" for stage, dtype in self.stages.items() if dtype != self.dtype)
        stored = f", large weights in {self.storage}" if self.storage else ""
        rounded = ", time rounded as published" if self.published_time_features else ""
        return _name(self.dtype) + (f" ({others})" if others else "") + stored + rounded


def choose_precision(
    device: torch.device,
    dtype: str | torch.dtype | None = None,
    stage_dtypes: Mapping[str, str | torch.dtype] | None = None,
    weights_storage: str | None = None,
    published_time_features: bool = False,
) -> Precision:
    """The wishes checked for ``device``; ``dtype`` None leaves it to us.

    Raises:
        InputError: for an unknown stage, a dtype that is not computed in there, or a storage that torch does not have there.
    """
    stages = {}
    for stage, wish in (stage_dtypes or {}).items():
        if stage not in STAGES:
            raise InputError(
                f"A dtype was given for the stage {stage!r}, which there is not; the stages are {', '.join(STAGES)}."
            )
        stages[stage] = choose_dtype(wish, device)
    chosen = choose_dtype(dtype, device)
    precision = Precision(chosen, stages, check_storage(weights_storage, device), published_time_features)
    if published_time_features and precision.of("flow") == torch.float32:
        log.info("The published rounding of the time changes nothing in float32; it is for float16 and bfloat16.")
    return precision


def parse_stage_dtypes(texts: Iterable[str]) -> dict[str, str]:
    """["vocoder=float32"] -> {"vocoder": "float32"}.

    Raises:
        InputError: for a text without "=", or a stage that is given twice.
    """
    result: dict[str, str] = {}
    for text in texts:
        stage, sign, dtype = (part.strip() for part in text.partition("="))
        if not (stage and sign and dtype):
            raise InputError(f"The stage dtype {text!r} was given; STAGE=DTYPE is needed, for instance vocoder=float32.")
        if stage in result:
            raise InputError(f"Two dtypes were given for the stage {stage}; give one.")
        result[stage] = dtype
    return result


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
