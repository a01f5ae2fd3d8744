"""Convolution over time with half the multiplications and fewer (Toom-Cook; Winograd's family, arXiv 1509.09308).

A tile of m outputs depends on m + r - 1 inputs for r taps. Inputs and taps, taken as polynomials, are evaluated at m + r - 1
points, multiplied there, and interpolated. More taps than r are cut into pieces of r = m, which then share the evaluated
inputs, and the sum over pieces is part of one matrix product. In exact arithmetic nothing changes. Meant for float32 alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from . import onednn
from .blocks import block_rows, quantum

BLOCK = 1 << 20
"""Inputs that each thread works on at a time: few enough for the cache that cores share, so many that calls cost little."""
BLOCK_TILES = 128
"""Tiles at least, so that the weights are not read too often."""


@dataclass(frozen=True)
class Form:
    """F(tile, taps): the points are +-a for each of ``points``, 0 if ``zero``, and infinity.

    1 comes first: its products need no factor, and they carry the bias.
    """

    tile: int
    taps: int
    points: tuple[float, ...]
    zero: bool

    def others(self, point: float) -> list[float]:
        """Coefficients, lowest first, of the product of y - b^2 over all points b but this one (0: over all)."""
        out = [1.0]
        for b in self.points:
            if b != point:
                out = [low - b * b * high for low, high in zip([0.0, *out], [*out, 0.0], strict=True)]
        return out


# The points are the small fractions that round least. Against a direct convolution in float32, whose relative error is about
# 2e-7 with 256 channels, these have 4, 4, 15 and 20 times as much.
THREE, FOUR = Form(4, 3, (1, 2), True), Form(4, 4, (1, 1 / 4, 2), False)
SEVEN, ELEVEN = Form(4, 7, (1, 1 / 3, 4 / 3, 5 / 2), True), Form(6, 6, (1, 1 / 2, 1 / 4, 3 / 2, 3), False)


def form_for(kernel: int, channels: int) -> Form | None:
    """The form for a kernel size, or None where a direct convolution is as fast; measured on two cores with AVX-512."""
    if kernel <= THREE.taps:
        return THREE if kernel == THREE.taps and channels >= 192 else None
    if channels < (96 if kernel > 2 * FOUR.taps else 128):
        return None
    return SEVEN if kernel == SEVEN.taps else ELEVEN if kernel > 2 * FOUR.taps else FOUR


class Source(Protocol):
    """Rows that are made when they are needed."""

    @property
    def rows(self) -> int: ...

    def write(self, first: int, out: Tensor) -> None:
        """Puts the rows from ``first`` on into ``out``; called with one part after the other."""


class Given:
    """Rows that are there: (rows, C)."""

    def __init__(self, x: Tensor) -> None:
        self._x, self.rows = x, x.shape[0]

    def write(self, first: int, out: Tensor) -> None:
        out.copy_(self._x[first : first + len(out)])

    def all(self, before: int = 0, after: int = 0) -> Tensor:
        """All rows, with rows of zeros around them."""
        return F.pad(self._x, (0, 0, before, after))


class ToomConv:
    """x (rows, C) -> (rows - dilation * (kernel - 1), O), weight (O, C, kernel), bias (O,) or None; float32 on a CPU.

    The weights are copies, packed for oneDNN: (tile + taps - 1) / taps times as many as given, kernel rounded up to taps.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, dilation: int, form: Form) -> None:
        self._channels, self._inputs, self._kernel = weight.shape
        self._dilation, self._form = dilation, form
        self._bias = None if bias is None else bias.detach()
        self._pieces = -(-self._kernel // form.taps)
        assert self._pieces == 1 or form.tile == form.taps
        self._packed: list[Any] = [onednn.pack_linear(w, 512) for w in transform_weight(weight.detach(), form)]
        self._beyond = (form.tile + form.taps - 2) // form.tile + self._pieces - 1

    def __call__(self, x: Source, before: int = 0, after: int = 0, added: Tensor | None = None) -> Tensor:
        """``before`` and ``after`` rows of zeros are put around ``x`` first; ``added`` is added to the result.

        Works on blocks of rows from end to end, ``x`` included, so that little leaves the cache on the way.
        """
        rows = x.rows + before + after - self._dilation * (self._kernel - 1)
        step = self._form.tile * self._dilation
        about = max(BLOCK * torch.get_num_threads() / (step * self._inputs), BLOCK_TILES / self._dilation)
        block = block_rows(-(-rows // step), about, max(1, quantum(self._inputs) // step))
        tiles = -(-rows // (step * block)) * block
        padded = torch.empty((tiles + self._beyond) * step, self._inputs)
        padded[:before].zero_()
        padded[before + x.rows :].zero_()
        out = torch.empty(tiles * step, self._channels)
        filled = 0
        for first in range(0, tiles, block):
            last = first + block
            needed = min((last + self._beyond) * step - before, x.rows)
            if needed > filled:
                x.write(filled, padded[before + filled : before + needed])
                filled = needed
            part = out[first * step : last * step]
            self._fill(self._tiled(part), self._tiled(padded[first * step : (last + self._beyond) * step]))
            if added is not None:
                part[: len(added) - first * step].add_(added[first * step : last * step])
        return out[:rows]

    def _tiled(self, x: Tensor) -> Tensor:
        return x.view(-1, self._form.tile, self._dilation, x.shape[1])

    def _fill(self, out: Tensor, padded: Tensor) -> None:
        rows = out.shape[0] * self._dilation
        products = []
        tiles = out.shape[0] + self._pieces - 1
        for i, values in enumerate(evaluate(padded, tiles, self._form)):
            # Row r meets the pieces at the rows r, r + dilation, ...: a tile further on each.
            sizes, strides = (rows, self._pieces, self._inputs), (self._inputs, self._dilation * self._inputs, 1)
            windows = values.as_strided(sizes, strides).reshape(rows, -1)
            products.append(onednn.linear(windows, self._packed[i], self._bias if i == 0 else None).view(out[:, 0].shape))
        interpolate(products, out, self._form)


def transform_weight(weight: Tensor, form: Form) -> list[Tensor]:
    """(O, C, kernel) -> (O, pieces * C) for each point: the pieces' polynomials there, divided by the derivative of the product
    over all points, which ``evaluate`` leaves to the weights; computed in float64 and rounded once."""
    pieces = F.pad(weight, (0, -weight.shape[-1] % form.taps)).unflatten(-1, (-1, form.taps))
    taps = pieces.permute(3, 0, 2, 1).flatten(2).double()  # (taps, O, pieces * C)
    values = []
    for a in form.points:
        factor = 1 / (2 * a * prod(a * a - b * b for b in form.points if b != a))
        even, odd = (sum_of(taps[k::2], [factor * a ** (2 * n) for n in range(len(taps[k::2]))]) for k in (0, 1))
        if form.zero:
            values += [torch.add(odd, even, alpha=1 / a), torch.sub(odd, even, alpha=1 / a).neg_()]
        else:
            values += [torch.add(even, odd, alpha=a), torch.sub(odd, even, alpha=1 / a).mul_(a)]
    if form.zero:
        values.append(taps[0] / prod(-b * b for b in form.points))
    return [value.float() for value in (*values, taps[-1])]


def evaluate(padded: Tensor, tiles: int, form: Form) -> list[Tensor]:
    """Tiles (more than ``tiles``, m, d, C) -> (tiles, d, C) for each point: 1, -1, a, -a, ..., 0 if it is one, infinity.

    The value at a point p is, coefficient by coefficient, the product of x - q over all other points q. With Q_a(y) the product
    of y - b^2 over the points b but a, that is (x +- a) Q_a(x^2), times x if 0 is a point.
    """
    d = [padded[i // form.tile :][:tiles, i % form.tile] for i in range(form.tile + form.taps - 1)]
    shift = int(form.zero)
    out = []
    for a in form.points:
        others = form.others(a)
        even, odd = sum_of(d[shift::2], others), sum_of(d[1 + shift :: 2], others)
        out += [torch.add(odd, even, alpha=a), odd.sub_(even, alpha=a)]
    if form.zero:
        out.append(sum_of(d[0::2], form.others(0)))
    return [*out, sum_of(d[shift::2], form.others(0))]


def sum_of(parts: list[Tensor] | Tensor, factors: list[float]) -> Tensor:
    """A new tensor, the sum of ``parts`` times ``factors``, as far as these go."""
    last = len(factors) - 1
    out = parts[last] if factors[last] == 1 else parts[last] * factors[last]
    for i in range(last):
        out = torch.add(out, parts[i], alpha=factors[i]) if i == 0 else out.add_(parts[i], alpha=factors[i])
    return out


def interpolate(products: list[Tensor], out: Tensor, form: Form) -> None:
    """A product (tiles, d, O) for each point -> ``out`` (tiles, m, d, O); the products are overwritten."""
    count = len(form.points)
    even = [products[2 * i] + products[2 * i + 1] for i in range(count)]
    odd = [torch.sub(products[2 * i], products[2 * i + 1], out=products[2 * i]) for i in range(count)]
    for power, y in enumerate(out.unbind(1)):
        parts = odd if power % 2 else even
        torch.add(parts[0], parts[1], alpha=form.points[1] ** power, out=y)
        for part, a in zip(parts[2:], form.points[2:], strict=True):
            y.add_(part, alpha=a**power)
    if form.zero:
        out[:, 0].add_(products[2 * count])
    out[:, -1].add_(products[-1])
