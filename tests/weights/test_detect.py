from __future__ import annotations

import pytest
import torch

from mmaudio_core.errors import WeightsError
from mmaudio_core.spec.model import VAES, VARIANTS, VOCODERS, CLIPSpec, SynchformerSpec
from mmaudio_core.weights.build import build_module, check_names
from mmaudio_core.weights.detect import detect
from mmaudio_core.weights.keymaps import normalise
from mmaudio_core.weights.metadata import encode_part

from .support import TINY, clip_shapes, manifest, meta, spelled, tiny

FLOWS = [(f"mmaudio_{name}", spec) for name, spec in VARIANTS.items()]
OTHERS = [
    ("vae_16k", VAES["16k"]),
    ("vae_44k", VAES["44k"]),
    ("synchformer_visual", SynchformerSpec()),
    ("synchformer_full", SynchformerSpec()),
]


def fits(shapes, spec):
    """The whole path with real names and shapes but no numbers: recognise, normalise, compare with our module."""
    found = detect(shapes)
    assert found.spec == spec
    with torch.device("meta"):
        module = build_module(spec)
    check_names(module.state_dict(), normalise(meta(shapes), found.kind), "It")
    return found


@pytest.mark.parametrize(("name", "spec"), FLOWS + OTHERS, ids=lambda value: value if isinstance(value, str) else "")
def test_published_parts(name, spec):
    found = fits(manifest(name), spec)
    assert found.kind == spec.kind
    assert name.endswith(found.variant) or found.variant == "published"


@pytest.mark.parametrize("spelling", ["weight_norm", "parametrized", "folded"])
@pytest.mark.parametrize(("name", "audio"), [("bigvgan_16k", "16k"), ("bigvgan_v2_44k", "44k")])
def test_vocoders_in_three_spellings(name, audio, spelling):
    found = fits(spelled(manifest(name), spelling), VOCODERS[audio])
    assert found.variant == audio
    assert found.phrase == f"a BigVGAN vocoder ({'16' if audio == '16k' else '44.1'} kHz)"


def test_published_clip():
    found = fits(clip_shapes(), CLIPSpec())
    assert (found.variant, found.audio, found.phrase) == ("published", None, "a CLIP model")
    assert fits(clip_shapes() | {"logit_scale": (1,)}, CLIPSpec()).spec == CLIPSpec()


def test_medium_and_large_have_the_same_width():
    medium, large = manifest("mmaudio_medium_44k"), manifest("mmaudio_large_44k")
    assert medium["audio_input_proj.0.bias"] == large["audio_input_proj.0.bias"]
    assert detect(medium).variant == "medium_44k"
    assert detect(large).variant == "large_44k"
    assert detect(manifest("mmaudio_large_44k_v2")).variant == "large_44k_v2"


def test_derived_entries_do_not_change_the_answer():
    shapes = manifest("mmaudio_small_16k") | {"t_embed.freqs": (128,), "latent_rot": (1, 250, 32), "clip_rot": (1, 64, 32)}
    assert detect(shapes).variant == "small_16k"


@pytest.mark.parametrize("kind", TINY)
def test_own_metadata_say_what_shapes_cannot(kind):
    spec = TINY[kind]
    assert detect(tiny(kind), encode_part(spec)).spec == spec
    if kind == "clip":  # without it the published model's habits are assumed
        assert detect(tiny(kind)).spec != spec


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("flow", {"width": 192, "heads": 3}),
        ("vae", {"width": 32}),
        ("vocoder", {"mel_bins": 80}),
        ("clip", {"text_layers": 3}),
        ("synchformer", {"blocks": 3}),
    ],
)
def test_metadata_that_contradict_the_tensors(kind, change):
    lie = type(TINY[kind]).from_dict({**TINY[kind].to_dict(), **change})
    field, value = next(iter(change.items()))
    with pytest.raises(WeightsError, match=rf"F is damaged: its metadata say {field} = {value}, but its tensors say"):
        detect(tiny(kind), encode_part(lie), "F")


def test_metadata_of_another_kind():
    with pytest.raises(WeightsError, match="says that it holds the part 'vae', but its tensors are a flow network"):
        detect(tiny("flow"), encode_part(TINY["vae"]))


def test_a_flow_network_of_any_size():
    found = detect(tiny("flow"))
    assert found.spec == TINY["flow"]
    assert found.variant == "custom (width 128, 2+3 blocks, v2)"
    assert found.audio is not None
    assert found.audio.name == "44k"


def test_incomplete_and_impossible_parts():
    state = tiny("flow")
    del state["empty_string_feat"]
    with pytest.raises(WeightsError, match="looks like a flow network, but it lacks the tensor empty_string_feat"):
        detect(state)
    odd = {**tiny("flow"), "audio_input_proj.0.bias": torch.ones(130)}
    with pytest.raises(WeightsError, match="is a flow network of impossible sizes: The flow width 130"):
        detect(odd)
    grid = {**tiny("synchformer"), "pos_embed": torch.ones(1, 199, 128)}
    with pytest.raises(WeightsError, match="its pos_embed has 198 patch positions, which is no square"):
        detect(grid)


def test_strangers():
    with pytest.raises(WeightsError, match=r"This file holds 4 tensors \(a, b, c, \.\.\.\) and is not a part of MMAudio\."):
        detect(dict.fromkeys("abcd", (1,)))
    audio_only = {name: shape for name, shape in manifest("synchformer_full").items() if not name.startswith("vfeat")}
    with pytest.raises(WeightsError, match="holds Synchformer without its visual tower"):
        detect(audio_only)
