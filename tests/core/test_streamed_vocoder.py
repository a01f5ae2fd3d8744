"""The vocoder that streams a clip through its stages on a CPU, against the module."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from mmaudio_core.kernels import depthwise, toom
from mmaudio_core.kernels.toom import ELEVEN, FOUR, SEVEN, THREE, Form
from mmaudio_core.spec.model import VocoderSpec
from mmaudio_core.vocoder import streamed_layers
from mmaudio_core.vocoder.activations import AntiAliasedSnake
from mmaudio_core.vocoder.streamed import StreamedBigVGAN, streams
from mmaudio_core.vocoder.streamed_layers import CLAMPED, SHORT, SNAKE_REACH, Ends, Snake, WindowUp

from .test_autoencoder_vocoder import VOCODERS, vocoder_of

pytestmark = pytest.mark.skipif(not depthwise.works(), reason="this torch lacks oneDNN's packed operators")


def drawn(spec: VocoderSpec) -> Any:
    """Weights so large that the blocks matter beside their residual connections, snakes of every pace."""
    vocoder = vocoder_of(spec)
    for name, value in vocoder.named_parameters():
        if name.endswith(("alpha", "beta")):
            value.uniform_(-0.7, 0.7)
        elif value.ndim > 1:
            value.mul_(1.5)
    return vocoder


def any_width(kernel: int, channels: int) -> Form | None:
    """Toom-Cook forms for narrow layers too, a direct convolution among them."""
    return {3: THREE, 7: SEVEN, 11: ELEVEN if channels % 8 else FOUR}.get(kernel) if channels > 1 else None


def error(got: Tensor, wanted: Tensor) -> float:
    assert got.shape == wanted.shape
    return ((got.double() - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("forms", [False, True], ids=["direct", "toom"])
@pytest.mark.parametrize("name", VOCODERS)
def test_same_samples_for_any_length_and_window(name: str, forms: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_layers, "BLOCK", 5000)
    monkeypatch.setattr(toom, "BLOCK", 5000)
    if forms:
        monkeypatch.setattr(streamed_layers, "form_for", any_width)
    vocoder = drawn(VOCODERS[name])
    exact = drawn(VOCODERS[name]).double()
    fast = StreamedBigVGAN(vocoder)
    for frames, windows in ((1, (128,)), (5, (1,)), (33, (12, 128))):
        mel = torch.randn(1, vocoder.spec.mel_bins, frames)
        wanted = exact(mel.double())
        for window in windows:
            fast.frames_per_window = window
            # The module itself is 3e-6 off; a wrong sample in a layer shows as 1e-3 and more.
            assert error(fast(mel), wanted) < 3e-5, (frames, window)


def test_clips_and_progress() -> None:
    vocoder = drawn(VOCODERS["44k"])
    mel = torch.randn(2, 128, 20)
    seen: list[tuple[int, int]] = []
    samples = StreamedBigVGAN(vocoder, 7)(mel, lambda *counts: seen.append(counts))
    assert error(samples, vocoder(mel)) < 1e-5
    assert samples.dtype == torch.float32
    assert seen == sorted(seen)
    assert seen[-1] == (40, 40)


def test_memory_does_not_grow_with_the_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """No layer gets more rows at once in a long clip than in one of four windows."""
    longest = [0]
    plain = Snake.add_to

    def add_to(self: Snake, out: Tensor, x: Tensor) -> None:
        longest[0] = max(longest[0], x.shape[0])
        plain(self, out, x)

    monkeypatch.setattr(Snake, "add_to", add_to)
    monkeypatch.setattr(streamed_layers, "BLOCK", 1 << 30)
    fast = StreamedBigVGAN(vocoder_of(VOCODERS["44k"]), 8)
    found = []
    for frames in (32, 96):
        longest[0] = 0
        fast(torch.randn(1, 128, frames))
        found.append(longest[0])
    assert found[0] == found[1]
    assert found[0] < 32 * math.prod(fast.spec.rates)


@pytest.mark.parametrize("samples", [1, 2, SHORT - 1, SHORT, SHORT + 1, 70])
@pytest.mark.parametrize("ends", [Ends(True, True), Ends(True, False), Ends(False, True), Ends(False, False)])
def test_snake_on_windows(samples: int, ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_layers, "BLOCK", 60)
    torch.manual_seed(1)
    module = AntiAliasedSnake(5).requires_grad_(False)
    module.act.alpha.uniform_(-1, 1)
    module.act.beta.uniform_(-1, 1)
    x = torch.randn(samples, 5)
    # What the signal is beyond the window, where it goes on there.
    more = [torch.randn(0 if at_end else SNAKE_REACH, 5) for at_end in (ends.start, ends.end)]
    window = torch.cat((more[0], x, more[1]))
    active = Snake(module)(window, ends)
    whole = module(window.T[None])[0].T
    wanted = whole[len(more[0]) : len(whole) - len(more[1])]
    if not (ends.start and ends.end):
        # Near a cut the module's own result is wrong: it takes the cut for an end.
        longer = torch.cat((torch.randn(0 if ends.start else 20, 5), window, torch.randn(0 if ends.end else 20, 5)))
        before = 0 if ends.start else 20 + SNAKE_REACH
        wanted = module(longer.T[None])[0].T[before : before + samples]
    got = active.all()
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() < 3e-6
    parts = torch.full_like(got, torch.nan)
    for first in range(0, samples, 2):  # parts that begin and end within the first and last CLAMPED
        active.write(first, parts[first : first + 2])
    assert CLAMPED % 2
    assert (parts - got).abs().max() < 1e-6


@pytest.mark.parametrize(("rate", "kernel"), [(2, 4), (4, 8), (8, 16), (3, 5), (2, 8), (2, 2)])
def test_transposed_convolution_on_windows(rate: int, kernel: int) -> None:
    module = torch.nn.ConvTranspose1d(6, 4, kernel, rate, padding=(kernel - rate) // 2).requires_grad_(False)
    up, x = WindowUp(module), torch.randn(30, 6)
    whole = module(x.T[None])[0].T
    assert whole.shape[0] == 30 * rate
    for first, last in ((0, 30), (0, 9), (9, 30), (11, 20)):
        ends = Ends(first == 0, last == 30)
        low, high = up.span(first, last - first, ends)
        got = up(x[first:last], ends)
        assert got.shape[0] == high - low
        assert (got - whole[low:high]).abs().max() < 1e-6


def test_what_cannot_be_streamed() -> None:
    assert streams(vocoder_of(VOCODERS["16k"]))
    assert not streams(vocoder_of(VocoderSpec(80, 8, (2, 2), (5, 4))))
