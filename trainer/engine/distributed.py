"""Ranks: one process, or as many as torchrun started; wrapping of the network, and the few things that ranks must agree on."""

from __future__ import annotations

import gc
import inspect
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmaudio_core.errors import DependencyError, InputError, MMAudioError, first_line
from mmaudio_core.pipeline.device import choose_device

TIMEOUT_S = 1800.0
"""How long a rank waits for its peers: longer than one rank may write previews or snapshots."""
_SIGNS_OF_A_LOST_PEER = ("closed by peer", "connection reset", "connection refused", "timed out", "broken pipe", "nccl", "gloo")


class PeerError(MMAudioError):
    """Another process of this run ended or cannot be reached."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run: ``rank`` of ``world``, ``local_rank`` on its machine, and its device."""

    rank: int
    world: int
    local_rank: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0


@contextmanager
def started(device: str | None = None, timeout_s: float = TIMEOUT_S) -> Iterator[Ranks]:
    """Joins the processes that torchrun started, and leaves them at the end; without torchrun there is one rank and no group.

    device: "cpu", "cuda", ... or None for the best there is; on CUDA each rank of a machine takes the GPU of its local rank.
    NCCL serves CUDA tensors where there is NCCL, gloo all others.

    Raises:
        InputError: for a device that is not there, or more ranks than GPUs.
        PeerError: in place of the backend's own error, when another rank ended or does not answer.
    """
    environment = os.environ
    world, rank = int(environment.get("WORLD_SIZE", 1)), int(environment.get("RANK", 0))
    local_rank = int(environment.get("LOCAL_RANK", 0))
    ranks = Ranks(rank, world, local_rank, _device_of(device, local_rank))
    ended_well = False
    try:
        if "WORLD_SIZE" in environment:
            dist.init_process_group(_backend(ranks.device), timeout=timedelta(seconds=timeout_s))
        yield ranks
        ended_well = True
    except RuntimeError as error:
        if world > 1 and _means_lost_peer(error):
            raise PeerError(
                f"Rank {rank} of {world} lost another process of this run, which ended or does not answer "
                f"({first_line(error)}). What ended it stands in the output of that process and in torchrun's summary; the "
                "last checkpoint is whole, start the same command again to go on from it."
            ) from error
        raise
    finally:
        # What still refers to the group keeps gloo's threads alive, and one that lets go of a tensor while the interpreter ends
        # aborts the process. After an error the message comes first: torchrun soon kills what is left.
        if ended_well:
            gc.collect()
        # NCCL would wait here for work that a lost peer never answers.
        if dist.is_initialized() and (ended_well or ranks.device.type != "cuda"):
            dist.destroy_process_group()


def _device_of(wish: str | None, local_rank: int) -> torch.device:
    device = choose_device(wish)
    if device.type != "cuda" or ":" in (wish or ""):
        return device
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise InputError(f"This machine has {count} GPUs, and local rank {local_rank} needs one more; lower --nproc-per-node.")
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def _backend(device: torch.device) -> str:
    # Flags and checkpoint plans travel as CPU tensors, which must not wait for the GPU.
    return "cpu:gloo,cuda:nccl" if device.type == "cuda" and dist.is_nccl_available() else "gloo"


