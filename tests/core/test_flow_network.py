"""Properties of the flow network that no golden states."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from mmaudio_core.errors import InputError
from mmaudio_core.layers.rope import rope_table, rotate
from mmaudio_core.pipeline.sample import SampleSettings, sample_latents
from mmaudio_core.sampling.noise import draw_noise
from mmaudio_core.spec.audio import AUDIO_16K, AUDIO_44K
from mmaudio_core.spec.model import FlowSpec
from mmaudio_core.spec.timing import sequence_lengths
from mmaudio_core.transformer.conditions import upsampling_index
from mmaudio_core.transformer.model import FlowNetwork
from mmaudio_core.types import Features

from .precision import needs

SPEC = FlowSpec(20, 128, 2, joint_blocks=2, audio_blocks=1, clip_dim=48, sync_dim=24, text_dim=32)
LENGTHS = sequence_lengths(2.0, AUDIO_16K)


def network(spec: FlowSpec = SPEC) -> FlowNetwork:
    """Random weights without the zero initialisations that would hide a wrong path."""
    torch.manual_seed(0)
    net = FlowNetwork(spec).eval().requires_grad_(False)
    for p in net.parameters():
        p.normal_(0, 0.5 / max(1, p[0].numel()) ** 0.5) if p.ndim > 1 else p.add_(0.1 * torch.randn_like(p))
    return net


def features(batch: int = 1) -> Features:
    g = torch.Generator().manual_seed(1)
    return Features(
        torch.randn(batch, LENGTHS.clip, SPEC.clip_dim, generator=g),
        torch.randn(batch, LENGTHS.sync, SPEC.sync_dim, generator=g),
        torch.randn(batch, SPEC.text_tokens, SPEC.text_dim, generator=g),
    )


def test_r1_follows_float32_and_not_exact_arithmetic() -> None:
    index = upsampling_index(192, 345)
    assert (index[57], index[172]) == (31, 95)  # exact arithmetic says 32 and 96
    exact = torch.tensor([(2 * i + 1) * 192 // (2 * 345) for i in range(345)])
    assert (index != exact).nonzero().flatten().tolist() == [57, 172]


@pytest.mark.parametrize("audio", [AUDIO_16K, AUDIO_44K], ids=lambda a: a.name)
def test_upsampling_index_is_torchs_own(audio) -> None:
    for duration_s in (0.64, 1, 3.2, 4.96, 8, 10, 29.97):
        lengths = sequence_lengths(duration_s, audio)
        rows = torch.randn(1, 3, lengths.sync)
        expected = F.interpolate(rows, size=lengths.latent, mode="nearest-exact")
        assert torch.equal(rows[..., upsampling_index(lengths.sync, lengths.latent)], expected)


def test_aligned_rope_turns_a_frame_as_far_as_the_audio_of_its_instant() -> None:
    audio, visual = rope_table(250, 64), rope_table(50, 64, 250 / 50)
    assert torch.allclose(visual[7], audio[35], atol=1e-4)


def test_rotation_keeps_lengths_and_depends_on_distance_only() -> None:
    table = rope_table(12, 64)
    q, k = (torch.randn(1, 1, 1, 64).expand(1, 1, 12, 64) for _ in range(2))
    scores = rotate(q, table) @ rotate(k, table).transpose(-1, -2)
    assert torch.allclose(rotate(q, table).norm(dim=-1), q.norm(dim=-1), atol=1e-5)
    assert torch.allclose(scores[0, 0, 3, 1], scores[0, 0, 9, 7], atol=1e-4)


def test_each_input_is_optional_and_matters() -> None:
    net, given = network(), features()
    latent, t = torch.randn(1, LENGTHS.latent, 20), torch.tensor(0.4)
    full = net(latent, t, net.conditions(given, LENGTHS))
    for missing in ("clip", "sync", "text"):
        partial = Features(**{n: getattr(given, n) for n in ("clip", "sync", "text") if n != missing})
        out = net(latent, t, net.conditions(partial, LENGTHS))
        assert (out - full).abs().max() > 1e-3, missing


def test_missing_inputs_are_the_stored_empty_features() -> None:
    net = network()
    empty = Features(
        net.empty_clip_feat.expand(1, LENGTHS.clip, -1),
        net.empty_sync_feat.expand(1, LENGTHS.sync, -1),
        net.empty_string_feat[None],
    )
    missing, given = net.conditions(Features(), LENGTHS, 1), net.conditions(empty, LENGTHS)
    for name in ("clip", "sync", "text", "clip_pooled", "text_pooled"):
        assert torch.equal(getattr(missing, name), getattr(given, name)), name


def test_one_encoding_serves_a_batch() -> None:
    net, given = network(), features()
    latent = draw_noise([3, 4, 5], LENGTHS.latent, 20)
    together = net(latent, torch.tensor(0.3), net.conditions(given, LENGTHS, 3))
    alone = torch.cat([net(x[None], torch.tensor(0.3), net.conditions(given, LENGTHS, 1)) for x in latent])
    assert torch.allclose(together, alone, atol=1e-5)


def test_noise_of_a_seed_is_the_same_alone_and_in_a_batch() -> None:
    assert torch.equal(draw_noise([7], 10, 4)[0], draw_noise([1, 7, 9], 10, 4)[1])
    assert not torch.equal(draw_noise([7], 10, 4), draw_noise([8], 10, 4))


@pytest.mark.parametrize(("name", "shape"), [("clip", (1, 5, 48)), ("sync", (1, 40, 23)), ("text", (2, 76, 32))])
def test_features_of_another_shape_are_named(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=f"The {name} features have shape"):
        network().conditions(Features(**{name: torch.zeros(shape)}), LENGTHS, 1)


def test_dopri5_is_the_limit_of_euler() -> None:
    """On a v1 network: untrained v2 time features, up to 10000 rad/s, would need a hundred thousand evaluations."""
    net = network(FlowSpec(20, 64, 1, joint_blocks=1, audio_blocks=1, clip_dim=48, sync_dim=24, text_dim=32))
    lengths = sequence_lengths(0.64, AUDIO_16K)
    text = Features(text=features().text)

    def sampled(settings: SampleSettings) -> torch.Tensor:
        return sample_latents(net, text, lengths.duration_s, [0], settings=settings).tokens

    exact = sampled(SampleSettings(solver="dopri5"))
    errors = [(sampled(SampleSettings(steps)) - exact).norm().item() for steps in (25, 100)]
    assert errors[1] < errors[0] / 3
    second = [(sampled(SampleSettings(steps, solver="midpoint")) - exact).norm().item() for steps in (12, 50)]
    assert second[0] < errors[0], "better at as many evaluations"
    assert second[1] < second[0] / 10, "of second order"


@pytest.mark.parametrize("v2", [False, True])
@pytest.mark.parametrize(("dtype", "relative"), [(torch.float16, 1e-2), (torch.bfloat16, 6e-2)])
def test_half_precision_stays_near_float32(v2: bool, dtype: torch.dtype, relative: float) -> None:
    """Tolerances of docs/numerics.md: one velocity, relative to its norm."""
    needs(dtype)
    spec = FlowSpec(20, 128, 2, 2, 1, v2=v2, clip_dim=48, sync_dim=24, text_dim=32)
    net, given = network(spec), features()
    latent, t = torch.randn(1, LENGTHS.latent, 20), torch.tensor(0.37)
    exact = net(latent, t, net.conditions(given, LENGTHS))
    half = net.to(dtype)(latent, t, net.conditions(given, LENGTHS))
    assert half.dtype == torch.float32
    assert ((half - exact).norm() / exact.norm()).item() < relative


def test_it_trains() -> None:
    """Every trainable parameter gets a gradient, except the queries of streams that have no output."""
    net = network()
    names = {"latent_mean", "latent_std", "empty_string_feat"}
    for name, p in net.named_parameters():
        p.requires_grad_(name not in names)
    given = features(2)
    mixed = Features(given.clip, None, given.text)
    a = net(torch.randn(2, LENGTHS.latent, 20), torch.tensor([0.2, 0.8]), net.conditions(mixed, LENGTHS, 2))
    b = net(torch.randn(2, LENGTHS.latent, 20), torch.tensor([0.2, 0.8]), net.conditions(Features(sync=given.sync), LENGTHS, 2))
    (a.square().mean() + b.square().mean()).backward()
    silent = [n for n, p in net.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.abs().sum() > 0)]
    assert silent == [f"joint_blocks.{SPEC.joint_blocks - 1}.{s}_block.attn.q_norm.weight" for s in ("clip", "text")]


class _HostLinear(torch.nn.Linear):
    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _HostLinear.calls += 1
        return super().forward(x)


class _HostConv1d(torch.nn.Conv1d):
    calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _HostConv1d.calls += 1
        return super().forward(x)


@pytest.mark.parametrize("v2", [False, True])
def test_layers_of_a_host(v2: bool) -> None:
    """Subclasses of torch's layers: the same names, the same output, and every weight of two dimensions or more is theirs."""
    spec = FlowSpec(20, 128, 2, joint_blocks=2, audio_blocks=1, v2=v2, clip_dim=48, sync_dim=24, text_dim=32)
    plain = network(spec)
    hosted = FlowNetwork(spec, SimpleNamespace(Linear=_HostLinear, Conv1d=_HostConv1d)).eval()
    assert list(hosted.state_dict()) == list(plain.state_dict())
    hosted.load_state_dict(plain.state_dict())
    latent, t, given = torch.randn(1, LENGTHS.latent, 20), torch.tensor(0.4), features()
    _HostLinear.calls = _HostConv1d.calls = 0
    with torch.no_grad():
        out = hosted(latent, t, hosted.conditions(given, LENGTHS))
    assert torch.equal(out, plain(latent, t, plain.conditions(given, LENGTHS)))
    layers = [m for m in hosted.modules() if isinstance(m, (torch.nn.Linear, torch.nn.Conv1d))]
    assert all(isinstance(m, (_HostLinear, _HostConv1d)) for m in layers)
    assert _HostLinear.calls == sum(isinstance(m, _HostLinear) for m in layers)
    assert _HostConv1d.calls == sum(isinstance(m, _HostConv1d) for m in layers)
    held = {f"{name}.weight" for name, m in hosted.named_modules() if isinstance(m, (_HostLinear, _HostConv1d))}
    assert held == {name for name, p in hosted.named_parameters() if p.ndim > 1 and name.endswith("weight")}
