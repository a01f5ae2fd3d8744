"""The plan of memory: what it promises for the published networks, how it chooses, and that the pipeline does as planned."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

import mmaudio_core
from mmaudio_core.attention.sdpa import attend
from mmaudio_core.errors import InputError
from mmaudio_core.kernels.sets import torch_kernels
from mmaudio_core.pipeline import free_memory, memory
from mmaudio_core.pipeline.plan import PARTS, check_memory, parse_memory, plan, unplanned
from mmaudio_core.pipeline.precision import Precision
from mmaudio_core.pipeline.stages import Run, fuses_attention, part_bytes
from mmaudio_core.spec.model import VAES, VARIANTS, VOCODERS, CLIPSpec, FlowSpec, PartSpec, SynchformerSpec, VAESpec
from mmaudio_core.spec.timing import sequence_lengths
from mmaudio_core.transformer.fast import FastFlow
from mmaudio_core.transformer.fast_inputs import run_inputs
from mmaudio_core.transformer.guided import GuidedVelocity
from mmaudio_core.types import Features
from mmaudio_core.weights.build import build_module

from .test_memory_estimates import on_meta, peak

GB = 1e9
BF16 = torch.bfloat16


def published(name: str) -> dict[str, PartSpec]:
    audio = VARIANTS[name].audio.name
    encoders: dict[str, PartSpec] = {"clip": CLIPSpec(), "synchformer": SynchformerSpec()}
    return {"flow": VARIANTS[name], "vae": VAES[audio], "vocoder": VOCODERS[audio], **encoders}


LARGE = published("large_44k_v2")
WHOLE = Run(8.0)


def test_the_large_model_in_six_and_in_three_gigabytes() -> None:
    resident, staged = (plan(LARGE, BF16, WHOLE, memory=mode) for mode in ("resident", "staged"))  # type: ignore[arg-type]
    print(resident.table(), staged.table(), sep="\n")
    assert resident.peak_bytes < 6 * GB
    assert staged.peak_bytes < 3 * GB
    assert [s.name for s in staged.stages] == ["CLIP image", "Synchformer", "CLIP text", "sampling", "VAE decode", "vocoder"]
    assert all(s.resident_bytes_before == 0 for s in staged.stages)
    total = sum(s.weight_bytes for s in resident.stages)
    assert all(s.weight_bytes + s.resident_bytes_before == total for s in resident.stages)


def test_weights_are_counted_as_the_modules_are_built() -> None:
    found = {s.name: s.weight_bytes for s in plan(LARGE, BF16, WHOLE, memory="staged").stages}
    kinds = {"CLIP image": "clip", "Synchformer": "synchformer", "CLIP text": "clip", "sampling": "flow", "vocoder": "vocoder"}
    for name, kind in kinds.items():
        towers = {"text": False} if name == "CLIP image" else {"image": False} if name == "CLIP text" else {}
        with torch.device("meta"):
            module = build_module(LARGE[kind], **towers)
        assert found[name] == 2 * sum(value.numel() for value in module.state_dict().values())
    vae = on_meta(LARGE["vae"], BF16)
    assert found["VAE decode"] == 2 * sum(v.numel() for n, v in vae.state_dict().items() if not n.startswith("encoder."))


def tensors_of(value: Any, seen: set[int] | None = None) -> list[torch.Tensor]:
    """All tensors that an object of the fast path holds."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, torch.nn.Module):
        return []
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, (list, tuple)):
        inner = value
    elif isinstance(value, partial):
        inner = [*value.args, *value.keywords.values()]
    else:
        inner = list(getattr(value, "__dict__", {}).values())
    return [tensor for part in inner for tensor in tensors_of(part, seen)]


