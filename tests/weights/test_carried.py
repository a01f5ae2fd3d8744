"""A network saved by a program that knows nothing of our metadata keeps it among its tensors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mmaudio_core.errors import WeightsError
from mmaudio_core.weights.build import load_part
from mmaudio_core.weights.carried import carried
from mmaudio_core.weights.inspect import describe
from mmaudio_core.weights.locate import look_at
from mmaudio_core.weights.metadata import KEY, encode_part
from mmaudio_core.weights.parts import open_raw_part

from .support import TINY, tiny

OWN = replace(TINY["flow"], sync_timing="steady")  # type: ignore[type-var]


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_what_shapes_cannot_say_comes_from_the_tensor(prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "saved.safetensors"
    tensors = {**tiny("flow"), **carried(encode_part(OWN, licence="A licence in Ünicode"))}
    save_file({f"{prefix}{name}": value for name, value in tensors.items()}, path)
    module, spec = load_part(path, "flow")
    assert spec == OWN
    assert set(module.state_dict()) == set(tiny("flow"))
    raw = open_raw_part(path)
    (found,) = look_at(path)
    assert (found.spec, found.variant) == (OWN, raw.detected.variant)
    assert (raw.detected.spec, raw.values["licence"]) == (OWN, "A licence in Ünicode")
    assert "A licence in Ünicode" in describe(path)


def test_the_files_own_metadata_come_first(tmp_path: Path) -> None:
    path = tmp_path / "saved.safetensors"
    save_file({**tiny("flow"), **carried(encode_part(OWN))}, path, metadata=encode_part(TINY["flow"]))
    assert open_raw_part(path).detected.spec == TINY["flow"]


@pytest.mark.parametrize("value", [torch.ones(3), torch.tensor([200, 200], dtype=torch.uint8)], ids=["floats", "no text"])
def test_a_tensor_that_is_no_text(value: torch.Tensor, tmp_path: Path) -> None:
    path = tmp_path / "saved.safetensors"
    save_file({**tiny("flow"), KEY: value}, path)
    with pytest.raises(WeightsError, match=r"saved\.safetensors has damaged metadata under 'mmaudio_graph'"):
        open_raw_part(path)
