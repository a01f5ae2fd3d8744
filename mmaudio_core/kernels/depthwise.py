"""One short filter per channel along time, on channel-last tensors: what changes the sampling rate around a snake."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import onednn

USUAL_ROWS = 4096


class Depthwise:
    """y[n, c] = bias[c] + sum_j taps[c, j] x[n + j, c] for float32 x (rows, C) on a CPU -> (rows - J + 1, C).

    taps: (C, J). bias: (C,) or None.
    """

    def __init__(self, taps: Tensor, bias: Tensor | None = None) -> None:
        self._channels, self._count = taps.shape
        self._bias = bias
        self._packed: Any = _pack(taps, USUAL_ROWS) if works() else None
        self._taps = None if self._packed is not None else taps.T.contiguous()

    def __call__(self, x: Tensor) -> Tensor:
        if self._taps is None:
            return _image_rows(_native()._convolution_pointwise(*self._arguments(_rows_image(x), self._bias), "none", [], ""))
        rows = x.shape[0] - self._count + 1
        out = x[:rows] * self._taps[0] if self._bias is None else torch.addcmul(self._bias, x[:rows], self._taps[0])
        return self._add_taps(out, x, 1)

    def add_to(self, out: Tensor, x: Tensor) -> Tensor:
        """``out`` (rows - J + 1, C), contiguous, plus the filtered ``x``, in place; made without a bias."""
        if self._taps is None:
            _native()._convolution_pointwise_.binary(
                _rows_image(out), *self._arguments(_rows_image(x), None), "add", 1.0, None, [], None
            )
            return out
        return self._add_taps(out, x, 0)

    def _add_taps(self, out: Tensor, x: Tensor, first: int) -> Tensor:
        assert self._taps is not None
        for j in range(first, self._count):
            out.addcmul_(x[j : j + out.shape[0]], self._taps[j])
        return out

    def _arguments(self, image: Tensor, bias: Tensor | None) -> tuple[Any, ...]:
        return image, self._packed, bias, [0, 0], [1, 1], [1, 1], self._channels


def _rows_image(x: Tensor) -> Tensor:
    """Contiguous (rows, C) as an image of one row in channels-last memory, (1, C, 1, rows)."""
    rows, channels = x.shape
    return x.as_strided((1, channels, 1, rows), (rows * channels, 1, rows * channels, channels))


def _image_rows(image: Tensor) -> Tensor:
    channels, rows = image.shape[1], image.shape[3]
    return image.as_strided((rows, channels), (channels, 1))


def _native() -> Any:
    return torch.ops.mkldnn


def _pack(taps: Tensor, length: int) -> Any:
    channels = taps.shape[0]
    image = taps[:, None, None].contiguous(memory_format=torch.channels_last).to_mkldnn()
    native: Any = torch._C._nn
    return native.mkldnn_reorder_conv2d_weight(image, [0, 0], [1, 1], [1, 1], channels, [1, channels, 1, length])


@lru_cache(maxsize=1)
def works() -> bool:
    """Whether this torch has oneDNN's convolutions with packed weights, adding in place too, and they are right."""
    if not onednn.works():
        return False
    generator = torch.Generator().manual_seed(0)
    with torch.device("cpu"), torch.no_grad():
        x, taps, bias = (torch.randn(*shape, generator=generator) for shape in ((37, 24), (24, 6), (24,)))
        wanted = F.conv1d(x.T[None], taps[:, None], bias, groups=24)[0].T
        trial = Depthwise.__new__(Depthwise)
        trial._channels, trial._count, trial._bias, trial._taps = 24, 6, bias, None

        def filtered() -> Tensor:
            trial._packed = _pack(taps, 64)
            return trial(x)

        def added() -> Tensor:
            out = torch.ones(32, 24)
            trial.add_to(out, x)
            return out - 1 + bias

        return _agrees(filtered, wanted) and _agrees(added, wanted)


def _agrees(trial: Callable[[], Tensor], wanted: Tensor) -> bool:
    try:
        return bool(torch.allclose(trial(), wanted, rtol=1e-5, atol=1e-5))
    except Exception:  # whatever an operator that is not promised to us may raise
        return False
