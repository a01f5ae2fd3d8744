"""Blocks cover what they must, and few different sizes occur."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from mmaudio_core.kernels.blocks import ELEMENTS, block_rows, blocks, quantum
from mmaudio_core.spec.model import VOCODERS
from mmaudio_core.vocoder.bigvgan import BigVGAN
from mmaudio_core.vocoder.streamed import StreamedBigVGAN
from mmaudio_core.vocoder.streamed_layers import Snake


@pytest.mark.parametrize("step", [1, 4, 32])
@pytest.mark.parametrize("about", [0.3, 5, 32, 100, 1e9])
def test_blocks_cover_all_rows_and_no_more(about: float, step: int) -> None:
    for rows in range(1, 260):
        found = list(blocks(rows, about, step))
        assert found[0][0] == 0
        assert found[-1][1] == rows
        assert all(begin < end for begin, end in found)
        assert all(after[0] <= before[1] < after[1] for before, after in pairwise(found))
        sizes = {end - begin for begin, end in found}
        assert sizes == {rows} if rows < step else all(size % step == 0 for size in sizes)
        assert sum(end - begin for begin, end in found) < rows + step
        assert len(found) <= rows / max(about, step) * 2 + 2


def test_equal_blocks_cover_all_rows() -> None:
    for rows in range(1, 300):
        for about, step in ((0.5, 1), (40.0, 1), (40.0, 8), (1e6, 16)):
            size = block_rows(rows, about, step)
            count = -(-rows // size)
            assert size % step == 0
            assert size * (count - 1) < rows <= size * count
            assert size < max(2 * about, 2) + step or count == 1


def test_sizes_are_powers_of_two() -> None:
    assert [quantum(channels) for channels in (768, 24, 1, ELEMENTS, 10 * ELEMENTS, 0)] == [16, 512, ELEMENTS, 1, 1, ELEMENTS]


def test_few_sizes_occur_in_a_vocoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new one would be compiled, of which a clip of another length has many."""
    spec = replace(VOCODERS["44k"], width=64)
    fast = StreamedBigVGAN(BigVGAN(spec).eval().requires_grad_(False), 40)
    sizes: set[tuple[int, int]] = set()
    plain = Snake.add_to

    def add_to(self: Snake, out: Tensor, x: Tensor) -> None:
        sizes.add((out.shape[1], len(out)))
        plain(self, out, x)

    monkeypatch.setattr(Snake, "add_to", add_to)
    counts = []
    for elements in (1, 1 << 10):  # fewer than usual, as the network is narrow
        monkeypatch.setattr("mmaudio_core.kernels.blocks.ELEMENTS", elements)
        sizes.clear()
        for frames in (41, 53, 67):
            fast(torch.zeros(1, spec.mel_bins, frames))
        counts.append(len(sizes))
    assert all(rows % quantum(channels) == 0 for channels, rows in sizes if rows >= quantum(channels))
    assert counts[1] < counts[0] / 3
