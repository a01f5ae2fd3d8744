"""Configuration files: what is refused and how, overrides, and our own files as they are."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from mmaudio_core.errors import InputError
from mmaudio_core.spec.model import VARIANTS
from trainer.config.checks import spec_of
from trainer.config.load import PRESETS, load_run_config, parse_toml, preset_names
from trainer.config.schema import LoraConfig, RunConfig
from trainer.config.tables import dump_toml, from_table, to_table

MINIMAL = """
[data]
train = "shards"
[train]
folder = "run"
[validation]
every = 0
[preview]
every = 0
"""


@pytest.fixture
def minimal(tmp_path: Path) -> str:
    path = tmp_path / "mine.toml"
    path.write_text(MINIMAL)
    return str(path)


def test_defaults_are_the_papers(minimal: str) -> None:
    config = load_run_config(minimal)
    optim, train = config.optim, config.train
    assert (optim.lr, optim.betas, optim.eps, optim.weight_decay) == (1e-4, (0.9, 0.95), 1e-6, 1e-6)
    assert (optim.warmup_steps, optim.decay_at, optim.decay_by) == (1000, (0.8, 0.9), 0.1)
    assert (train.steps, train.global_batch, train.precision, train.clip_norm) == (300_000, 512, "bf16", 1.0)
    assert (config.dropout.video, config.dropout.text, config.dropout.together) == (0.1, 0.1, "auto")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[optim]\nlearning_rate = 1e-4\n", "unknown key optim.learning_rate"),
        ("[optim]\nlrr = 1e-4\n", "the nearest known one is optim.lr."),
        ("[optim]\nwarmup = 5\n", "the nearest known one is optim.warmup_steps."),
        ("[trian]\nsteps = 5\n", "the nearest known one is train."),
        ("[data]\nsteps = 5\n", "unknown key data.steps"),
        ("[model.sizes]\nhead = 5\n", "the nearest known one is model.sizes.heads."),
        ("qqqq = 5\n", "known here are model, data"),
        ("[train]\nsteps = 5.5\n", "a whole number is needed"),
        ("[train]\nsteps = true\n", "a whole number is needed"),
        ("[train]\nsteps = '5'\n", "a whole number is needed"),
        ("[train]\ncompile = 1\n", "true or false is needed"),
        ("[train]\nprecision = 'fp16'\n", "use one of 'bf16', 'float32'"),
        ("[optim]\nbetas = 0.9\n", "a list in brackets is needed"),
        ("[optim]\nlr = nan\n", "a finite number is needed"),
        ("train = 5\n", "a section [train] is needed"),
        ("[train\nsteps = 5\n", "is no TOML"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_run_config(str(path))
    assert said in str(caught.value)
    assert "bad.toml" in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["data.train="], "data.train is empty"),
        (["train.folder="], "train.folder is empty"),
        (["model.variant=small"], "model.variant is 'small'"),
        (["model.variant="], "both empty"),
        (["train.global_batch=10", "train.accumulation=4"], "does not divide"),
        (["train.steps=0"], "train.steps is 0; 1 or more"),
        (["train.steps=10"], "optim.warmup_steps = 1000 is more than train.steps = 10"),
        (["optim.lr=0"], "must be above 0"),
        (["optim.betas=[0.9]"], "two numbers"),
        (["optim.betas=[0.9, 1.0]"], "two numbers"),
        (["optim.decay_at=[0.9, 0.8]"], "rising shares"),
        (["optim.decay_at=[80.0]"], "rising shares"),
        (["dropout.text=1.5"], "a share from 0 to 1"),
        (["ema.sigma_rels=[0.3]"], "relative widths"),
        (["validation.every=5"], "data.validation is empty"),
        (["preview.every=5"], "data.validation is empty"),
        (["preview.every=5", "data.validation=held", "model.variant=small_44k"], "the network needs 44k"),
        (["lora.rank=4", "ema.sigma_rels=[]"], "model.base is empty"),
        (["lora.rank=4", "model.base=x.safetensors"], "ema.sigma_rels"),
        (["lora.rank=4", "model.base=x.safetensors", "ema.sigma_rels=[]", "lora.targets=[]"], "lora.targets is empty"),
        (["steps=4"], "takes section.key=value"),
        (["train.steps"], "takes section.key=value"),
        (["train.steps.more=4"], "a whole number is needed"),
        (["train.folder.more=4"], "is a value, not a section"),
        (["train.stepz=4"], "the nearest known one is train.steps."),
    ],
)
def test_contradictions_are_refused(minimal: str, changes: list[str], said: str) -> None:
    with pytest.raises(InputError) as caught:
        load_run_config(minimal, changes)
    assert said in str(caught.value)


def test_overrides_take_the_place_of_the_files_values(minimal: str) -> None:
    changes = [
        "train.steps=2000",
        "optim.lr=2",
        "optim.betas=[0.8, 0.9]",
        "train.folder = runs/new = one",
        "model.variant=custom",
        "model.sizes.heads=3",
        'data.train="s3://bucket/a b"',
        "train.compile=true",
    ]
    config = load_run_config(minimal, changes)
    assert config.train.steps == 2000
    assert config.optim.lr == 2.0
    assert isinstance(config.optim.lr, float)
    assert config.optim.betas == (0.8, 0.9)
    assert config.train.folder == "runs/new = one"
    assert config.data.train == ("s3://bucket/a b",)
    assert config.train.compile is True
    spec = spec_of(config.model)
    assert spec is not None
    assert (spec.width, spec.heads) == (192, 3)


def test_what_was_used_reads_back_the_same(minimal: str, tmp_path: Path) -> None:
    names = ['data.train=C:\\shards\\é "q" \t', "optim.lr=1e-20", "lora.targets=[]", "optim.eps=1e20"]
    config = load_run_config(minimal, names)
    again = tmp_path / "config.toml"
    again.write_text(dump_toml(to_table(config)), encoding="utf-8")
    assert load_run_config(str(again)) == config


def test_a_runs_folder_stands_for_the_run_in_it_wherever_it_lies(minimal: str, tmp_path: Path) -> None:
    config = load_run_config(minimal)
    copied = tmp_path / "copied"
    copied.mkdir()
    (copied / "config.toml").write_text(dump_toml(to_table(config)), encoding="utf-8")
    there = dataclasses.replace(config, train=dataclasses.replace(config.train, folder=str(copied)))
    assert load_run_config(str(copied)) == load_run_config(f"{copied}/") == there
    assert load_run_config(str(copied), ["train.folder=elsewhere"]).train.folder == "elsewhere"
    assert load_run_config(str(copied / "config.toml")) == config
    (copied / "config.toml").write_text("[data]\ntrain = 'shards'\n[validation]\nevery = 0\n[preview]\nevery = 0\n")
    assert load_run_config(str(copied)).train.folder == str(copied)
    (copied / "config.toml").write_text("train = 5\n")
    with pytest.raises(InputError, match=r"a section \[train\] is needed"):
        load_run_config(str(copied))


def test_missing_configuration_names_ours() -> None:
    with pytest.raises(InputError, match="small_44k"):
        load_run_config("no_such_file.toml")


def test_published_variants_and_uses_have_a_file() -> None:
    assert set(preset_names()) == {*VARIANTS, "finetune", "lora", "smoke_cpu", "world"}


@pytest.mark.parametrize("name", preset_names())
def test_our_files(name: str) -> None:
    config = load_run_config(name)
    if name in VARIANTS:
        assert spec_of(config.model) == VARIANTS[name]
        assert config.data.av_repeat == (5 if name.startswith("small") else 3)
        assert config.optim == RunConfig().optim
        assert (config.train.steps, config.train.global_batch, config.train.precision) == (300_000, 512, "bf16")
    assert bool(config.lora.rank) == (name == "lora")
    assert bool(config.model.base) == (name in ("finetune", "lora"))


@pytest.mark.parametrize("name", preset_names())
def test_every_key_of_our_files_is_there_and_explained(name: str) -> None:
    text = (PRESETS / f"{name}.toml").read_text(encoding="utf-8")
    lines = text.splitlines()
    for i, line in enumerate(lines):
        assert len(line) <= 128
        if "=" in line and not line.startswith("#"):
            assert "  # " in line or lines[i - 1].startswith("# "), f"{line} is not explained"
    wanted = to_table(RunConfig())
    if name != "lora":
        del wanted["lora"]
    if name not in ("smoke_cpu", "world"):
        del wanted["model"]["sizes"]
    assert _keys(parse_toml(text)) == _keys(wanted)


def _keys(table: dict[str, Any]) -> set[str]:
    found = set()
    for key, value in table.items():
        found |= {f"{key}.{inner}" for inner in _keys(value)} if isinstance(value, dict) else {key}
    return found


def test_targets_of_a_lora_are_those_of_the_injection() -> None:
    from trainer.lora.inject import DEFAULT_TARGETS

    assert LoraConfig().targets == DEFAULT_TARGETS


def test_other_configurations_can_use_the_same_rules() -> None:
    @dataclass(frozen=True)
    class Inner:
        names: tuple[str, ...] = ()

    @dataclass(frozen=True)
    class Outer:
        word: Literal["a", "b"] = "a"
        rate: float = 1.0
        inner: Inner = field(default_factory=Inner)

    globals().update(Inner=Inner)  # type hints are looked up where the class was defined
    try:
        made = from_table(Outer, {"word": "b", "rate": 2, "inner": {"names": ["x"]}}, "t")
    finally:
        del globals()["Inner"]
    assert made == Outer("b", 2.0, Inner(("x",)))
    assert dataclasses.is_dataclass(made)


def test_reading_a_configuration_imports_nothing_heavy() -> None:
    code = "import sys; from trainer.config.load import load_run_config as l; l('smoke_cpu'); print('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True).stdout == "False\n"
    )
