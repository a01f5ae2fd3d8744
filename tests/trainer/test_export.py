"""From a run's folder to a file that the core loads: every number as it was averaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mmaudio_core.errors import WeightsError
from mmaudio_core.pipeline.files import EMBEDDED_FILE, find_files
from mmaudio_core.pipeline.model import load
from mmaudio_core.pipeline.sample import SampleSettings
from mmaudio_core.spec.model import FlowSpec
from mmaudio_core.transformer.model import FlowNetwork
from mmaudio_core.weights.build import load_part
from mmaudio_core.weights.locate import look_at
from mmaudio_core.weights.lora import match_lora
from mmaudio_core.weights.metadata import KEY, decode
from mmaudio_core.weights.parts import open_part
from mmaudio_core.weights.safetensors_file import read_header
from trainer.cli import main
from trainer.config.folders import without_folders, without_folders_in
from trainer.config.load import parse_toml
from trainer.config.tables import dump_toml
from trainer.ema.power import PowerEMA
from trainer.ema.profiles import shares
from trainer.ema.snapshots import write_snapshots
from trainer.engine import checkpoint
from trainer.lora.inject import add_lora

from .helpers_ranks import ONE

STEPS = 40
TINY = open_part(EMBEDDED_FILE, "flow").detected.spec


class Holder(torch.nn.Module):
    """The network inside another module, as in training."""

    def __init__(self, network: FlowNetwork) -> None:
        super().__init__()
        self.network = network


class Made:
    """A run's folder with snapshots every 2 steps (float16) and a checkpoint at the end, and what it must give."""

    def __init__(self, folder: Path) -> None:
        assert isinstance(TINY, FlowSpec)
        self.folder = folder
        # Sizes of its own, with the embedded model's interfaces, so that the embedded encoders, VAE and vocoder fit.
        # Choices that no shape shows must come through too.
        values = {**TINY.to_dict(), "joint_blocks": 1, "audio_blocks": 1, "sync": "none", "rope": "plain"}
        self.spec = FlowSpec(**values)
        torch.manual_seed(0)
        self.network = FlowNetwork(self.spec)
        with torch.no_grad():
            self.network.latent_std.uniform_(0.5, 1.5)
        self.ema = PowerEMA(dict(self.network.named_parameters()))
        self.history: list[torch.Tensor] = []
        weight = self.network.final_layer.conv.weight
        about = {"dataset": "abc123", "licence": "CC0", "variant": self.spec.variant, "spec": self.spec.to_dict()}
        for step in range(1, STEPS + 1):
            with torch.no_grad():
                weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(step)))
            self.history.append(weight.detach().clone())
            self.ema.update(step)
            if step % 2 == 0:
                write_snapshots(folder / "ema", step, self.ema, ONE, about, torch.float16)
        extra = {"step": STEPS, "about": about}
        checkpoint.save(folder / "checkpoints", STEPS, Holder(self.network), None, self.ema, extra, ONE)
        (folder / "config.toml").write_text("[train]\nsteps = 40\n")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("run"))


def export(*words: object) -> int:
    return main(["export", *map(str, words), "--quiet"])


def about(path: Path) -> dict[str, Any]:
    return decode(read_header(path).metadata)


