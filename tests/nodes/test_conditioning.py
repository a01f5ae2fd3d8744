"""CONDITIONING: what the prompt node writes, and what the model makes of what is missing."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from .host import TINY, Host
from .made_up import pictures

PRESENT = list(itertools.product((False, True), repeat=3))
"""Clip, sync and text: each there or missing."""


@pytest.fixture
def encoders(host: Host) -> Any:
    return host.run("LoadEncoders", clip_file=TINY, synchformer_file=TINY)[0]


@pytest.fixture
def net(host: Host) -> Any:
    return host.of("nodes.host.native_model").flow_of(host.run("LoadModel", model_file=TINY)[0])


def given_features(host: Host, clip: bool, sync: bool, text: bool, duration_s: float | None = 2.0) -> Any:
    made = torch.Generator().manual_seed(0)
    return host.of("mmaudio_core.types").Features(
        clip=torch.randn(1, 16, 64, generator=made) if clip else None,
        sync=torch.randn(1, 56, 128, generator=made) if sync else None,
        text=torch.randn(1, 77, 64, generator=made) if text else None,
        duration_s=duration_s,
    )


@pytest.mark.parametrize("present", PRESENT, ids=str)
def test_packing_and_unpacking(host: Host, present: tuple[bool, bool, bool]) -> None:
    conditioning, features = host.of("nodes.host.conditioning"), given_features(host, *present)
    packed = conditioning.pack(features, 77, 64)
    assert packed[0][0].shape == (1, 77, 64)
    back = conditioning.unpack(packed, "positive")
    assert back.duration_s == 2.0
    for name in ("clip", "sync", "text"):
        before, after = getattr(features, name), getattr(back, name)
        assert (before is None) == (after is None)
        assert before is None or torch.equal(before, after)


@pytest.mark.parametrize("present", PRESENT, ids=str)
def test_the_model_fills_in_its_own_empty_features(host: Host, net: Any, present: tuple[bool, bool, bool]) -> None:
    """The same as the core does with the same features missing."""
    conditioning, features = host.of("nodes.host.conditioning"), given_features(host, *present)
    [[text, values]] = conditioning.pack(features, 77, 64)
    lengths = net.lengths(2.0)
    filled = conditioning.complete(net, text, values, lengths.latent)
    rows = filled[conditioning.CLIP], filled[conditioning.SYNC], filled["text"]
    ours = net.project(*rows, lengths.latent, sync_timing=filled[conditioning.SYNC_TIMING])
    wanted = net.conditions(features, lengths, 1)
    for name in ("clip", "clip_pooled", "sync", "text", "text_pooled"):
        assert torch.equal(getattr(ours, name), getattr(wanted, name)), name


def test_the_timing_reaches_the_network(host: Host, net: Any) -> None:
    """The embedded model's own is "steady", for which 2 s need 56 tokens; more of them are left out for "stretched"."""
    conditioning, Features = host.of("nodes.host.conditioning"), host.of("mmaudio_core.types").Features
    clip, sync = torch.randn(1, 16, 64), torch.randn(1, 56, 128)
    made = {}
    for timing, wanted, tokens in ((None, "steady", 56), ("steady", "steady", 56), ("stretched", "stretched", 40)):
        [[text, values]] = conditioning.pack(Features(clip, sync, duration_s=2.0, sync_timing=timing), 77, 64)
        assert conditioning.unpack([[text, values]], "positive").sync_timing == timing
        filled = conditioning.complete(net, text, values, 63)
        assert filled[conditioning.SYNC_TIMING] == wanted
        assert torch.equal(filled[conditioning.SYNC], sync[:, :tokens])
        made[timing] = net(
            torch.randn(1, 20, 63, generator=torch.Generator().manual_seed(1)),
            torch.tensor([0.3]),
            filled["text"],
            **{name: filled[name] for name in (conditioning.CLIP, conditioning.SYNC, conditioning.SYNC_TIMING)},
        )
    assert torch.equal(made[None], made["steady"])
    assert not torch.allclose(made["steady"], made["stretched"], atol=1e-3)


