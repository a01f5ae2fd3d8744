"""The flow network's fast path against the network as it is written."""

from __future__ import annotations

import copy
import gc
import logging
import weakref
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from mmaudio_core.errors import InputError
from mmaudio_core.kernels.dense import Conv
from mmaudio_core.kernels.graphs import KEPT, Graphed
from mmaudio_core.pipeline.accelerate import Accelerator, Speed
from mmaudio_core.pipeline.sample import Known, SampleSettings, sample_latents
from mmaudio_core.sampling.guidance import guided
from mmaudio_core.spec.audio import AUDIO_44K
from mmaudio_core.spec.timing import sequence_lengths
from mmaudio_core.transformer.fast_inputs import distinct_rows
from mmaudio_core.transformer.layout import lay_out_
from mmaudio_core.types import Features

from .test_flow_network import LENGTHS, SPEC, features, network

V2_44K = replace(SPEC, latent_dim=40, joint_blocks=3, audio_blocks=0, v2=True)
ODD = sequence_lengths(1.7, AUDIO_44K)
TIMES = (0.0, 0.37)


def given(batch: int, lengths: Any = LENGTHS, dtype: torch.dtype = torch.float64) -> Features:
    g = torch.Generator().manual_seed(batch)

    def drawn(tokens: int, width: int) -> Tensor:
        return torch.randn(batch, tokens, width, generator=g, dtype=torch.float64).to(dtype)

    return Features(
        drawn(lengths.clip, SPEC.clip_dim), drawn(lengths.sync, SPEC.sync_dim), drawn(SPEC.text_tokens, SPEC.text_dim)
    )


def error(got: Tensor, wanted: Tensor) -> float:
    return float((got.double() - wanted.double()).norm() / wanted.double().norm())


@torch.no_grad()
@pytest.mark.parametrize("strength", [1.0, 4.5])
@pytest.mark.parametrize(("spec", "lengths"), [(SPEC, LENGTHS), (V2_44K, ODD)], ids=["v1 16k", "v2 44k odd"])
@pytest.mark.parametrize("rows", [(1, 1, 1), (3, 1, 3), (3, 3, 1), (3, 3, 3)], ids=str)
def test_same_velocity_in_float64(spec: Any, lengths: Any, rows: tuple[int, int, int], strength: float) -> None:
    """The algebra is exact: what is left is float64's rounding."""
    batch, own, against = rows
    net = network(spec).double()
    conditions = net.conditions(given(own, lengths), lengths)
    empty = None
    if strength > 1:
        text = given(3, lengths).text
        empty = net.conditions(Features(text=text) if against == 3 else Features(), lengths, against)
    plain = guided(net.velocity, conditions.expand(batch), empty and empty.expand(batch), strength)
    fast = Accelerator(Speed("torch")).velocity(net, conditions, empty, strength, batch, TIMES)
    x = torch.randn(batch, lengths.latent, spec.latent_dim, dtype=torch.float64)
    for t in (*TIMES, 0.9):  # the last one was not announced
        assert error(fast(x, torch.tensor(t)), plain(x, torch.tensor(t))) < 1e-12


@torch.no_grad()
@pytest.mark.parametrize("tile", [0, 2, 4])
def test_same_velocity_in_float32(tile: Any) -> None:
    net = network()
    exact = network().double()
    x, t = torch.randn(2, LENGTHS.latent, 20), torch.tensor(0.37)
    wanted = guided(exact.velocity, exact.conditions(given(2), LENGTHS), exact.conditions(Features(), LENGTHS, 2), 4.5)(
        x.double(), t
    )
    conditions, empty = net.conditions(given(2, dtype=torch.float32), LENGTHS), net.conditions(Features(), LENGTHS)
    got = Accelerator(Speed(tile=tile)).velocity(net, conditions, empty, 4.5, 2)(x, t)
    assert error(got, wanted) < 5e-6


@torch.no_grad()
@pytest.mark.parametrize("sync", [24, 40, 192])
def test_missing_sync_tokens_repeat_where_it_is_said(sync: int) -> None:
    net = network().double()
    lengths = replace(LENGTHS, sync=sync)
    conditions = net.conditions(Features(), lengths)
    rows = distinct_rows(conditions)
    assert len(rows.unique()) == 18
    torch.testing.assert_close(conditions.sync_rows[:, rows], conditions.sync_rows, rtol=0, atol=1e-12)
    present = net.conditions(replace(given(1, lengths)), lengths)
    assert len(distinct_rows(present).unique()) == sync


