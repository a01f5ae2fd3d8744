"""The flow network as the one module whose forward DDP and FSDP2 see."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmaudio_core.errors import InputError
from mmaudio_core.transformer.model import FlowNetwork

from ..data.batch import Batch
from .objective import Draws, loss, velocity

AUTOCAST = {"bf16": torch.bfloat16, "float32": None}


class TrainableFlow(nn.Module):
    """``network`` with its loss; the network is used as it is written, without the core's fast path, which has no gradients.

    precision: "bf16" computes under autocast while weights, loss and the state of sampling stay float32; "float32" does not.
    """

    def __init__(self, network: FlowNetwork, precision: str = "float32") -> None:
        super().__init__()
        self.network = network
        self.autocast = AUTOCAST[precision]

    def forward(self, batch: Batch, draws: Draws | None = None, at: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Per-sample losses (B,) for ``draws``; or, for ``at`` = (x (B, L, C), t (B,)), the velocity there (B, L, C).

        One forward for both, since under FSDP2 the weights are whole only within it.

        Raises:
            InputError: when neither or both are given.
        """
        if (draws is None) == (at is None):
            raise InputError("TrainableFlow takes either draws (for losses) or a state and time (for a velocity).")
        with torch.autocast(batch.latent_mean.device.type, self.autocast, enabled=self.autocast is not None):
            if draws is not None:
                return loss(self.network, batch, draws)
            assert at is not None
            return velocity(self.network, batch, *at)


def blocks_of(network: FlowNetwork) -> list[nn.Module]:
    """The transformer blocks: what is checkpointed, compiled and sharded one by one."""
    return [*network.joint_blocks, *network.fused_blocks]


def prepare_blocks(network: FlowNetwork, checkpointing: bool = False, compiled: bool = False) -> None:
    """Compiles each block, and computes it a second time in the backward pass instead of holding its activations.

    Only the instances' ``forward`` is replaced, so modules, parameters and state dictionaries keep their names.
    """
    for block in blocks_of(network):
        held: Any = block
        if compiled:
            held.forward = torch.compile(held.forward, dynamic=False)
        if checkpointing:
            held.forward = partial(_again, held.forward)


def _again(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*args, **kwargs)
    # Nothing in a block is random, so the state of the random numbers need not be kept.
    return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)
