"""What is made from what: each stage is one command line of the trainer."""

from __future__ import annotations

from dataclasses import dataclass

from mmaudio_core.errors import InputError


@dataclass(frozen=True)
class Size:
    """How much of everything: files of the world, steps of each training, and what else is set for the flow network's."""

    clips: int
    sounds: int
    val: int
    steps: dict[str, int]
    score_clips: int
    flow_changes: tuple[str, ...] = ()


PARTS = ("vae", "vocoder", "sync", "clip")
ENCODERS, FAMILY = "encoders.safetensors", "family.safetensors"
SIZES = {
    "full": Size(2400, 800, 64, {"vae": 0, "vocoder": 0, "clip": 0, "sync": 0, "flow": 0}, 200),
    "smoke": Size(6, 2, 2, {"vae": 4, "vocoder": 2, "clip": 2, "sync": 2, "flow": 4}, 2, ("optim.warmup_steps=0",)),
}
"""Steps of 0 are those of the configuration. "smoke" shows that everything runs, in two minutes."""


@dataclass(frozen=True)
class Stage:
    """``command`` of the trainer, run in the recipe's folder once all of ``after`` are done.

    It is one that goes on where it was stopped when it is given again.
    """

    name: str
    command: tuple[str, ...]
    after: tuple[str, ...] = ()


def stages_of(size: str, seed: int) -> tuple[Stage, ...]:
    """The recipe, every stage after those that it needs.

    Raises:
        InputError: for an unknown size.
    """
    if size not in SIZES:
        raise InputError(f"The size {size!r} was given; known are {', '.join(SIZES)}.")
    much = SIZES[size]
    world = ("--clips", much.clips, "--sounds", much.sounds, "--val", much.val, "--seed", seed)
    parts = tuple(f"runs/{name}/{name}.safetensors" for name in PARTS)
    shards = ("--weights", ENCODERS, "--device", "cpu")
    score = ("--weights", FAMILY, "--clips", much.score_clips, "--json", "score.json")
    return (
        Stage("world", _words("world", "world", *world)),
        *(_tower(name, much, seed) for name in PARTS),
        Stage("encoders", _words("family", *parts, "-o", ENCODERS, "--flow", "world", "--overwrite"), PARTS),
        *(
            Stage(
                f"extract {split}",
                _words("extract", "world/data.tsv", "-o", f"shards/{split}", "--split", split, *shards),
                ("encoders",),
            )
            for split in ("train", "val")
        ),
        Stage(
            "flow",
            _words(
                *("run", "world", *_settings("runs/flow", much.steps["flow"], seed)),
                *("--set", f"model.text_encoder={ENCODERS}", *much.flow_changes),
            ),
            ("extract train", "extract val"),
        ),
        Stage(
            "export",
            _words(
                *("export", "runs/flow", "-o", FAMILY, "--family", ENCODERS),
                *("--dtype", "float16", "--licence", "MIT", "--overwrite"),
            ),
            ("flow",),
        ),
        Stage("score", _words("score", *score), ("export",)),
    )


def _tower(name: str, much: Size, seed: int) -> Stage:
    more = _settings(f"runs/{name}", much.steps[name], seed)
    return Stage(name, _words(name, f"{name}_world", "--resume", *more, "--set", "data.manifest=world/data.tsv"), ("world",))


def _settings(folder: str, steps: int, seed: int) -> tuple[str, ...]:
    given = {"train.folder": folder, "train.seed": seed} | ({"train.steps": steps} if steps else {})
    return tuple(word for key, value in given.items() for word in ("--set", f"{key}={value}"))


def _words(*parts: object) -> tuple[str, ...]:
    return tuple(str(part) for part in parts)