def _means_lost_peer(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or any(sign in str(error).lower() for sign in _SIGNS_OF_A_LOST_PEER)


def wrap(
    module: nn.Module,
    ranks: Ranks,
    mode: Literal["ddp", "fsdp"] = "ddp",
    blocks: Sequence[nn.Module] = (),
    mixed: torch.dtype | None = None,
) -> nn.Module:
    """``module`` (on its device) made to train on all ranks; its loss must be a mean over equally many samples a rank.

    "ddp": every rank holds everything; one rank alone gets the module itself. "fsdp" (FSDP2, ``fully_shard``): the trained
    parameters and those of ``blocks`` lie in shards, each block gathered when it is computed, in ``mixed`` (None: as they are);
    gradients are reduced in float32. Frozen parameters outside the blocks (latent statistics) stay whole and in float32.

    Raises:
        DependencyError: when this torch has no FSDP2.
    """
    if mode == "fsdp":
        return _sharded(module, ranks, blocks, mixed)
    if ranks.world == 1:
        return module
    wrapped = nn.parallel.DistributedDataParallel(
        module, device_ids=[ranks.device] if ranks.device.type == "cuda" else None, gradient_as_bucket_view=True
    )
    _settle(wrapped)
    return wrapped


def _settle(wrapped: nn.parallel.DistributedDataParallel) -> None:
    """A backward pass of zeros, after which DDP lays out its buckets of gradients for good.

    It does so once, after its first backward. Were that the first step of training, then the first step after a resume would
    add up other groups of gradients than the same step of an unbroken run, and round sums over three or more ranks otherwise.
    """
    module: Any = wrapped.module
    parameters = [p for p in module.parameters() if p.requires_grad]
    module.forward = lambda: sum(p.sum() for p in parameters) * 0
    try:
        wrapped().backward()
    finally:
        del module.forward  # the one of its class again
    wrapped.zero_grad(set_to_none=True)


def _sharded(module: nn.Module, ranks: Ranks, blocks: Sequence[nn.Module], mixed: torch.dtype | None) -> nn.Module:
    try:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        if "ignored_params" not in inspect.signature(fully_shard).parameters:
            raise ImportError("fully_shard has no ignored_params")
    except ImportError as error:
        raise DependencyError(f"Sharding needs torch 2.8 or newer, this is {torch.__version__} ({error}); use ddp.") from error
    # Blocks return views; the network uses them out of place only, so this warning has nothing to say here.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module")
    if not dist.is_initialized():
        dist.init_process_group(_backend(ranks.device), store=dist.HashStore(), rank=0, world_size=1)
    mesh = dist.init_device_mesh(ranks.device.type, (ranks.world,))
    # Inputs are not cast: rotation tables and time stay in float32, and autocast serves the rest.
    policy = MixedPrecisionPolicy(param_dtype=mixed, reduce_dtype=torch.float32 if mixed else None, cast_forward_inputs=False)
    inside = {parameter for block in blocks for parameter in block.parameters()}
    whole = {p for p in module.parameters() if not p.requires_grad and p not in inside}
    # Always sharded again after a forward, so that a forward without a backward (validation) leaves no stale whole copy.
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True, ignored_params=whole)
    return module


def unwrapped(module: nn.Module) -> nn.Module:
    """The module that ``wrap`` was given."""
    return module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module


@contextmanager
def accumulating(module: nn.Module, last: bool) -> Iterator[None]:
    """Around forward and backward of one micro-batch: gradients are summed over ranks only in the ``last`` one of a step."""
    quiet: AbstractContextManager[Any] = nullcontext()
    if isinstance(module, nn.parallel.DistributedDataParallel) and not last:
        quiet = module.no_sync()
    elif (choose := getattr(module, "set_requires_gradient_sync", None)) is not None:
        choose(last)
    with quiet:
        yield


def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """Scales all gradients so that their common 2-norm is at most ``max_norm``; returns the norm before (scalar, float32).

    Gradients may be plain tensors or shards (DTensor); the norm is that of the whole gradient, the same on every rank. A norm
    that is not finite leaves gradients that are not finite; ``health`` decides what then.
    """
    norm = nn.utils.clip_grad_norm_(list(parameters), max_norm)
    return whole(norm).detach().float()


def whole(tensor: Tensor) -> Tensor:
    """A shard's whole tensor, gathered on every rank (all ranks must call); a plain tensor as it is."""
    gather = getattr(tensor, "full_tensor", None)
    return gather() if gather is not None else tensor


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor; a plain tensor as it is. Shares memory."""
    part = getattr(tensor, "to_local", None)
    return part() if part is not None else tensor


def mean_over_ranks(value: Tensor, ranks: Ranks) -> Tensor:
    """The mean of ``value`` (same shape on each rank), on every rank; a new tensor."""
    value = value.detach().clone()
    if ranks.world > 1:
        dist.all_reduce(value)
        value /= ranks.world
    return value


def any_rank(flag: bool, ranks: Ranks) -> bool:
    """Whether ``flag`` is set on at least one rank; all ranks must ask."""
    if ranks.world == 1:
        return flag
    device = ranks.device if dist.get_backend(dist.group.WORLD) == "nccl" else torch.device("cpu")
    value = torch.tensor(int(flag), device=device)
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return bool(value.item())


def gathered(value: Any, ranks: Ranks) -> list[Any]:
    """``value`` (anything that pickles) of every rank, in order of rank, on every rank."""
    if ranks.world == 1:
        return [value]
    values: list[Any] = [None] * ranks.world
    dist.all_gather_object(values, value)
    return values


def barrier(ranks: Ranks) -> None:
    """Waits until all ranks are here."""
    any_rank(False, ranks)
