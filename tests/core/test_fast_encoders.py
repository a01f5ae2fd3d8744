"""The fast paths of CLIP's visual tower and Synchformer compute what the modules do, and what is kept is kept rightly."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmaudio_core.attention import sdpa
from mmaudio_core.features import divided
from mmaudio_core.features.clip import MEAN, STD, CLIPEncoder
from mmaudio_core.features.fast_clip import FastCLIPImage
from mmaudio_core.features.fast_synchformer import FastSynchformer
from mmaudio_core.features.repeats import distinct_frames
from mmaudio_core.features.synchformer import SynchformerVisual
from mmaudio_core.kernels import divided_attention as reference
from mmaudio_core.kernels import onednn
from mmaudio_core.kernels.quick_gelu import linear_quick_gelu
from mmaudio_core.kernels.sets import torch_kernels
from mmaudio_core.spec.model import CLIPSpec, SynchformerSpec

from .precision import needs

CLIP = CLIPSpec(32, 45, 3, 64, 16, 14, 77, 49408, 16, 4, 2)
"""Three patches of 14 pixels a side, and three pixels left over."""
SYNC = SynchformerSpec(width=64, heads=4, blocks=3, mlp_width=128, patch=8, grid=3)
DOUBLE = torch.float64


def drawn(module: nn.Module, dtype: torch.dtype = DOUBLE) -> Any:
    generator = torch.Generator().manual_seed(7)
    for p in module.parameters():
        p.data = torch.randn(p.shape, generator=generator, dtype=DOUBLE) * (p[0].numel() ** -0.5 if p.ndim > 1 else 0.3)
    return module.to(dtype).eval().requires_grad_(False)


def clip(spec: CLIPSpec = CLIP, dtype: torch.dtype = DOUBLE, text: bool = False) -> Any:
    return drawn(CLIPEncoder(spec, text=text), dtype)


def synchformer(spec: SynchformerSpec = SYNC, dtype: torch.dtype = DOUBLE) -> Any:
    return drawn(SynchformerVisual(spec), dtype)


def pixels(count: int, size: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(count))


def normalised(frames: Tensor, mean: Any, std: Any) -> Tensor:
    mean, std = (torch.tensor(v, dtype=DOUBLE)[:, None, None] for v in (mean, std))
    return (frames.double() / 255 - mean) / std


def plain_sync(tower: Any, frames: Tensor) -> Tensor:
    """Normalised frames through the module itself."""
    starts = range(0, frames.shape[0] - 15, 8)
    return tower(torch.stack([frames[s : s + 16].transpose(0, 1) for s in starts]))


def relative(out: Tensor, exact: Tensor) -> float:
    assert out.shape == exact.shape
    assert torch.isfinite(out).all()
    return ((out.double() - exact.double()).abs().max() / exact.double().abs().max()).item()


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Memory that is taken but not written is NaN."""
    torch.use_deterministic_algorithms(True)
    assert torch.isnan(torch.empty(3)).all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
def test_clip_is_exact(quick: bool, layers: int) -> None:
    encoder = clip(dataclasses.replace(CLIP, quick_gelu=quick, vision_layers=layers))
    frames = pixels(3, 45)
    floats = normalised(frames, MEAN, STD)
    exact = encoder.visual(floats)
    assert relative(encoder.fast_image()(floats), exact) < 1e-13
    assert relative(encoder.fast_image()(frames), exact) < 1e-13
    torch.testing.assert_close(
        encoder.encode_image(frames), torch.nn.functional.normalize(exact, dim=-1)[None].float(), rtol=1e-6, atol=1e-6
    )


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(("step", "tokens"), [(2, 8), (1, 16), (4, 4), (16, 1), (3, 5)])
@pytest.mark.parametrize("segments", [1, 3])
def test_synchformer_is_exact(step: int, tokens: int, segments: int) -> None:
    tower = synchformer(dataclasses.replace(SYNC, tubelet_frames=step, temporal_tokens=tokens))
    frames = pixels(8 * segments + 8, 24)
    floats = normalised(frames, (0.5,) * 3, (0.5,) * 3)
    exact = plain_sync(tower, floats)
    assert exact.shape[0] == segments
    assert relative(tower.fast()(floats), exact) < 1e-13
    assert relative(tower.fast()(frames), exact) < 1e-13
    torch.testing.assert_close(tower.encode(frames), exact.flatten(0, 1)[None], rtol=1e-12, atol=1e-12)


