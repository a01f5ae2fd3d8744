"""What the host computes attention with, as a wish for our backends."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest
import torch

from .host import Host


def named(name: str) -> Any:
    def function(*_: Any, **__: Any) -> None:
        raise AssertionError("called")

    function.__name__ = name
    return function


@pytest.mark.parametrize(
    ("name", "wish"),
    [
        ("attention_sage", "sage"),
        ("attention_flash", "flash2"),
        ("attention_xformers", "xformers"),
        ("attention_pytorch", "auto"),
        ("attention_split", "auto"),
        ("attention_sub_quad", "auto"),
        ("attention_basic", "auto"),
    ],
)
def test_the_hosts_choice_is_our_wish(
    name: str, wish: str, host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(host.fake("comfy.ldm.modules.attention"), "optimized_attention", named(name))
    with caplog.at_level(logging.INFO, "mmaudio"):
        assert host.of("nodes.host.attention").host_wish() == wish
    assert not caplog.records


def test_a_choice_that_we_have_not_is_left_to_us_and_said(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(host.fake("comfy.ldm.modules.attention"), "optimized_attention", named("attention_comfy_kitchen_int8"))
    with caplog.at_level(logging.INFO, "mmaudio"):
        assert host.of("nodes.host.attention").host_wish() == "auto"
    assert "attention_comfy_kitchen_int8, which this pack has not" in caplog.text


def test_every_wish_is_a_backend(host: Host) -> None:
    known = {b.name for b in host.of("mmaudio_core.attention.listing").BACKENDS}
    assert set(host.of("nodes.host.attention")._OURS.values()) <= known


def test_a_wish_that_cannot_run_falls_back(
    host: Host, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(host.fake("comfy.ldm.modules.attention"), "optimized_attention", named("attention_sage"))
    ours = host.of("nodes.host.attention")
    chooser = host.of("mmaudio_core.attention.choose").Chooser(ours.host_backends())
    wish, place = ours.host_wish(), (torch.device("cpu"), torch.float32, 64, (1, 2, 3, 3))
    assert chooser.choose(wish, *place, fall_back=True).name == "sdpa"
    assert "sage cannot run here: it needs a CUDA device" in caplog.text


def test_what_the_hosts_user_forbade_is_no_candidate(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = host.of("nodes.host.attention")
    everything = host.of("mmaudio_core.attention.listing").BACKENDS
    assert ours.host_backends() == everything
    monkeypatch.setattr(host.fake("comfy.cli_args").args, "disable_xformers", True)
    assert [b.name for b in ours.host_backends()] == [b.name for b in everything if b.name != "xformers"]
    monkeypatch.setitem(sys.modules, "comfy.cli_args", None)
    assert ours.host_backends() == everything


def test_attention_that_a_node_set_on_the_model_is_used(host: Host) -> None:
    ours = host.of("nodes.host.attention")
    assert ours.model_attention(None) is None
    assert ours.model_attention({"sigmas": 1}) is None
    given = []

    def override(function: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, **options: Any) -> torch.Tensor:
        given.append((heads, options["skip_reshape"]))
        return 2 * function(q, k, v, heads, **options)

    q, k, v = torch.randn(2, 3, 5, 8), torch.randn(2, 3, 7, 8), torch.randn(2, 3, 7, 8)
    out = ours.model_attention({"optimized_attention_override": override})(q, k, v)
    assert given == [(3, True)]
    weights = (q.double() @ k.double().mT / 8**0.5).softmax(-1)
    expected = (2 * weights @ v.double()).transpose(1, 2).flatten(2)
    torch.testing.assert_close(out.double(), expected, rtol=1e-4, atol=1e-5)
