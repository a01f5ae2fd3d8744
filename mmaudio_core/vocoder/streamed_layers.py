"""Layers of the vocoder on a CPU in float32, on windows of a signal; tensors are (time, C).

A layer gives what its window determines: less than it got by its reach, except at a true end of the signal, where it is padded
as the whole would be. So a long signal can be worked on window by window and nothing but a window is ever in memory.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernels.blocks import blocks, quantum
from ..kernels.depthwise import Depthwise
from ..kernels.sin_squared import SCALE, sin_squared_
from ..kernels.snake import TAPS, anti_aliased_snake
from ..kernels.taps import TapConv
from ..kernels.toom import Given, ToomConv, form_for
from .activations import BETA_FLOOR, AntiAliasedSnake

SNAKE_REACH = 5
"""Samples to either side that an anti-aliased activation looks at: the up and the down filter together."""
CLAMPED = 3
"""Outputs at an end of the signal that see the doubled signal held at its last value."""
SHORT = 16
"""Samples near an end that those depend on, and more."""
BLOCK = 1 << 18
"""Elements that each thread works on at a time in an activation: so many that they stay in a core's cache from pass to pass."""


@dataclass(frozen=True)
class Ends:
    """Whether a window begins at the signal's start, and ends at its end."""

    start: bool
    end: bool

    def keep(self, x: Tensor, reach: int) -> Tensor:
        """``x`` without ``reach`` rows on each side where the signal goes on."""
        return x[0 if self.start else reach : x.shape[0] - (0 if self.end else reach)]


class Snake:
    """``AntiAliasedSnake`` on a window; reach 5.

    With f the filter, u the doubled signal and v = alpha u, the output f * (u + sin^2(v) / beta) is taken apart: f * u is one
    filter of 11 taps on x, the doubling is two filters of 6 taps (even and odd samples) with alpha in them, and 1 / beta is in
    the filters back. So nothing but v is ever as long as the doubled signal, and it is passed over twice, in place.
    """

    def __init__(self, module: AntiAliasedSnake) -> None:
        self.alpha = module.act.alpha.detach().float().exp()
        self.inverse_beta = 1 / (module.act.beta.detach().float().exp() + BETA_FLOOR)
        self.taps = module.filter.detach().float()
        f = self.taps.double()
        even, odd = 2 * f[1::2].flip(0), 2 * f[0::2].flip(0)  # doubled samples 2 n from x[n - 3 ..], 2 n + 1 from x[n - 2 ..]
        back_even, back_odd = f[1::2], f[0::2]  # y[n] from even samples n - 2 .. and odd samples n - 3 ..
        through = _full(even, back_even) + _full(odd, back_odd)

        def scaled(taps: Tensor, factor: Tensor) -> Tensor:
            return (factor.double()[:, None] * taps).float()

        self._even, self._odd = (Depthwise(scaled(t, self.alpha / math.pi)) for t in (even, odd))
        self._back_even, self._back_odd = (Depthwise(scaled(t, SCALE * self.inverse_beta)) for t in (back_even, back_odd))
        self._through = Depthwise(scaled(through, torch.ones_like(self.alpha)))
        self._up, self._down = _of_short_signal(tuple(f.tolist()))

    def __call__(self, x: Tensor, ends: Ends) -> Active:
        return Active(self, x, ends)

    def plainly(self, x: Tensor) -> Tensor:
        """The outputs of a whole signal of any length."""
        return anti_aliased_snake(x.T[None], self.alpha, self.inverse_beta, self.taps)[0].T

    def add_to(self, out: Tensor, x: Tensor) -> None:
        """Adds the outputs (n, C) that ``x`` (n + 10, C) determines."""
        self._through.add_to(out, x)
        even = self._even(x)
        self._back_even.add_to(out, sin_squared_(even))
        self._back_odd.add_to(out, sin_squared_(self._odd(x), even))

    def near_end(self, x: Tensor) -> Tensor:
        """The outputs of a signal of SHORT samples: those at an end are also those of a longer one."""
        u = self._up @ x
        return self._down @ (u * self.alpha).sin_().square_().mul_(self.inverse_beta).add_(u)