def test_the_prompt_node(host: Host, encoders: Any) -> None:
    features = host.run("ExtractFeatures", encoders=encoders, images=pictures(50), fps=25.0)[0]
    unpack = host.of("nodes.host.conditioning").unpack
    positive, negative = (
        unpack(c, "")
        for c in host.run("EncodePrompt", encoders=encoders, prompt=" rain \n", negative_prompt="music", features=features).args
    )
    assert torch.equal(positive.clip, features.clip)
    assert torch.equal(positive.sync, features.sync)
    assert (negative.clip, negative.sync) == (None, None)
    assert positive.duration_s == negative.duration_s == 2.0
    assert torch.allclose(positive.text, encoders.encode_text(["rain"]), atol=1e-3)
    assert torch.allclose(negative.text, encoders.encode_text(["music"]), atol=1e-3)


def test_empty_prompts_are_no_text(host: Host, encoders: Any) -> None:
    unpack = host.of("nodes.host.conditioning").unpack
    for prompt in ("", "   ", "\n"):
        for side in host.run("EncodePrompt", encoders=encoders, prompt=prompt, negative_prompt=prompt).args:
            assert unpack(side, "") == host.of("mmaudio_core.types").Features()
    assert encoders.loaded() == ()


def test_one_text_for_both_sides_is_encoded_once(host: Host, encoders: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    encode = type(encoders).encode_text
    monkeypatch.setattr(
        type(encoders), "encode_text", lambda self, prompts, *rest: asked.append(prompts) or encode(self, prompts, *rest)
    )
    host.run("EncodePrompt", encoders=encoders, prompt="rain", negative_prompt="rain ")
    assert asked == [["rain"]]


@pytest.mark.parametrize("audio", ["AUDIO_16K", "AUDIO_44K"])
def test_a_duration_in_tenths_is_told_from_its_tokens(host: Host, audio: str) -> None:
    spec = getattr(host.of("mmaudio_core.spec.audio"), audio)
    lengths, duration_of = host.of("mmaudio_core.spec.timing").sequence_lengths, host.of("nodes.host.conditioning").duration_of
    for tenths in range(7, 401):
        assert duration_of(lengths(tenths / 10, spec).latent, spec) == tenths / 10


@pytest.mark.parametrize("audio", ["AUDIO_16K", "AUDIO_44K"])
def test_every_number_of_tokens_stands_for_a_duration_that_needs_it(host: Host, audio: str) -> None:
    spec = getattr(host.of("mmaudio_core.spec.audio"), audio)
    lengths, duration_of = host.of("mmaudio_core.spec.timing").sequence_lengths, host.of("nodes.host.conditioning").duration_of
    for tokens in range(lengths(0.7, spec).latent, 2000):
        assert lengths(duration_of(tokens, spec), spec).latent == tokens


def test_a_still_picture_is_repeated(host: Host, net: Any) -> None:
    conditioning = host.of("nodes.host.conditioning")
    features = host.of("mmaudio_core.types").Features(clip=torch.randn(1, 1, 64))
    [[text, values]] = conditioning.pack(features, 77, 64)
    filled = conditioning.complete(net, text, values, 63)
    assert torch.equal(filled[conditioning.CLIP], features.clip.expand(1, 16, 64))


def test_features_of_another_duration(host: Host, net: Any) -> None:
    conditioning = host.of("nodes.host.conditioning")
    [[text, values]] = conditioning.pack(given_features(host, True, True, True), 77, 64)
    error = host.of("mmaudio_core.errors").InputError
    with pytest.raises(error, match=r"cover 2 s, which needs a latent of 63 tokens, and the latent has 94 \(3 s\); connect"):
        conditioning.complete(net, text, values, 94)


def test_conditioning_of_other_nodes(host: Host, net: Any) -> None:
    conditioning, error = host.of("nodes.host.conditioning"), host.of("mmaudio_core.errors").InputError
    for wrong in ([], [[torch.zeros(1, 77, 768), {"pooled_output": None}]]):
        with pytest.raises(error, match="connect the positive and negative outputs of 'MMAudio: Encode Prompt'"):
            conditioning.unpack(wrong, "positive")
    one = conditioning.pack(given_features(host, False, False, True), 77, 64)
    with pytest.raises(error, match="positive conditioning combines 2 prompts"):
        conditioning.unpack(one + one, "positive")
    with pytest.raises(error, match=r"features of shape \(1, 77, 768\)"):
        conditioning.complete(net, torch.zeros(1, 77, 768), {}, 63)
