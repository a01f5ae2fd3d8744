"""One run of the fast path: conditions, times and guidance fixed, velocity as a function of the latent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention.protocol import Attention
from ..kernels.graphs import Graphed
from .fast import FastFlow, HeadBuffers, StepInputs
from .fast_inputs import RunInputs


class GuidedVelocity:
    """(x, t) -> s v(conditions) + (1 - s) v(empty); x (B, L, C), t a scalar tensor on the CPU.

    ``times`` are those that will be asked for; others are computed when asked for. ``graphs`` replays one evaluation as a CUDA
    graph; ``compiled`` sends it through torch.compile. The blend runs in float32: s = 4.5 amplifies rounding more than fivefold
    (trap R4).
    """

    def __init__(
        self,
        fast: FastFlow,
        inputs: RunInputs,
        strength: float,
        attend: Attention,
        times: Sequence[float] = (),
        graphs: bool = False,
        compiled: bool = False,
    ) -> None:
        self._fast, self._inputs, self._strength, self._attend = fast, inputs, strength, attend
        others = inputs.clip.shape[1] + inputs.text.shape[1]
        self._heads = HeadBuffers(inputs.clip.shape[0], fast.net.spec.heads, inputs.rows.shape[1], others, inputs.clip)
        self._run: Any = torch.compile(self._velocity, dynamic=False) if compiled else self._velocity
        if graphs:
            self._run = Graphed(self._run)
        self.begin(inputs, times)

    @torch.no_grad()
    def begin(self, inputs: RunInputs, times: Sequence[float]) -> None:
        """Takes over other conditions of the same shapes, into the same memory, and other times."""
        if inputs is not self._inputs:
            self._inputs.copy_(inputs)
        self._times = {time: i for i, time in enumerate(dict.fromkeys(times))}
        self._conditions, self._tables = self._of_times(torch.tensor(list(self._times), dtype=torch.float32))

    def _of_times(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Global conditions (times, M, D) and their modulations (times, M, parts) for M distinct conditions."""
        pooled = self._inputs.pooled
        embedded = self._fast.net.t_embed(times.to(pooled.device), pooled.dtype)
        conditions = embedded[:, None] + pooled
        return conditions, self._fast.global_modulation(F.silu(conditions))

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        i = self._times.get(float(t))
        conditions, tables = (self._conditions, self._tables) if i is not None else self._of_times(t.reshape(1))
        velocity: Tensor = self._run(x, conditions[i or 0], tables[i or 0])
        return velocity

    def _velocity(self, x: Tensor, conditions: Tensor, tables: Tensor) -> Tensor:
        """For global conditions (M, D) and their modulations (M, parts); no value is read back from the device."""
        fast, given = self._fast, self._inputs
        projected = fast.audio_input(x.to(given.clip.dtype))
        if given.guides:
            projected = torch.cat((projected, projected))
        step = StepInputs(
            rows=given.rows,
            frame_conditions=conditions.index_select(0, given.row_owner) + given.sync_rows,
            global_table=tables.index_select(0, given.owner),
            clip=given.clip,
            text=given.text,
            rope=given.rope,
        )
        last = fast.evaluate(projected, step, self._heads, self._attend)
        if given.guides:
            last = self._strength * last[: x.shape[0]] + (1 - self._strength) * last[x.shape[0] :]
        return fast.final_conv(last.to(given.clip.dtype)).to(x.dtype)
