"""The paper's ablations as switches of the flow network: what each one changes, and that the fast path follows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmaudio_core.errors import SpecError, WeightsError
from mmaudio_core.pipeline.accelerate import Accelerator, Speed
from mmaudio_core.sampling.guidance import guided
from mmaudio_core.spec.model import ABLATIONS, VARIANTS, FlowSpec
from mmaudio_core.transformer.model import rotations
from mmaudio_core.types import Features
from mmaudio_core.weights.build import load_part
from mmaudio_core.weights.detect import detect
from mmaudio_core.weights.metadata import encode_part
from mmaudio_core.weights.safetensors_file import write_safetensors

from .test_fast_flow import error, given
from .test_flow_network import LENGTHS, SPEC, network

CHANGES: list[dict[str, Any]] = [{key: value} for key, values in ABLATIONS.items() for value in values[1:]]
X = torch.randn(1, LENGTHS.latent, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
T = torch.tensor(0.4)


@torch.no_grad()
def velocity(spec: FlowSpec, given_: Features) -> torch.Tensor:
    net = network(spec).double()
    return net.velocity(X, T, net.conditions(given_, LENGTHS))


@torch.no_grad()
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_the_fast_path_computes_the_same(change: dict[str, Any]) -> None:
    net = network(replace(SPEC, **change)).double()
    conditions, empty = net.conditions(given(1), LENGTHS), net.conditions(Features(), LENGTHS)
    fast = Accelerator(Speed("torch")).velocity(net, conditions, empty, 4.5, 1, (0.4,))
    assert error(fast(X, T), guided(net.velocity, conditions, empty, 4.5)(X, T)) < 1e-12


@pytest.mark.parametrize("change", [{"sync": "visual"}, {"sync": "none"}, {"rope": "plain"}, {"rope": "none"}], ids=str)
def test_each_choice_changes_the_velocity(change: dict[str, Any]) -> None:
    assert error(velocity(replace(SPEC, **change), given(1)), velocity(SPEC, given(1))) > 1e-3


def test_without_sync_its_features_change_nothing() -> None:
    spec, both = replace(SPEC, sync="none"), given(1)
    assert torch.equal(velocity(spec, both), velocity(spec, replace(both, sync=None)))
    assert not torch.equal(velocity(SPEC, both), velocity(SPEC, replace(both, sync=None)))


@torch.no_grad()
def test_sync_in_the_visual_stream_gives_it_its_rate_and_leaves_the_frames() -> None:
    net = network(replace(SPEC, sync="visual"))
    conditions = net.conditions(given(1, dtype=torch.float32), LENGTHS)
    assert conditions.clip.shape[1] == LENGTHS.sync != LENGTHS.clip
    assert not conditions.sync_rows.any()
    alone = net.conditions(replace(given(1, dtype=torch.float32), sync=None), LENGTHS)
    assert not torch.equal(alone.clip, conditions.clip)


def test_positions() -> None:
    aligned, plain, none = (rotations(250, 64, rope=rope) for rope in ABLATIONS["rope"])
    torch.testing.assert_close(aligned.visual[32], aligned.audio[125])  # the same instant
    assert torch.equal(plain.visual, plain.audio[:64])
    assert torch.equal(plain.audio, aligned.audio)
    for table in none:
        assert torch.equal(table, torch.tensor([1.0, 0.0]).expand_as(table))


@torch.no_grad()
def test_linear_blocks_look_at_no_neighbours() -> None:
    """Without positions and convolutions in the blocks, what two far tokens share is attention alone; kernels are 1."""
    net = network(replace(SPEC, mlp="linear"))
    block: Any = net.fused_blocks[0]
    assert block.linear1.weight.shape[-1] == block.ffn.w1.weight.shape[-1] == 1
    joint: Any = net.joint_blocks[0]
    assert joint.clip_block.ffn.w2.weight.shape[-1] == 1
    x = torch.randn(1, 9, SPEC.width)
    moved = x.clone()
    moved[:, 4] += 1
    changed = (block.ffn(moved) - block.ffn(x)).abs().amax(-1)[0] > 1e-6
    assert changed.nonzero().flatten().tolist() == [4]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_files_say_what_they_are(change: dict[str, Any], tmp_path: Path) -> None:
    spec = replace(SPEC, **change)
    net, path = network(spec), tmp_path / "net.safetensors"
    write_safetensors(path, net.state_dict(), encode_part(spec))
    module, found = load_part(path, "flow")
    assert found == spec
    assert next(iter(change.values())) in spec.variant
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), module.parameters(), strict=True))


def test_published_files_say_nothing_of_it() -> None:
    assert all(not set(ABLATIONS) & set(spec.to_dict()) for spec in VARIANTS.values())
    assert FlowSpec.from_dict(SPEC.to_dict()) == SPEC


def test_shapes_and_words_must_agree() -> None:
    linear = network(replace(SPEC, mlp="linear")).state_dict()
    assert detect(linear).spec == replace(SPEC, mlp="linear")  # without metadata, from the shapes
    with pytest.raises(WeightsError, match=r"mlp = conv, but its tensors say linear"):
        detect(linear, encode_part(SPEC))


def test_an_unknown_choice_is_named() -> None:
    with pytest.raises(SpecError, match="rope = 'bent'; use aligned or plain or none"):
        replace(SPEC, rope="bent")  # type: ignore[arg-type]