def test_the_core_loads_what_was_averaged_bit_for_bit(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    assert export(made.folder, "-o", path) == 0
    network, spec = load_part(path, "flow")
    assert spec == made.spec
    expected = made.ema.tensors(0.05)
    state = network.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(state[name], tensor), name
    values = about(path)
    assert (values["kind"], values["step"], values["ema"]) == ("flow", STEPS, 0.05)
    assert (values["dataset"], values["licence"]) == ("abc123", "CC0")
    assert values["config"].startswith("[train]")
    assert values["statistics"]["latent_std"] == made.network.latent_std.flatten().tolist()
    assert values["source_name"] == made.folder.name


def test_a_shared_file_says_nothing_of_its_makers_folders() -> None:
    places = ["/home/me/runs/rain", "/data/a", "C:\\Users\\me\\b", "~/c", "d/e", "https://host/f/g", "", "/"]
    given = {"data": {"train": places, "steps": 3}}
    expected = {"data": {"train": ["rain", "a", "b", "c", "d/e", "https://host/f/g", "", ""], "steps": 3}}
    assert parse_toml(without_folders(dump_toml(given))) == expected
    assert without_folders_in(given) == expected


def test_raw_weights_and_another_licence(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "raw.safetensors"
    assert export(made.folder, "-o", path, "--raw", "--licence", "mine") == 0
    network, _ = load_part(path, "flow")
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, made.network.state_dict()[name]), name
    assert about(path)["ema"] is None
    assert about(path)["licence"] == "mine"


@pytest.mark.parametrize(("width", "step"), [(0.08, STEPS), (0.1, 20), (0.08, 20)])
def test_any_width_and_step_comes_from_the_snapshots(made: Made, tmp_path: Path, width: float, step: int) -> None:
    """Step 20 has no checkpoint, so all of it comes from float16 snapshots."""
    path = tmp_path / "model.safetensors"
    assert export(made.folder, "-o", path, "--ema", width, "--step", step) == 0
    network, _ = load_part(path, "flow")
    expected = sum(share * weight for share, weight in zip(shares(step, width), made.history[:step], strict=True))
    found = network.state_dict()["final_layer.conv.weight"]
    assert (found - expected).norm() < 0.03 * expected.norm()
    assert torch.equal(network.state_dict()["latent_std"], made.network.latent_std)  # not averaged: exact
    assert about(path)["dataset"] == "abc123"


def test_half_precision_keeps_the_statistics(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "half.safetensors"
    assert export(made.folder, "-o", path, "--dtype", "float16") == 0
    part = open_part(path, "flow")
    assert part.tensors["final_layer.conv.weight"].dtype == torch.float16
    assert torch.equal(part.tensors["latent_std"], made.network.latent_std)
    network, _ = load_part(path, "flow")
    assert network.state_dict()["final_layer.conv.weight"].dtype == torch.float16


def test_generating_with_it_beside_the_other_parts(made: Made, tmp_path: Path) -> None:
    """The folder holds the exported network and a file with the embedded encoders, VAE and vocoder."""
    assert export(made.folder, "-o", tmp_path / "mine.safetensors") == 0
    shutil.copy(EMBEDDED_FILE, tmp_path / "parts.safetensors")
    files = find_files(made.spec.variant, [tmp_path])
    assert files.paths["flow"] == tmp_path / "mine.safetensors"
    assert files.paths["vae"] == tmp_path / "parts.safetensors"
    model = load(made.spec.variant, [tmp_path], "cpu")
    sound = model.generate(None, "rain", duration_s=1.0, settings=SampleSettings(steps=2))
    assert sound.variant == made.spec.variant
    assert bool(sound.audio.samples.isfinite().all())


def test_a_family_file_is_all_that_generating_needs(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "family.safetensors"
    assert export(made.folder, "-o", path, "--family", EMBEDDED_FILE) == 0
    assert {item.kind for item in look_at(path)} == {"flow", "vae", "vocoder", "synchformer", "clip"}
    network, _ = load_part(path, "flow")
    assert torch.equal(network.state_dict()["t_embed.mlp.0.weight"], made.ema.tensors(0.05)["t_embed.mlp.0.weight"])
    assert set(find_files(made.spec.variant, [tmp_path]).paths.values()) == {path}
    values = about(path)
    assert values["licences"] == {"flow": "CC0", "vae": "MIT", "vocoder": "MIT", "synchformer": "MIT", "clip": "MIT"}
    assert values["step"] == STEPS
    assert load_part(path, "vae")[1] == load_part(EMBEDDED_FILE, "vae")[1]


def test_what_cannot_be_exported_is_said(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "model.safetensors"
    for words, said in (
        ([tmp_path, "-o", path], "holds no checkpoint and no snapshot"),
        ([made.folder, "-o", path, "--step", 3], "kept nothing of step 3"),
        ([made.folder, "-o", path, "--family", tmp_path], "was not found in"),
        ([made.folder, "-o", tmp_path / "nowhere" / "a.safetensors"], "does not exist"),
    ):
        assert export(*words) == 4
        assert said in capsys.readouterr().err
    assert export(made.folder, "-o", path, "--ema", 0.4) == 2
    assert not path.exists()
    path.write_text("mine")
    assert export(made.folder, "-o", path) == 4
    assert path.read_text() == "mine"


def test_a_lora_run_becomes_a_lora_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = FlowNetwork(FlowSpec(20, 64, 1, 1, 0, clip_dim=8, sync_dim=8, text_dim=8, text_tokens=4))
    shapes = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    trained = add_lora(network, 2, 6.0, ["*.attn.qkv"])
    ema = PowerEMA(dict(network.named_parameters()))
    with torch.no_grad():
        for parameter in trained:
            parameter += 0.5
    ema.update(1)
    said = {"licence": "CC0", "config": {"train": {"folder": "/home/me/rain"}, "lora": {"alpha": 6.0}}}
    checkpoint.save(tmp_path / "checkpoints", 1, Holder(network), None, ema, {"about": said}, ONE)
    path = tmp_path / "lora.safetensors"
    assert export(tmp_path, "-o", path) == 0
    pairs = match_lora(path, shapes)
    assert len(pairs) == len(trained) // 2
    entries = read_header(path).entries
    assert len(entries) == 3 * len(pairs)
    values = json.loads(read_header(path).metadata[KEY])
    assert (values["kind"], values["licence"], values["step"]) == ("lora", "CC0", 1)
    assert values["config"]["train"] == {"folder": "rain"}
    with pytest.raises(WeightsError):
        load_part(path, "flow")
