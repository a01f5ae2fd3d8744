from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, weight_norm

from mmaudio_core.errors import WeightsError
from mmaudio_core.weights.keymaps import full_synchformer, normal_shapes, normalise

from .support import manifest, meta, tiny


@pytest.mark.parametrize("layer", [nn.Conv1d(3, 5, 7), nn.ConvTranspose1d(6, 4, 8, 4), nn.Conv1d(4, 1, 3, bias=False)])
@pytest.mark.parametrize("apply", [weight_norm, parametrizations.weight_norm])
@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
def test_weight_norm_folds_to_what_torch_computes(layer, apply):
    # The reference is torch's own module, in both of its spellings; a transposed convolution's first dimension is its input.
    layer = apply(copy.deepcopy(layer))
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.endswith(("weight_g", "original0")):
                parameter.mul_(torch.rand_like(parameter) + 0.5)
    folded = normalise({f"conv_pre.{name}": tensor for name, tensor in layer.state_dict().items()}, "vocoder")
    assert set(folded) == {"conv_pre.weight"} | ({"conv_pre.bias"} if layer.bias is not None else set())
    layer(torch.zeros(1, layer.in_channels, 16))  # the older spelling computes its weight in a hook before forward
    torch.testing.assert_close(folded["conv_pre.weight"], layer.weight.detach(), rtol=1e-6, atol=1e-7)


def test_weight_norm_is_computed_in_float32():
    v = torch.randn(8, 300, 11).half() * 2000  # their norm, about 115,000, overflows float16
    g = torch.rand(8, 1, 1).half()
    folded = normalise({"x.weight_g": g, "x.weight_v": v}, "vocoder")["x.weight"]
    expected = (g.double() * v.double() / v.double().flatten(1).norm(dim=1).reshape(8, 1, 1)).half()
    assert folded.dtype == torch.float16
    torch.testing.assert_close(folded, expected, rtol=1e-3, atol=1e-6)
    assert folded.count_nonzero() > 0


def test_damaged_weight_norm_is_named():
    with pytest.raises(WeightsError, match=r"ups\.0\.0 lacks its magnitude"):
        normalise({"ups.0.0.weight_v": torch.ones(2, 2, 2)}, "vocoder")
    with pytest.raises(WeightsError, match=r"ups\.0\.0 lacks its direction"):
        normalise({"ups.0.0.parametrizations.weight.original0": torch.ones(2, 1, 1)}, "vocoder")
    pair = {"c.weight_g": torch.ones(2, 1, 1), "c.weight_v": torch.ones(2, 2, 2)}
    with pytest.raises(WeightsError, match="c is in the file twice, folded and weight-normed"):
        normalise({**pair, "c.weight": torch.ones(2, 2, 2)}, "vocoder")
    with pytest.raises(WeightsError, match="c is in the file twice, in two spellings"):
        normalise({**pair, "c.parametrizations.weight.original0": torch.ones(2, 1, 1)}, "vocoder")
    with pytest.raises(WeightsError, match="3 magnitudes for 2 channels"):
        normalise({**pair, "c.weight_g": torch.ones(3, 1, 1)}, "vocoder")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.module.", "model.diffusion_model."])
@pytest.mark.parametrize("kind", ["flow", "vae", "vocoder", "synchformer", "clip"])
def test_prefixes_that_all_names_share(prefix, kind):
    assert set(normalise({prefix + name: tensor for name, tensor in tiny(kind).items()}, kind)) == set(tiny(kind))


def test_clip_prefix_and_unused_entries():
    state = {f"clip_model.{name}": tensor for name, tensor in tiny("clip").items()}
    for extra in (torch.ones(()), torch.ones(1)):
        more = {"clip_model.logit_scale": extra, "clip_model.logit_bias": extra, "clip_model.attn_mask": torch.ones(77, 77)}
        assert set(normalise({**state, **more}, "clip")) == set(tiny("clip"))


def test_derived_entries_are_left_out():
    derived = {"t_embed.freqs": torch.ones(128), "latent_rot": torch.ones(1, 345), "clip_rot": torch.ones(1, 64)}
    assert set(normalise({**tiny("flow"), **derived}, "flow")) == set(tiny("flow"))
    filters = {
        "activation_post.upsample.filter": torch.ones(1, 1, 12),
        "resblocks.0.activations.0.downsample.lowpass.filter": torch.ones(1, 1, 12),
    }
    assert set(normalise({**tiny("vocoder"), **filters}, "vocoder")) == set(tiny("vocoder"))


def test_an_unknown_entry_is_kept_for_the_loader_to_name():
    assert "surprise" in normalise({**tiny("flow"), "surprise": torch.ones(1)}, "flow")


@pytest.mark.parametrize("ddp", ["", "module.", "inner"])
def test_synchformer_visual_tower(ddp):
    full = manifest("synchformer_full")
    visual = {name.removeprefix("vfeat_extractor.") for name in manifest("synchformer_visual")}
    expected = visual - {"patch_embed.proj.weight", "patch_embed.proj.bias"}
    names = {name.replace("vfeat_extractor.", "vfeat_extractor.module.") if ddp == "inner" else ddp + name for name in full}
    shapes = normal_shapes(dict.fromkeys(names, (1,)), "synchformer")
    assert set(shapes) == expected
    alone = normal_shapes(dict.fromkeys(visual, (1,)), "synchformer")
    assert set(alone) == expected


@pytest.mark.parametrize("prefix", ["", "module."])
def test_all_of_synchformer(prefix):
    full = manifest("synchformer_full")
    tensors = full_synchformer({prefix + name: tensor for name, tensor in meta(full).items()})
    assert set(tensors) == {name for name in full if not name.startswith("vfeat_extractor.patch_embed.proj.")}
    with pytest.raises(WeightsError, match="has no audio tower"):
        full_synchformer(meta(manifest("synchformer_visual")))


def test_nothing_is_copied():
    state = tiny("flow")
    assert all(normalise(state, "flow")[name].data_ptr() == tensor.data_ptr() for name, tensor in state.items())
