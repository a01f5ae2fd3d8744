"""Pictures and texts that come again, and are not computed again."""

from __future__ import annotations

import weakref
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

Tokens = tuple[int, ...]


def distinct_frames(frames: Tensor) -> list[int]:
    """Positions in frames (V, ...) of those that are not equal to the one before, in order; the first is always one."""
    if frames.is_meta:
        return list(range(frames.shape[0]))
    if frames.device.type == "cpu":  # one after the other: no intermediate as large as the frames
        changed = [not torch.equal(frames[i - 1], frames[i]) for i in range(1, frames.shape[0])]
    else:
        changed = (frames[1:] != frames[:-1]).flatten(1).any(1).tolist()
    return [0, *(i for i, differs in enumerate(changed, 1) if differs)] if frames.shape[0] else []


class Weights:
    """Which weights there were, and whether they have been changed in place; not where they lay."""

    def __init__(self, weights: Iterable[Tensor] = ()) -> None:
        self._marks = [(weakref.ref(p), *_mark(p)) for p in weights]

    def are(self, weights: Iterable[Tensor]) -> bool:
        """Whether these are the same, and the same as then."""
        now = list(weights)
        return len(now) == len(self._marks) and all(
            ref() is p and mark == list(_mark(p)) for (ref, *mark), p in zip(self._marks, now, strict=True)
        )


def _mark(weight: Tensor) -> tuple[torch.dtype, int]:
    return weight.dtype, 0 if weight.is_inference() else weight._version


class TextCache:
    """Features by tokens, on the CPU, for as long as the weights stay what they are; the oldest go first."""

    def __init__(self, limit: int = 64) -> None:
        self.limit = limit
        self._weights = Weights()
        self._features: OrderedDict[Tokens, Tensor] = OrderedDict()

    def holds(self, weights: Iterable[Tensor], rows: Sequence[Tokens]) -> bool:
        """Whether nothing would have to be computed for ``rows``."""
        return all(row in self._features for row in rows) and self._weights.are(weights)

    def get(self, weights: Sequence[Tensor], rows: Sequence[Tokens], compute: Callable[[Tokens], Tensor]) -> Tensor:
        """Features (B, T, D) of ``rows`` on the CPU; ``compute`` gives those of one, with these ``weights``."""
        if not self._weights.are(weights):
            self._features.clear()
            self._weights = Weights(weights)
        found = {}
        for row in dict.fromkeys(rows):
            features = self._features.pop(row, None)
            self._features[row] = found[row] = compute(row).cpu() if features is None else features
        while len(self._features) > self.limit:
            self._features.popitem(last=False)
        return torch.stack([found[row] for row in rows])

    def __reduce__(self) -> tuple[type[TextCache], tuple[int]]:
        return TextCache, (self.limit,)