def test_work_is_not_above_the_plan() -> None:
    """What is alive at once, counted without computing, with every stage's amount as the plan has it."""
    found = plan(LARGE, BF16, WHOLE, memory="resident")
    work = {s.name: s.work_bytes for s in found.stages}
    clip, sync, net = on_meta(LARGE["clip"], BF16), on_meta(LARGE["synchformer"], BF16), on_meta(LARGE["flow"], BF16)
    vae, vocoder = on_meta(LARGE["vae"], BF16).fold_weights_(), on_meta(LARGE["vocoder"], BF16)
    lengths = sequence_lengths(8.0, net.spec.audio)
    empty: Callable[..., torch.Tensor] = lambda *shape: torch.empty(*shape, dtype=BF16, device="meta")  # noqa: E731
    frames, segments = empty(found.frames_per_chunk, 3, 384, 384), empty(found.segments_per_chunk, 3, 16, 224, 224)
    latent, t = empty(2, lengths.latent, 40), torch.empty((), device="meta")
    mel = empty(1, 128, found.mel_frames_per_chunk + 2 * memory.context_frames(vocoder.spec))

    def flow() -> Any:  # both branches in one batch
        return net.velocity(latent, t, net.conditions(Features(), lengths, 2))

    layers = FastFlow(net, torch_kernels())
    inputs = run_inputs(net, net.conditions(Features(), lengths), net.conditions(Features(), lengths), 1)
    guided = GuidedVelocity(layers, inputs, 4.5, attend, [0.5])
    counted = {
        "CLIP image": peak(clip, lambda: clip.visual(frames), frames),
        "Synchformer": peak(sync, lambda: sync(segments), segments),
        "sampling": peak(net, flow, latent),
        "sampling, fast": peak(net, lambda: guided(latent[:1], torch.tensor(0.5)), latent, *tensors_of(layers)),
        "VAE decode": peak(vae, lambda: vae.decode_fast(latent[:1]), latent),
        "vocoder": peak(vocoder, lambda: vocoder(mel), mel),
    }
    for name, needed in counted.items():
        print(f"{name}: needs {needed / GB:.3f} GB beside the weights, planned {work[name.split(',')[0]] / GB:.3f} GB")
        assert 0 < needed <= work[name.split(",")[0]], name
    assert max(counted.values()) + sum(s.weight_bytes for s in found.stages) < 6 * GB


def test_a_card_of_four_gigabytes_swaps_clip_and_flow_only() -> None:
    found = plan(LARGE, BF16, WHOLE, int(3.5 * GB))
    assert found.mode == "staged"
    assert set(found.kept) == {"vae", "vocoder", "synchformer"}
    assert 2.9 * GB < found.peak_bytes <= 3.5 * GB


@pytest.mark.parametrize("stage", ["CLIP image", "Synchformer", "VAE decode", "vocoder"])
def test_memory_is_flat_over_the_duration(stage: str) -> None:
    def of(seconds: float) -> Any:
        stages = plan(LARGE, BF16, Run(seconds, fused_attention=True), memory="staged").stages
        return next(s for s in stages if s.name == stage)

    short, long = of(8.0), of(600.0)
    print(f"{stage}: {short.work_bytes / 1e6:.0f} MB for 8 s, {long.work_bytes / 1e6:.0f} MB for 10 min")
    assert 0 < long.work_bytes - short.work_bytes < 300e6


def test_fused_attention_takes_the_square_out_of_the_duration() -> None:
    def sampling(seconds: float, fused: bool) -> int:
        run = Run(seconds, video=False, texts=0, fused_attention=fused)
        return plan(LARGE, BF16, run, memory="staged").stages[0].work_bytes

    assert sampling(120, True) == pytest.approx(4 * sampling(30, True), rel=0.1)
    assert sampling(120, False) > 10 * sampling(30, False)


@pytest.mark.skipif(not fuses_attention(torch.device("cpu")), reason="this torch has no fused attention on the CPU")
def test_fused_attention_is_counted_as_it_is_on_a_cpu() -> None:
    net: Any = build_module(FlowSpec(20, 448, 7, 1, 1)).eval()
    lengths = sequence_lengths(16.0, net.spec.audio)
    x, t = torch.zeros(1, lengths.latent, 20), torch.tensor(0.5)
    needed = peak(net, lambda: net.velocity(x, t, net.conditions(Features(), lengths)), x)
    with_scores, without = (memory.flow_bytes(net.spec, 1, lengths.latent, torch.float32, fused) for fused in (False, True))
    assert needed <= without < with_scores / 2


def test_chunks_shrink_only_where_they_must() -> None:
    small = published("small_16k")
    found = plan(small, BF16, WHOLE, int(1.6 * GB))
    assert (found.mode, found.kept, found.frames_per_chunk) == ("chunked", (), 2)
    assert (found.segments_per_chunk, found.batch_size, found.mel_frames_per_chunk) == (4, None, 256)
    assert found.peak_bytes <= 1.6 * GB
    least = plan(small, BF16, WHOLE, memory="chunked")
    assert least.frames_per_chunk == 1
    assert plan(small, BF16, WHOLE, memory=least.peak_bytes).peak_bytes == least.peak_bytes
    with pytest.raises(InputError, match=r"at least 1\.37 GB beside the CUDA context \(the stage 'CLIP image'"):
        plan(small, BF16, WHOLE, memory=least.peak_bytes - 1)
    # What is free is not a wish: the least there is is tried.
    assert plan(small, BF16, WHOLE, least.peak_bytes - 1).peak_bytes == least.peak_bytes