def test_the_class_token_alone_would_be_another_result() -> None:
    """The towers above depend on every patch, so that what is left out in the last blocks is not left out by luck."""
    encoder, tower = clip(), synchformer()
    frames = normalised(pixels(1, 45), MEAN, STD)
    other = frames.clone()
    other[..., 20, 20] += 1
    assert relative(encoder.fast_image()(other), encoder.fast_image()(frames)) > 1e-6
    video = normalised(pixels(16, 24), (0.5,) * 3, (0.5,) * 3)
    other = video.clone()
    other[5, :, 13, 13] += 1
    assert relative(tower.fast()(other), tower.fast()(video)) > 1e-6


def test_pixels_beyond_the_last_patch_are_not_read() -> None:
    encoder = clip()
    frames = normalised(pixels(2, 45), MEAN, STD)
    exact = encoder.visual(frames)
    frames[..., 42:], frames[..., 42:, :] = float("nan"), float("nan")
    assert relative(encoder.fast_image()(frames), exact) < 1e-13


@pytest.mark.parametrize("packed", [False, True])
def test_float32_on_a_cpu(packed: bool) -> None:
    if packed and not onednn.works():
        pytest.skip("this torch has no working packed operators")
    kernels, frames, video = torch_kernels(), pixels(3, 45), pixels(32, 24)
    encoder, tower = clip(), synchformer()
    exact = encoder.visual(normalised(frames, MEAN, STD)), plain_sync(tower, normalised(video, (0.5,) * 3, (0.5,) * 3))
    encoder, tower = encoder.float(), tower.float()
    assert relative(FastCLIPImage(encoder.visual, CLIP, kernels, pack=packed)(frames), exact[0]) < 5e-6
    assert relative(FastSynchformer(tower, kernels, pack=packed)(video), exact[1]) < 5e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_as_near_as_the_modules(dtype: torch.dtype) -> None:
    needs(dtype)
    frames, video = pixels(6, 45), pixels(40, 24)
    encoder, tower = clip(dtype=dtype), synchformer(dtype=dtype)
    wide_encoder, wide_tower = copy.deepcopy(encoder).double(), copy.deepcopy(tower).double()
    for fast, plain, exact in (
        (encoder.encode_image(frames), encoder.encode_image(frames, plain=True), wide_encoder.encode_image(frames)),
        (tower.encode(video), tower.encode(video, plain=True), wide_tower.encode(video)),
    ):
        assert fast.dtype == plain.dtype
        fast_error, plain_error = ((out.double() - exact).norm() / exact.norm() for out in (fast, plain))
        assert fast_error < 1.25 * plain_error


def test_pieces_and_progress() -> None:
    encoder, tower = clip(), synchformer()
    frames, video = pixels(5, 45), pixels(16 + 4 * 8 + 3, 24)
    for encode, given, count in ((encoder.encode_image, frames, 5), (tower.encode, video, 5)):
        whole = encode(given, count)
        for size in (1, 2, 4, 99):
            seen: list[tuple[int, int]] = []
            assert relative(encode(given, size, lambda done, total: seen.append((done, total))), whole) < 1e-6  # noqa: B023
            assert seen == [(min(count, done), count) for done in range(size, count + size, size)]


def recorded(function: Callable[..., Any], calls: list[tuple[int, ...]]) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        calls.append(tuple(args[0].shape))
        return function(*args, **kwargs)

    return run


