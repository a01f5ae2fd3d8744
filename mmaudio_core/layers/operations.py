"""The layer classes that hold a network's weights: torch's own, or those of a host that places weights itself."""

from __future__ import annotations

from typing import Any, Protocol

from torch import nn


class Operations(Protocol):
    """A namespace with torch.nn's ``Linear`` and ``Conv1d``, or subclasses of them.

    A host that keeps part of the weights elsewhere (in main memory, in another number format) gives its own, which bring them
    to the input's device and dtype at use.
    """

    Linear: Any
    Conv1d: Any


TORCH: Operations = nn