def test_samples_and_mel_frames_are_cut_too() -> None:
    run = Run(30.0, batch=8, texts=0, video=False)
    whole = plan(LARGE, BF16, run, memory="staged")
    found = plan(LARGE, BF16, run, memory=int(3.5 * GB), keep_parts=False)
    assert found.peak_bytes <= 3.5 * GB < whole.peak_bytes
    assert found.batch_size in (1, 2, 4)
    small: dict[str, PartSpec] = {"flow": FlowSpec(40, 64, 1, 1, 0), "vae": VAESpec(128, 40, 16), "vocoder": VOCODERS["44k"]}
    least = plan(small, BF16, run, memory="chunked")
    assert least.mel_frames_per_chunk == 32
    between = (least.peak_bytes + plan(small, BF16, run, memory="staged").peak_bytes) // 2
    assert 32 < plan(small, BF16, run, memory=between).mel_frames_per_chunk < 256


@pytest.mark.parametrize(
    ("budget", "mode"),
    [(None, "resident"), (80, "resident"), (5.8, "resident"), (5.7, "staged"), (2.2, "staged"), (2.1, "chunked")],
)
def test_the_first_that_fits(budget: float | None, mode: str) -> None:
    free = None if budget is None else int(budget * GB)
    found = plan(LARGE, BF16, WHOLE, free)
    assert found.mode == mode
    assert set(found.kept) == set(PARTS) if mode == "resident" else len(found.kept) < len(PARTS)
    alone = plan(LARGE, BF16, WHOLE, free, keep_parts=False)
    assert (alone.mode, alone.kept) == ("chunked" if mode == "chunked" else "staged", ())


def test_more_memory_never_keeps_less() -> None:
    sizes = [sum(part != "flow" for part in plan(LARGE, BF16, WHOLE, int(g * GB)).kept) for g in (2.2, 2.5, 3, 3.5, 4, 5, 6)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[-1]


def test_parts_that_a_run_does_not_use_count_while_they_stay() -> None:
    words = Run(8.0, video=False)
    alone = plan(LARGE, BF16, words, int(3.6 * GB))
    beside = plan(LARGE, BF16, words, int(3.6 * GB), loaded={"clip image": int(1.27 * GB)})
    assert alone.mode == "resident"
    assert beside.mode == "staged"
    assert "clip image" not in beside.kept


def test_formats_change_the_weights() -> None:
    half, whole = (plan(LARGE, dtype, WHOLE, memory="staged") for dtype in (BF16, torch.float32))
    assert all(2 * a.weight_bytes == b.weight_bytes for a, b in zip(half.stages, whole.stages, strict=True))
    mixed = plan(LARGE, Precision(BF16, {"vocoder": torch.float32}), WHOLE, memory="staged")
    assert [s.weight_bytes for s in mixed.stages] == [s.weight_bytes for s in (*half.stages[:-1], whole.stages[-1])]
    narrow = plan(LARGE, Precision(BF16, storage="fp8"), WHOLE, memory="staged")
    flows = [p.stages[3].weight_bytes for p in (narrow, half)]
    assert flows[0] < 0.55 * flows[1]
    assert narrow.stages[4:] == half.stages[4:]
    assert part_bytes(LARGE["flow"], Precision(BF16)) == flows[1]


def test_words_for_the_log() -> None:
    found = plan(LARGE, BF16, WHOLE, int(3.5 * GB))
    assert found.sentence() == (
        "Memory: each part goes when its stage is done (synchformer, vocoder, vae stay); at most 3.00 of 3.50 GB, "
        "without the CUDA context."
    )
    lines = found.table().splitlines()
    assert len(lines) == 8
    assert lines[4].split() == ["sampling", "2.061", "0.103", "0.841", "3.004"]
    assert "CUDA context" in lines[-1]
    chunked = plan(published("small_16k"), BF16, WHOLE, int(1.6 * GB)).sentence()
    assert "smaller pieces (frames_per_chunk 2)" in chunked


def test_wishes() -> None:
    assert [parse_memory(text) for text in ("auto", "chunked", "3.5")] == ["auto", "chunked", 3_500_000_000]
    for text in ("", "much", "-1", "0", "nan", "inf", "Resident"):
        with pytest.raises(InputError, match="memory"):
            parse_memory(text)
    for wish in ("all", 0, -5, True, 2.5, None):
        with pytest.raises(InputError, match="Memory"):
            check_memory(wish)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no parts are kept"):
        mmaudio_core.load("tiny", device="cpu", memory="resident", keep_parts=False)
    assert unplanned("auto", True).kept == PARTS
    assert unplanned("auto", False).kept == unplanned("staged", True).kept == ()
    assert unplanned("chunked", True).frames_per_chunk == 1


def test_what_would_help_is_named() -> None:
    with pytest.raises(InputError) as caught:
        plan(LARGE, torch.float32, Run(30.0), memory=10**9)
    for words in ("1.00 GB was given", "'sampling'", "bfloat16", "fp8", "smaller variant", "CUDA context"):
        assert words in str(caught.value)


def test_free_memory_here() -> None:
    free = free_memory.free_bytes(torch.device("cpu"))
    assert free is None or 0 < free < 1 << 50
    assert free_memory.free_bytes(torch.device("meta")) is None