@pytest.mark.parametrize("as_floats", [False, True])
def test_equal_neighbours_are_encoded_once(as_floats: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, frames = clip(), pixels(4, 45)
    shown = frames[[0, 0, 1, 2, 2, 2, 0, 3]]
    nearly = shown.clone()
    nearly[4, 2, 44, 44] ^= 1  # a frame that differs in one value, where CLIP does not even look
    if as_floats:
        shown, nearly = (normalised(f, MEAN, STD) for f in (shown, nearly))
    exact = encoder.encode_image(shown, plain=True)
    seen: list[tuple[int, ...]] = []
    progress: list[int] = []
    monkeypatch.setattr(FastCLIPImage, "__call__", lambda self, x: recorded(encoder.visual, seen)(floats(x)))

    def floats(x: Tensor) -> Tensor:
        return normalised(x, MEAN, STD) if x.dtype == torch.uint8 else x

    assert relative(encoder.encode_image(shown, 2, lambda done, _: progress.append(done)), exact) < 1e-6
    assert [shape[0] for shape in seen] == [2, 2, 1]
    assert progress == [3, 7, 8]
    seen.clear()
    assert relative(encoder.encode_image(nearly, 99), exact) < 1e-6
    assert [shape[0] for shape in seen] == [7]


def test_every_value_of_a_frame_is_compared() -> None:
    one = pixels(1, 3)[0]
    for i in range(one.numel()):
        other = one.clone()
        other.view(-1)[i] ^= 1
        assert distinct_frames(torch.stack((one, one, other, other, one))) == [0, 2, 4]


@pytest.mark.parametrize("width", ["over time", "over space"])
@pytest.mark.usefixtures("poisoned")
def test_divided_attention_on_a_cpu(width: str) -> None:
    for batch, heads, frames, patches in ((2, 3, 4, 5), (1, 1, 1, 1), (3, 2, 8, 1), (1, 4, 1, 7)):
        qkv = torch.randn(batch, 1 + frames * patches, 3 * heads * 8, dtype=DOUBLE)
        over_time = width == "over time"
        exact = reference.divided_attention(qkv, heads, frames, over_time)
        assert relative(divided.divided_attention(qkv, heads, frames, over_time), exact) < 1e-13
        alone = divided.divided_attention(qkv, heads, frames, over_time, class_token=False)
        assert relative(alone, exact[:, 1:]) < 1e-13


def test_chosen_kernels_and_attention_are_used() -> None:
    encoder, tower, frames, video = clip(), synchformer(), pixels(2, 45), pixels(24, 24)
    before = encoder.encode_image(frames), tower.encode(video)
    gelus: list[tuple[int, ...]] = []
    divisions: list[tuple[int, ...]] = []
    heads: list[tuple[int, ...]] = []
    kernels = dataclasses.replace(
        torch_kernels(),
        linear_quick_gelu=recorded(linear_quick_gelu, gelus),
        divided_attention=recorded(reference.divided_attention, divisions),
    )
    encoder.kernels = tower.kernels = kernels
    encoder.attention = recorded(sdpa.attend, heads)
    assert relative(encoder.encode_image(frames), before[0]) < 1e-6
    assert relative(tower.encode(video), before[1]) < 1e-12
    assert gelus == [(2, 10, 64), (2, 10, 64), (2, 64)]
    assert heads == [(2, 4, 10, 16)] * 2
    assert divisions == [(2, 73, 192)] * 6


def test_no_value_is_read_back() -> None:
    """Tensors without values go through, so nothing waits for a device, and a graph can be captured."""
    encoder, tower = clip().to("meta"), synchformer().to("meta")
    for dtype in (torch.uint8, DOUBLE):
        assert encoder.fast_image()(torch.empty(2, 3, 45, 45, dtype=dtype, device="meta")).shape == (2, 32)
        assert tower.fast()(torch.empty(24, 3, 24, 24, dtype=dtype, device="meta")).shape == (2, 8, 64)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_graphs_of_the_fast_paths(dtype: torch.dtype) -> None:
    encoder, tower = clip(dtype=dtype), synchformer(dtype=dtype)
    exact = copy.deepcopy(encoder).float(), copy.deepcopy(tower).float()
    frames, video = pixels(3, 45), pixels(24, 24)
    wanted = exact[0].fast_image()(frames), exact[1].fast()(video)
    for fast, given, expected in (
        (encoder.cuda().fast_image(), frames.cuda(), wanted[0]),
        (tower.cuda().fast(), video.cuda(), wanted[1]),
    ):
        still = torch.zeros_like(given)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            fast(still)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = fast(still)
        still.copy_(given)
        graph.replay()
        assert relative(out.cpu(), expected) < (1e-3 if dtype == torch.float32 else 3e-2)