@torch.no_grad()
@pytest.mark.parametrize("by_part", [False, True])
def test_laid_out_weights_keep_names_values_and_results(by_part: bool) -> None:
    net, same = network().double(), network().double()
    lay_out_(net, by_part)
    lay_out_(net, by_part)  # nothing left to do
    before, after = same.state_dict(), net.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    conditions = net.conditions(given(1), LENGTHS)
    x, t = torch.randn(1, LENGTHS.latent, 20, dtype=torch.float64), torch.tensor(0.5)
    assert error(net.velocity(x, t, conditions), same.velocity(x, t, same.conditions(given(1), LENGTHS))) < 1e-12
    fast = Accelerator(Speed("torch")).velocity(net, conditions, None, 1.0, 1)
    assert error(fast(x, t), same.velocity(x, t, conditions)) < 1e-12

    other = {name: value + 0.01 for name, value in before.items()}
    net.load_state_dict(other)
    assert all(torch.equal(other[name], value) for name, value in net.state_dict().items())
    first = net.joint_blocks[0].latent_block
    assert first.attn.by_part is by_part
    assert first.ffn.w3.weight.data_ptr() == first.ffn.w1.weight.data_ptr() + first.ffn.w1.weight.nbytes
    image = first.ffn.w1.weight[:, :, None]
    assert Conv(image[:, :, 0], None).bias is None
    assert image.is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_changed_weights_are_seen_and_moved_ones_let_go() -> None:
    net = network()
    accelerator = Accelerator(Speed("torch"))
    x, t = torch.randn(1, LENGTHS.latent, 20), torch.tensor(0.5)

    def both() -> tuple[Tensor, Tensor]:
        conditions = net.conditions(given(1, dtype=torch.float32), LENGTHS)
        empty = accelerator.empty_conditions(net, LENGTHS)
        plain = guided(net.velocity, conditions, net.conditions(Features(), LENGTHS), 4.5)
        return accelerator.velocity(net, conditions, empty, 4.5, 1)(x, t), plain(x, t)

    fast, plain = both()
    assert error(fast, plain) < 1e-5
    layers = net.fast_cache._layers
    assert both()[0].equal(fast)
    assert net.fast_cache._layers is layers, "nothing changed, nothing is built anew"
    net.fused_blocks[0].ffn.w2.weight.mul_(2)  # in place
    changed, plain = both()
    assert error(changed, plain) < 1e-5 < error(changed, fast)
    net.final_layer.conv.weight = torch.nn.Parameter(-net.final_layer.conv.weight, requires_grad=False)
    replaced, plain = both()
    assert error(replaced, plain) < 1e-5 < error(replaced, changed)
    net.empty_clip_feat.add_(1)  # only the empty branch
    again, plain = both()
    assert error(again, plain) < 1e-5 < error(again, replaced)
    accelerator.version = "the host says so"
    layers = net.fast_cache._layers
    both()
    assert net.fast_cache._layers is not layers
    assert not copy.deepcopy(net).fast_cache.is_filled
    net.to(torch.float64)
    assert not net.fast_cache.is_filled


@torch.no_grad()
def test_a_second_run_of_the_same_shapes_takes_over_its_own_conditions() -> None:
    net = network()
    accelerator = Accelerator(Speed("torch"))
    x, t = torch.randn(1, LENGTHS.latent, 20), torch.tensor(0.5)
    empty = net.conditions(Features(), LENGTHS)
    for seed in (1, 3, 1):
        own = given(seed, dtype=torch.float32)
        conditions = net.conditions(Features(own.clip[:1], own.sync[:1], own.text[:1]), LENGTHS)
        fast = accelerator.velocity(net, conditions, empty, 4.5, 1, [0.5])
        assert error(fast(x, t), guided(net.velocity, conditions, empty, 4.5)(x, t)) < 1e-5
    assert len(net.fast_cache._runs) == 1


