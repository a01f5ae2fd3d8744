"""Convolutions on windows of time-major signals against the plain ones in float64: Toom-Cook, gathered, packed, depthwise."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmaudio_core.kernels import depthwise, onednn, toom
from mmaudio_core.kernels.depthwise import Depthwise
from mmaudio_core.kernels.taps import WIDE, TapConv
from mmaudio_core.kernels.toom import (
    ELEVEN,
    FOUR,
    SEVEN,
    THREE,
    Form,
    ToomConv,
    evaluate,
    form_for,
    interpolate,
    transform_weight,
)

FORMS = {"three": THREE, "four": FOUR, "seven": SEVEN, "eleven": ELEVEN}
needs_onednn = pytest.mark.skipif(not onednn.works(), reason="this torch lacks oneDNN's packed operators")


class Rows:
    """A source that checks that it is asked for its rows in order, each once."""

    def __init__(self, x: Tensor) -> None:
        self._x, self.rows, self.asked = x, len(x), 0

    def write(self, first: int, out: Tensor) -> None:
        assert first == self.asked
        self.asked = first + len(out)
        out.copy_(self._x[first : self.asked])


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that is not written holds NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(3).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def drawn(rows: int, channels: int, outputs: int, kernel: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(s, generator=generator) for s in ((rows, channels), (outputs, channels, kernel), (outputs,)))
    return x, weight / (channels * kernel) ** 0.5, bias


def exact(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, before: int = 0, after: int = 0) -> Tensor:
    padded = F.pad(x.double().T[None], (before, after))
    return F.conv1d(padded, weight.double(), None if bias is None else bias.double(), dilation=dilation)[0].T


def error(got: Tensor, wanted: Tensor) -> float:
    assert got.shape == wanted.shape
    assert got.isfinite().all()
    return ((got.double() - wanted).norm() / wanted.norm()).item()


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_forms_are_exact_in_float64(form: Form, monkeypatch: pytest.MonkeyPatch) -> None:
    """One tile: what the transforms do to a short signal is a convolution, up to float64's rounding."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # the weights stay in float64
    x, weight, _ = (t.double() for t in drawn(form.tile + form.taps - 1, 3, 5, form.taps))
    tiles = F.pad(x, (0, 0, 0, -len(x) % form.tile)).view(-1, form.tile, 1, 3)
    values = evaluate(tiles, 1, form)
    assert len(values) == form.tile + form.taps - 1
    out = torch.empty(1, form.tile, 1, 5, dtype=torch.float64)
    interpolate([v @ w.T for v, w in zip(values, transform_weight(weight, form), strict=True)], out, form)
    assert error(out[0, :, 0], exact(x, weight, None, 1)) < 1e-13


def test_coefficients_of_the_other_points() -> None:
    for y in (0.3, 2.0):
        for form in FORMS.values():
            for a in (0.0, *form.points):
                wanted = prod(y - b * b for b in form.points if b != a)
                assert sum(c * y**n for n, c in enumerate(form.others(a))) == pytest.approx(wanted)


@needs_onednn
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("blocks", [True, False], ids=["blocks", "one block"])
@pytest.mark.parametrize("dilation", [1, 3, 5])
@pytest.mark.parametrize(
    ("form", "kernel"), [(THREE, 3), (FOUR, 3), (FOUR, 5), (FOUR, 11), (SEVEN, 7), (SEVEN, 5), (ELEVEN, 11), (ELEVEN, 13)]
)
def test_toom(form: Form, kernel: int, dilation: int, blocks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if blocks:
        monkeypatch.setattr(toom, "BLOCK", 1)
        monkeypatch.setattr(toom, "BLOCK_TILES", 3)
    for rows, before, after in ((dilation * (kernel - 1) + 1, 0, 0), (203, 0, 0), (131, 7, 0), (64, 0, 61), (1, 40, 33)):
        x, weight, bias = drawn(rows, 24, 17, kernel)
        if rows + before + after <= dilation * (kernel - 1):
            continue
        wanted = exact(x, weight, bias, dilation, before, after)
        conv, source = ToomConv(weight, bias, dilation, form), Rows(x)
        assert error(conv(source, before, after), wanted) < 6e-6
        added = torch.randn(wanted.shape)
        assert error(conv(Rows(x), before, after, added), wanted + added) < 6e-6
    assert (
        error(ToomConv(weight, None, dilation, form)(Rows(x), before, after), exact(x, weight, None, dilation, before, after))
        < 6e-6
    )


@needs_onednn
def test_toom_rounds_as_stated() -> None:
    """Relative to a direct convolution in float32, as the comment beside the forms says."""
    for form, kernel, times in ((THREE, 3, 6), (FOUR, 11, 6), (SEVEN, 7, 20), (ELEVEN, 11, 26)):
        x, weight, bias = drawn(240, 256, 256, kernel)
        assert error(ToomConv(weight, bias, 1, form)(Rows(x)), exact(x, weight, bias, 1)) < times * 2e-7, form


def test_forms_fit_their_kernels() -> None:
    for kernel in (1, 2, 3, 5, 7, 9, 11, 13, 15):
        for channels in (16, 96, 128, 768):
            form = form_for(kernel, channels)
            assert form is None or (form.taps >= kernel or form.taps == form.tile), (kernel, channels)
    assert form_for(11, 768) == ELEVEN
    assert form_for(7, 24) is None


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "plain"])
@pytest.mark.parametrize("outputs", [WIDE, 24])
def test_taps(outputs: int, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not packed:
        monkeypatch.setattr(onednn, "works", lambda: False)
    for kernel, dilation, before, after in ((1, 1, 0, 0), (2, 1, 1, 1), (7, 3, 9, 0), (11, 5, 0, 50)):
        x, weight, bias = drawn(90, 16, outputs, kernel)
        wanted = exact(x[20:81], weight, bias, dilation, before, after)
        assert error(TapConv(weight, bias, dilation)(x[20:81], before, after), wanted) < 1e-6
        assert error(TapConv(weight, None, dilation)(x[20:81], before, after), wanted - bias) < 1e-6


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("packed", [True, False], ids=["packed", "plain"])
@pytest.mark.parametrize("channels", [1, 24, 50])
def test_depthwise(channels: int, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if packed and not depthwise.works():
        pytest.skip("this torch lacks oneDNN's packed operators")
    if not packed:
        monkeypatch.setattr(depthwise, "works", lambda: False)
    generator = torch.Generator().manual_seed(0)
    x, taps, bias = (torch.randn(s, generator=generator) for s in ((80, channels), (channels, 6), (channels,)))
    wanted = F.conv1d(x[9:70].double().T[None], taps.double()[:, None], groups=channels)[0].T
    assert error(Depthwise(taps)(x[9:70]), wanted) < 1e-6
    assert error(Depthwise(taps, bias)(x[9:70]), wanted + bias) < 1e-6
    out: Any = torch.randn(70, channels, generator=generator)
    before = out.clone()
    Depthwise(taps).add_to(out[5:61], x[9:70])
    assert error(out[5:61], before[5:61] + wanted) < 1e-6
    assert torch.equal(out[:5], before[:5])
    assert torch.equal(out[61:], before[61:])
