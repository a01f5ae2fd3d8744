"""BigVGAN on a CPU: weights packed once, half the multiplications, and the clip streamed through the stages.

Every stage works on windows of its input and keeps the rows that its next window needs again, so memory does not grow with the
clip, temporaries stay small enough to be reused, and nothing but a stage's own margin is computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..kernels import depthwise
from ..spec.model import VocoderSpec
from .activations import AntiAliasedSnake
from .bigvgan import AMPBlock, BigVGAN
from .streamed_layers import SNAKE_REACH, Ends, Given, Snake, WindowConv, WindowUp

FRAMES_PER_WINDOW = 128


def streams(module: BigVGAN) -> bool:
    """Whether this vocoder can be streamed: on a CPU, with torch's packed operators."""
    spec = module.spec
    whole = all(kernel >= rate and (kernel - rate) % 2 == 0 for rate, kernel in zip(spec.rates, spec.kernels, strict=True))
    return module.conv_pre.weight.device.type == "cpu" and depthwise.works() and whole


class Step(Protocol):
    """What a ``Stream`` feeds: a function of windows."""

    def __call__(self, x: Tensor, ends: Ends) -> Tensor: ...

    def span(self, first: int, rows: int, ends: Ends) -> tuple[int, int]:
        """The outputs, from and to, that a call with input rows ``first`` to ``first + rows`` gives."""

    def needs(self, output: int) -> int:
        """The first input row that outputs from ``output`` on depend on; below 0 at the signal's start."""


class Same:
    """Steps whose output is as long as their input: layers one after the other with a common reach."""

    def __init__(self, reach: int, *layers: Callable[[Any, Ends], Any]) -> None:
        self._reach, self._layers = reach, layers

    def __call__(self, x: Tensor, ends: Ends) -> Tensor:
        out: Any = x
        for layer in self._layers:
            out = layer(out, ends)
        return torch.as_tensor(out)

    def span(self, first: int, rows: int, ends: Ends) -> tuple[int, int]:
        return first + (0 if ends.start else self._reach), first + rows - (0 if ends.end else self._reach)

    def needs(self, output: int) -> int:
        return output - self._reach


class Block:
    """An ``AMPBlock`` on a window."""

    def __init__(self, block: AMPBlock) -> None:
        acts = [Snake(module) for module in _snakes(block.activations)]
        convs = [
            (WindowConv(dilated), WindowConv(plain))
            for dilated, plain in zip(_convs(block.convs1), _convs(block.convs2), strict=True)
        ]
        self._steps = [(acts[2 * i], dilated, acts[2 * i + 1], plain) for i, (dilated, plain) in enumerate(convs)]
        self._reaches = [2 * SNAKE_REACH + dilated.reach + plain.reach for dilated, plain in convs]
        self.reach = sum(self._reaches)

    def __call__(self, x: Tensor, ends: Ends) -> Tensor:
        for (first, dilated, second, plain), reach in zip(self._steps, self._reaches, strict=True):
            x = plain(second(dilated(first(x, ends), ends), ends), ends, ends.keep(x, reach))
        return x


class Stage:
    """A transposed convolution and the sum of its AMP blocks; ``factor`` scales what comes in."""

    def __init__(self, up: nn.ConvTranspose1d, blocks: list[AMPBlock], factor: float) -> None:
        self._up = WindowUp(up, factor)
        self._blocks = [Block(block) for block in blocks]
        self._reach = max(block.reach for block in self._blocks)

    def __call__(self, x: Tensor, ends: Ends) -> Tensor:
        x = self._up(x, ends)
        total: Tensor | None = None
        for block in self._blocks:
            y = block(ends.keep(x, self._reach - block.reach), ends)
            total = y if total is None else total.add_(y)
        assert total is not None
        return total

    def span(self, first: int, rows: int, ends: Ends) -> tuple[int, int]:
        low, high = self._up.span(first, rows, ends)
        return low + (0 if ends.start else self._reach), high - (0 if ends.end else self._reach)

    def needs(self, output: int) -> int:
        return (output - self._reach + self._up.padding) // self._up.rate - self._up.taps + 1