@torch.no_grad()
@pytest.mark.parametrize("solver", ["euler", "midpoint", "dopri5"])
def test_same_latents(solver: Any) -> None:
    net = network()
    settings = SampleSettings(steps=5, solver=solver, batch_size=2)
    # Against float32's own rounding an adaptive step has nothing to hold on to; a short way keeps it quick.
    known = Known(torch.randn(1, LENGTHS.latent, 20), torch.ones(1, LENGTHS.latent, 1) * 0.5, denoise=0.5)
    runs = [
        sample_latents(
            net, features(), 2.0, [1, 2, 3][: 1 if solver == "dopri5" else 3], None, settings, None,
            known, Accelerator(Speed(kernels)),
        ).tokens
        for kernels in ("plain", "torch")
    ]  # fmt: skip
    assert error(runs[1], runs[0]) < 1e-5


def test_refusals_and_choices_are_said(caplog: Any) -> None:
    net = network()
    with pytest.raises(InputError, match="unknown; use one of auto, plain"):
        Speed("cutlass")
    mixed = network()
    mixed.fused_blocks[0].linear1.half()
    with pytest.raises(InputError, match=r"cannot be used: .*float16"):
        Accelerator(Speed("torch")).reason_for_plain(mixed)
    with pytest.raises(InputError, match="cannot run here"):
        Accelerator(Speed("cuda")).velocity(net, net.conditions(features(), LENGTHS), None, 1.0, 1)
    with pytest.raises(InputError, match="Winograd tile of 3"):
        Speed(tile=3)  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO, "mmaudio"):
        half = network().to(torch.bfloat16)
        assert Accelerator().reason_for_plain(half) == "on a CPU the fast path computes in float32"
        accelerator = Accelerator()
        for _ in range(2):
            accelerator.velocity(half, half.conditions(features(), LENGTHS), None, 1.0, 1)
    assert sum("plain path" in r.message for r in caplog.records) == 1


class _Tape:
    """Stands for a CUDA graph: runs the function again at ``replay``, into the same output."""

    def __init__(self, function: Any) -> None:
        self.function, self.output = function, torch.full((3,), float("nan"))
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        self.output.copy_(self.function())


def test_graphs_begin_at_the_third_call_and_results_stay() -> None:
    tapes: list[_Tape] = []

    def capture(function: Any) -> Any:
        tapes.append(_Tape(function))
        return tapes[-1], tapes[-1].output

    run = Graphed(lambda a, b: a + 2 * b, capture)
    results = [run(torch.full((3,), float(i)), torch.ones(3)) for i in range(5)]
    assert [r[0].item() for r in results] == [2, 3, 4, 5, 6]
    assert len(tapes) == 1
    assert tapes[0].replays == 3
    run(torch.ones(2), torch.ones(2))  # another shape begins anew, without a capture
    assert len(tapes) == 1


def test_graphs_of_few_shapes_are_kept() -> None:
    tapes: list[weakref.ref[_Tape]] = []

    def capture(function: Any) -> Any:
        gc.collect()
        assert sum(ref() is not None for ref in tapes) < KEPT, "the old one goes before its successor is made"
        tape = _Tape(function)
        tapes.append(weakref.ref(tape))
        return tape, tape.output

    run = Graphed(lambda a: a.sum().expand(3), capture)

    def call(shape: int) -> None:
        assert run(torch.full((shape,), 2.0))[0].item() == 2 * shape

    for shape in range(1, KEPT + 1):
        for _ in range(3):
            call(shape)
    assert len(tapes) == KEPT
    call(1)  # so that 2 is the one not used for longest
    for _ in range(3):
        call(KEPT + 1)
    gc.collect()
    assert [ref() is not None for ref in tapes] == [True, False, *[True] * (KEPT - 1)]
    for _ in range(2):
        call(2)
    assert len(tapes) == KEPT + 1, "what begins anew runs as it is first"
    call(2)
    assert len(tapes) == KEPT + 2


def test_a_capture_that_fails_is_said_once_and_calls_go_on(caplog: Any) -> None:
    def capture(function: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    run = Graphed(lambda a: a + 1, capture)
    with caplog.at_level(logging.INFO, "mmaudio"):
        assert [run(torch.full((1,), float(i))).item() for i in range(5)] == [1, 2, 3, 4, 5]
    assert [r.message for r in caplog.records] == [
        "This step could not be captured as a CUDA graph (operation not permitted when stream is capturing); it runs without."
    ]
