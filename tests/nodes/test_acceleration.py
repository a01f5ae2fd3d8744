"""The pack's sampler takes the core's fast path where the host's weights allow it, and lets go of what it kept on a GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from .host import TINY, Host
from .test_sampling import latent, sampled


@pytest.fixture
def model(host: Host) -> Any:
    return host.run("LoadModel", model_file=TINY)[0]


def test_the_fast_path_is_taken_and_gives_the_same(host: Host, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    net = host.of("nodes.host.native_model").flow_of(model)
    fast = sampled(host, model, latent(host, model))
    assert net.fast_cache.is_filled
    net.fast_cache.clear()
    monkeypatch.setattr(net.fused_blocks[0].ffn.w2, "weight_function", [lambda w: w], raising=False)
    plain = sampled(host, model, latent(host, model))
    assert not net.fast_cache.is_filled, "weights that the host patches at use are not read behind its back"
    assert torch.nn.functional.mse_loss(fast, plain) < 1e-10 * plain.square().mean()


def test_patched_weights_are_seen(host: Host, model: Any) -> None:
    """The host may write into the same memory, and says so by the identity of its patches."""
    first = sampled(host, model, latent(host, model))
    net = host.of("nodes.host.native_model").flow_of(model)
    net.final_layer.conv.weight.data.mul_(2)  # which no version counter sees
    model.model.current_weight_patches_uuid = "another"
    second = sampled(host, model, latent(host, model))
    assert not torch.allclose(first, second)


def test_an_attention_that_a_node_set_on_the_model_is_used(host: Host, model: Any) -> None:
    calls = []

    def override(function: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(args[0].shape)
        return function(*args, **kwargs)

    plain = sampled(host, model, latent(host, model))
    model.model_options = {"transformer_options": {"optimized_attention_override": override}}
    again = sampled(host, model, latent(host, model))
    assert calls
    torch.testing.assert_close(again, plain, rtol=1e-4, atol=1e-5)


def test_device_memory_is_let_go_after_a_run(host: Host) -> None:
    let_go = host.of("nodes.host.acceleration").let_go
    cleared = []
    cache = SimpleNamespace(clear=lambda: cleared.append(1))
    let_go(SimpleNamespace(device=torch.device("cpu"), fast_cache=cache))
    assert not cleared, "main memory is the host's to keep"
    let_go(SimpleNamespace(device=torch.device("cuda", 0), fast_cache=cache))
    assert cleared
