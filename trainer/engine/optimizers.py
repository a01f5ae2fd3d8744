"""What an optimiser keeps to itself while it takes over the state of an earlier run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def settings_kept(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """A block in which a state is loaded into ``optimizer``; its own rates, betas, decay and the like are put back after it.

    ``load_state_dict`` takes those that the state was saved with, and what the configuration says now would have no effect.
    """
    kept = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    yield
    for group, values in zip(optimizer.param_groups, kept, strict=True):
        group.update(values)
        # A counter lies where the kernel of these settings wants it, which the saved ones decided while it was loaded.
        on_device = group.get("fused") or group.get("capturable")
        for parameter in group["params"]:
            state = optimizer.state.get(parameter, {})
            if isinstance(step := state.get("step"), torch.Tensor):
                state["step"] = step.to(parameter.device if on_device else "cpu")
