"""The weights of a run's folder: an average of any relative width, or the unaveraged ones, under the published names."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mmaudio_core.errors import WeightsError
from mmaudio_core.weights.files import TensorFile, open_tensors

from ..ema.snapshots import Snapshot, find_snapshots
from ..ema.synthesis import fit, summed
from ..engine.checkpoint import checkpoints, read_extra, read_tensors, step_of, tensor_names

SNAPSHOTS, CHECKPOINTS, CONFIG = "ema", "checkpoints", "config.toml"
NOTICED_ERROR = 0.05
RELEASE_EVERY = 256 << 20
_AVERAGED = re.compile(r"ema\.(\d[\d.e-]*)\.([A-Za-z_].*)")
_ANCHOR = "audio_input_proj.0.bias"
log = logging.getLogger("mmaudio")


@dataclass(frozen=True)
class Weights:
    """What is exported: float32, published names; ``sigma_rel`` None means not averaged, ``about`` is what the run said."""

    tensors: dict[str, Tensor]
    step: int
    sigma_rel: float | None
    about: dict[str, Any]


def averaged(run: Path, sigma_rel: float, step: int | None = None) -> Weights:
    """The average of relative width ``sigma_rel`` after ``step`` updates (None: the last ones), float32.

    A tracked width at a step that has a checkpoint is exactly what was averaged. Any other one is put together from the
    snapshots up to that step; a warning says so where they are too few for a good fit.

    Raises:
        WeightsError: when the run has neither snapshots nor checkpoints of that step.
        InputError: for a width outside of what an average can have.
    """
    snapshots = find_snapshots(run / SNAPSHOTS)
    saved = {step_of(folder): folder for folder in checkpoints(run / CHECKPOINTS)}
    steps = sorted({*saved, *(snapshot.step for snapshot in snapshots)})
    at = _chosen(run, steps, step)
    exact = _widths(saved[at]) if at in saved else []
    usable = [s for s in snapshots if s.step <= at and not (s.step == at and s.sigma_rel in exact)]
    profiles = [(s.step, s.sigma_rel) for s in usable] + [(at, width) for width in exact]
    if not profiles:
        raise WeightsError(f"{run} kept no averages up to step {at}; export the unaveraged weights, or a later step.")
    found = fit(profiles, at, sigma_rel)
    if found.error > NOTICED_ERROR:
        log.warning(
            "The %d averages up to step %d fit the width %g only to %.0f %%; the run would need more snapshots for it.",
            len(profiles),
            at,
            sigma_rel,
            100 * found.error,
        )
    all_profiles: list[Snapshot | float] = [*usable, *exact]
    needed = [(profile, weight) for profile, weight in zip(all_profiles, found.weights, strict=True) if weight]
    sources, files, constants = _open(saved.get(at), [profile for profile, _ in needed])
    release = _release_now_and_then(files, sources)
    tensors = _published(dict(summed(sources, [weight for _, weight in needed], constants, release)))
    if at not in saved:
        return Weights(tensors, at, sigma_rel, usable[-1].about)
    # What was not averaged is in the checkpoint's model, be it that the averages are of a part only.
    model = _published(read_tensors(saved[at], "model."))
    rest = {name: tensor for name, tensor in model.items() if name not in tensors}
    return Weights({**rest, **tensors}, at, sigma_rel, _about(saved[at]))


def unaveraged(run: Path, step: int | None = None) -> Weights:
    """The weights of the checkpoint of ``step`` (None: the last one) as the optimiser left them.

    Raises:
        WeightsError: when there is no such checkpoint, or it is damaged.
    """
    saved = {step_of(folder): folder for folder in checkpoints(run / CHECKPOINTS)}
    at = _chosen(run, sorted(saved), step)
    tensors = read_tensors(saved[at], "model.")
    return Weights(_published(tensors), at, None, _about(saved[at]))


def _about(checkpoint: Path) -> dict[str, Any]:
    return dict(read_extra(checkpoint).get("about") or {})


def _chosen(run: Path, steps: Sequence[int], step: int | None) -> int:
    if not steps:
        raise WeightsError(f"{run} holds no checkpoint and no snapshot of averages; is it the folder of a training run?")
    if step is not None and step not in steps:
        raise WeightsError(f"{run} kept nothing of step {step}; it has {', '.join(map(str, steps))}.")
    return steps[-1] if step is None else step


def _widths(checkpoint: Path) -> list[float]:
    matches = (_AVERAGED.fullmatch(name) for name in tensor_names(checkpoint))
    return sorted({float(match[1]) for match in matches if match})


def _open(
    checkpoint: Path | None, profiles: Sequence[Snapshot | float]
) -> tuple[list[Mapping[str, Tensor]], list[TensorFile], frozenset[str]]:
    """The tensors of each profile, a snapshot or a width of the checkpoint; the mapped files; names that were not averaged."""
    sources: list[Mapping[str, Tensor]] = []
    files: list[TensorFile] = []
    constants: frozenset[str] = frozenset()
    for profile in profiles:
        if isinstance(profile, Snapshot):
            files.append(open_tensors(profile.path))
            sources.append(files[-1].tensors)
            constants |= profile.constants
        else:
            assert checkpoint is not None
            sources.append(read_tensors(checkpoint, f"ema.{profile}."))
    # Those in a checkpoint have no constants beside them; whatever is left out here is taken from its model.
    shared = frozenset.intersection(*(frozenset(source) for source in sources))
    return [_Only(source, shared) for source in sources], files, constants


class _Only(Mapping[str, Tensor]):
    """Some of the tensors of a file, still unread."""

    def __init__(self, tensors: Mapping[str, Tensor], names: frozenset[str]) -> None:
        self._tensors, self._names = tensors, [name for name in tensors if name in names]

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Any:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _release_now_and_then(files: Sequence[TensorFile], sources: Sequence[Mapping[str, Tensor]]) -> Callable[[Tensor], None]:
    read = 0

    def release(tensor: Tensor) -> None:
        nonlocal read
        read += tensor.numel() * tensor.element_size() * len(sources)
        if read >= RELEASE_EVERY:
            read = 0
            for file in files:
                file.release()

    return release


def _published(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Without the prefix of the module that held the network in training, where there is one."""
    prefix = next((name[: -len(_ANCHOR)] for name in tensors if name.endswith(f".{_ANCHOR}")), "")
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