class Stream:
    """Feeds a step with what comes in, together with the rows of before that it needs again."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self._kept: Tensor | None = None
        self._first = self._done = 0

    def push(self, x: Tensor, last: bool) -> Tensor | None:
        """The next rows in, the rows that they determine out; None where there are none yet."""
        window = x if self._kept is None else torch.cat((self._kept, x))
        ends = Ends(self._first == 0, last)
        low, high = self._step.span(self._first, window.shape[0], ends)
        if high <= max(low, self._done):
            self._kept = window
            return None
        out = self._step(window, ends)[self._done - low :]
        self._done = high
        again = min(max(0, self._step.needs(high)), self._first + window.shape[0])
        self._kept, self._first = window[again - self._first :].clone(), again
        return out


class StreamedBigVGAN:
    """The vocoder of a ``BigVGAN`` in float32 on a CPU; its weights are copies, packed."""

    def __init__(self, module: BigVGAN, frames_per_window: int = FRAMES_PER_WINDOW) -> None:
        self.spec: VocoderSpec = module.spec
        self.frames_per_window = frames_per_window
        branches = len(self.spec.block_kernels)
        pre = WindowConv(module.conv_pre)
        self._steps: list[Step] = [Same(pre.reach, lambda x, ends: pre(Given(x), ends))]
        blocks = list(module.resblocks)
        for i, up in enumerate(_ups(module)):
            mine = [b for b in blocks[i * branches : (i + 1) * branches] if isinstance(b, AMPBlock)]
            self._steps.append(Stage(up, mine, 1.0 if i == 0 else 1 / branches))
        snake, post = Snake(module.activation_post), WindowConv(module.conv_post)
        self._steps.append(Same(SNAKE_REACH + post.reach, lambda x, _: x / branches, snake, post))

    def __call__(self, mel: Tensor, progress: Callable[[int, int], None] | None = None) -> Tensor:
        """Log-mel (B, M, F) -> samples float32 (B, 1, F * hop) in [-1, 1]; ``progress`` gets (frames done, B * F)."""
        clips, _, frames = mel.shape
        hop = math.prod(self.spec.rates)
        samples = torch.empty(clips, 1, frames * hop)
        for i, clip in enumerate(mel.float()):
            done = 0
            for frames_done, piece in self._pieces(clip):
                samples[i, 0, done : done + len(piece)] = piece
                done += len(piece)
                if progress:
                    progress(i * frames + frames_done, clips * frames)
        return samples.tanh_() if self.spec.final_tanh else samples.clamp_(-1, 1)

    def _pieces(self, mel: Tensor) -> Iterator[tuple[int, Tensor]]:
        """The samples of one clip (M, F), piece by piece, each with the frames that went in so far."""
        frames = mel.shape[1]
        chain = [Stream(step) for step in self._steps]
        windows = max(1, -(-frames // self.frames_per_window))
        step = -(-frames // windows)  # even windows: a short last one would be mostly margin
        for first in range(0, frames, step):
            last = min(first + step, frames)
            out = _push(chain, mel[:, first:last].T.contiguous(), last == frames)
            if out is not None:
                yield last, out[:, 0]


def _push(chain: list[Stream], x: Tensor, last: bool) -> Tensor | None:
    for stream in chain:
        out = stream.push(x, last)
        if out is None:
            return None
        x = out
    return x


def _snakes(modules: nn.ModuleList) -> list[AntiAliasedSnake]:
    return [m for m in modules if isinstance(m, AntiAliasedSnake)]


def _convs(modules: nn.ModuleList) -> list[nn.Conv1d]:
    return [m for m in modules if isinstance(m, nn.Conv1d)]


def _ups(module: BigVGAN) -> list[nn.ConvTranspose1d]:
    return [up for (up,) in module.ups]
