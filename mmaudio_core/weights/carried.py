"""Our metadata among the tensors of a file, for programs that save a network's tensors and none of its metadata.

Without it a saved network would lose what the shapes of tensors cannot say: ``sync_timing``, say, and its licence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from ..errors import WeightsError
from .metadata import KEY


def carried(metadata: Mapping[str, str]) -> dict[str, torch.Tensor]:
    """{name: uint8 (bytes of the text,)} to be saved beside the network's tensors; ``metadata`` as ``encode_part`` makes it."""
    return {KEY: torch.tensor(list(metadata[KEY].encode("utf-8")), dtype=torch.uint8)}


def carries(names: Iterable[str]) -> str | None:
    """The name of the tensor that holds metadata, if one does."""
    return next((name for name in names if name == KEY or name.endswith(f".{KEY}")), None)


def with_carried(metadata: Mapping[str, str], tensors: Mapping[str, torch.Tensor], where: str) -> Mapping[str, str]:
    """``metadata`` of a file, and where it is not ours what its ``tensors`` carry, under whatever prefix.

    Raises:
        WeightsError: when the tensor of that name holds no text.
    """
    name = carries(tensors)
    if name is None or KEY in metadata:
        return metadata
    try:
        return {**metadata, KEY: bytes(tensors[name].cpu().numpy()).decode("utf-8")}
    except (TypeError, ValueError) as error:
        raise WeightsError(f"{where} has damaged metadata under {KEY!r} ({error}).") from error
