"""Resizing on the 8-bit frame."""

from __future__ import annotations

import pytest
import torch

from mmaudio_core.media.resize import clip_frame, sync_frame, to_uint8


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (97, 161), (720, 1280), (1280, 720), (224, 224), (384, 384), (30, 500)])
def test_shapes(size: tuple[int, int]) -> None:
    frame = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
    assert clip_frame(frame).shape == (1, 3, 384, 384)
    assert sync_frame(frame).shape == (1, 3, 224, 224)
    assert clip_frame(frame, 32).shape == (1, 3, 32, 32)
    assert sync_frame(frame, 32).shape == (1, 3, 32, 32)
    assert sync_frame(frame).dtype == torch.uint8


def test_a_plain_colour_stays_and_channels_do_not_mix() -> None:
    frame = torch.tensor([10, 128, 250], dtype=torch.uint8)[:, None, None].expand(3, 50, 70)
    for resized in (clip_frame(frame), sync_frame(frame)):
        assert (resized == torch.tensor([10, 128, 250])[:, None, None]).all()


@pytest.mark.parametrize("layout", ["channels_first", "channels_last", "rgba_view"])
def test_memory_layout_does_not_matter(layout: str) -> None:
    pixels = torch.randint(0, 256, (90, 130, 4), dtype=torch.uint8)
    plain = pixels[..., :3].permute(2, 0, 1).contiguous()
    given = {
        "channels_first": plain,
        "channels_last": pixels[..., :3].contiguous().permute(2, 0, 1),
        "rgba_view": pixels[..., :3].permute(2, 0, 1),
    }[layout]
    assert torch.equal(clip_frame(given[None]), clip_frame(plain[None]))
    assert torch.equal(sync_frame(given[None]), sync_frame(plain[None]))


def test_rounding_to_8_bits_matches_a_float_reference() -> None:
    # Away from black and white, where the kernel also clamps between its two axes.
    frame = torch.randint(64, 192, (1, 3, 480, 640), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    exact = torch.nn.functional.interpolate(frame.double(), size=(384, 384), mode="bicubic", antialias=True)
    difference = clip_frame(frame).double() - exact.clamp(0, 255)
    # The 8-bit kernel rounds after each axis, the first rounding weighted by up to 1.25: not half a level but one.
    assert difference.abs().max() <= 1.2
    assert difference.abs().mean() < 0.35


@pytest.mark.parametrize("width", [226, 227, 228, 229, 231])
def test_centre_crop_rounds_half_to_even(width: int) -> None:
    frame = torch.arange(width, dtype=torch.uint8).expand(1, 3, 224, width)
    left = round((width - 224) / 2)
    assert sync_frame(frame)[0, 0, 0, 0] == left


def test_the_longer_side_is_cut_down_to_a_whole_number() -> None:
    # 224 * 854 / 480 = 398.53 -> 398, so 87 columns go on the left.
    frame = torch.zeros(1, 3, 480, 854, dtype=torch.uint8)
    frame[..., 427:] = 255
    edge = (sync_frame(frame)[0, 0, 0] > 127).nonzero()[0, 0]
    assert edge == 112


def test_float_frames_round_to_the_nearest_level() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(levels.float() / 255), levels)
    assert torch.equal(to_uint8(levels.half() / 255), levels)
    assert to_uint8(torch.tensor([-0.1, 1.1, 0.4 / 255, 0.6 / 255])).tolist() == [0, 255, 0, 1]