class Active:
    """What a ``Snake`` makes of a window, when it is asked for."""

    def __init__(self, snake: Snake, x: Tensor, ends: Ends) -> None:
        self._snake, self._ends = snake, ends
        before, after = SNAKE_REACH * ends.start, SNAKE_REACH * ends.end
        self._x = torch.cat((x[:1].expand(before, -1), x, x[-1:].expand(after, -1))) if before or after else x
        self.rows = self._x.shape[0] - 2 * SNAKE_REACH
        self._short = ends.keep(snake.plainly(x), SNAKE_REACH) if x.shape[0] < SHORT else None

    def write(self, first: int, out: Tensor) -> None:
        """The rows from ``first`` on, as many as ``out`` has."""
        if self._short is not None:
            out.copy_(self._short[first : first + len(out)])
            return
        channels = out.shape[1]
        for begin, end in blocks(len(out), BLOCK * torch.get_num_threads() / channels, quantum(channels)):
            part = out[begin:end].zero_()
            self._snake.add_to(part, self._x[first + begin : first + end + 2 * SNAKE_REACH])
        beyond = first + len(out)
        if self._ends.start and first < CLAMPED:
            inner = self._x[SNAKE_REACH : SNAKE_REACH + SHORT]
            out[: CLAMPED - first] = self._snake.near_end(inner)[first : min(CLAMPED, beyond)]
        if self._ends.end and beyond > self.rows - CLAMPED:
            inner = self._x[-SNAKE_REACH - SHORT : -SNAKE_REACH]
            begin = max(first, self.rows - CLAMPED)
            out[begin - first :] = self._snake.near_end(inner)[SHORT - self.rows + begin : SHORT - self.rows + beyond]

    def all(self, before: int = 0, after: int = 0) -> Tensor:
        """All rows, with rows of zeros around them."""
        out = torch.empty(before + self.rows + after, self._x.shape[1])
        out[:before].zero_()
        out[before + self.rows :].zero_()
        self.write(0, out[before : before + self.rows])
        return out


@lru_cache(maxsize=2)
def _of_short_signal(f: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """The filters as matrices for a signal of SHORT samples, held at its ends: (2 SHORT, SHORT) up, (SHORT, 2 SHORT) down."""
    up, down = (torch.zeros(rows, columns, dtype=torch.float64) for rows, columns in ((2 * SHORT, SHORT), (SHORT, 2 * SHORT)))
    for n in range(SHORT):
        for s in range(TAPS // 2):
            up[2 * n, min(max(n + 2 - s, 0), SHORT - 1)] += 2 * f[2 * s + 1]
            up[2 * n + 1, min(max(n + 3 - s, 0), SHORT - 1)] += 2 * f[2 * s]
        for t in range(TAPS):
            down[n, min(max(2 * n + t - 5, 0), 2 * SHORT - 1)] += f[t]
    return up.float(), down.float()


def _full(first: Tensor, second: Tensor) -> Tensor:
    """The taps of two filters one after the other."""
    out = first.new_zeros(len(first) + len(second) - 1)
    for i, tap in enumerate(first):
        out[i : i + len(second)] += tap * second
    return out


class WindowConv:
    """A Conv1d with "same" zero padding on a window; reach dilation * (kernel - 1) / 2."""

    def __init__(self, module: nn.Conv1d) -> None:
        weight, bias = _float(module)
        kernel, dilation, self._inputs = weight.shape[-1], module.dilation[0], weight.shape[1]
        self.reach = dilation * (kernel // 2)
        form = form_for(kernel, min(weight.shape[:2]))
        self._conv = ToomConv(weight, bias, dilation, form) if form else TapConv(weight, bias, dilation)

    def __call__(self, x: Active | Given, ends: Ends, added: Tensor | None = None) -> Tensor:
        """The convolution of ``x``, plus ``added``."""
        before, after = self.reach * ends.start, self.reach * ends.end
        if isinstance(self._conv, ToomConv):
            return self._conv(x, before, after, added)
        rows = before + x.rows + after
        spare = -rows % quantum(self._inputs)
        out = self._conv(x.all(before, after + spare))[: rows - 2 * self.reach]
        return out if added is None else out.add_(added)


class WindowUp:
    """A ConvTranspose1d on a window, as a convolution of J = kernel / rate taps that gives ``rate`` samples for each input.

    With p its padding, output ``rate * m + q - p`` is the sum over j of x[m - j] weight[q + rate * j], q < rate.
    """

    def __init__(self, module: nn.ConvTranspose1d, factor: float = 1.0) -> None:
        weight, bias = _float(module)  # (C, O, kernel)
        kernel, self.rate, self.padding = weight.shape[2], module.stride[0], int(module.padding[0])
        self.taps = -(-kernel // self.rate)
        self._channels = weight.shape[1]
        weight = F.pad(weight * factor, (0, self.taps * self.rate - kernel)).unflatten(2, (self.taps, self.rate))
        # (C, O, J, rate) -> (rate * O, C, J), the latest input last
        flat = weight.flip(2).permute(3, 1, 0, 2).flatten(0, 1).contiguous()
        self._conv = TapConv(flat, None if bias is None else bias.repeat(self.rate))

    def span(self, first: int, rows: int, ends: Ends) -> tuple[int, int]:
        """The outputs that input rows ``first`` to ``first + rows`` determine."""
        low = 0 if ends.start else self.rate * (first + self.taps - 1) - self.padding
        return low, self.rate * (first + rows) - (0 if ends.end else self.padding)

    def __call__(self, x: Tensor, ends: Ends) -> Tensor:
        zeros = self.taps - 1
        out = self._conv(x, zeros * ends.start, zeros * ends.end).reshape(-1, self._channels)
        begin = self.padding if ends.start else 0
        cut = 0 if ends.start else self.rate * zeros - self.padding
        return out[begin : begin + self.rate * x.shape[0] - cut] if ends.end else out[begin:]


def _float(module: nn.Conv1d | nn.ConvTranspose1d) -> tuple[Tensor, Tensor | None]:
    return module.weight.detach().float(), None if module.bias is None else module.bias.detach().float()
