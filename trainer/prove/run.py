"""Runs stages whose needs are met, as many at once as there are places, and remembers which are done."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mmaudio_core.errors import InputError, MMAudioError
from mmaudio_core.media.atomic import atomic_path

from .stages import Stage

log = logging.getLogger("mmaudio")
POLL_S = 0.2
Report = Callable[[int, int], None]


class StageError(MMAudioError):
    """A stage of the recipe ended with an error."""


def run_stages(
    stages: Sequence[Stage], folder: Path, workers: int, report: Report = lambda done, total: None
) -> dict[str, float]:
    """Runs what is not done yet; returns the seconds that each stage took in all runs of the recipe.

    A stage is done when its command ended well; ``stages/NAME.json`` in ``folder`` says so. What it prints goes
    to ``stages/NAME.log``. The processors are shared evenly among those that run together.

    Raises:
        InputError: the folder was begun with another recipe.
        StageError: a stage failed; what it said stands in its log, and others were stopped.
    """
    marks = folder / "stages"
    marks.mkdir(parents=True, exist_ok=True)
    seconds = {stage.name: took for stage in stages if (took := _done(stage, marks)) is not None}
    running: dict[str, tuple[Stage, subprocess.Popen[bytes], float]] = {}
    try:
        while len(seconds) < len(stages):
            for stage in _ready(stages, seconds, running)[: workers - len(running)]:
                places = min(workers, len(running) + len(_ready(stages, seconds, running)))
                running[stage.name] = (stage, _start(stage, folder, max(1, (os.cpu_count() or 1) // places)), time.monotonic())
            for name, (stage, process, begun) in list(running.items()):
                code = process.poll()
                if code is None:
                    continue
                del running[name]
                if code:
                    last = _mark(marks, name, "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
                    raise StageError(
                        f"Stage {name!r} ended with exit code {code}: {' '.join(last)} See {_mark(marks, name, 'log')}."
                    )
                seconds[name] = _finish(stage, marks, time.monotonic() - begun)
                report(len(seconds), len(stages))
            time.sleep(POLL_S)
    finally:
        for _, process, _ in running.values():
            process.terminate()
        for _, process, _ in running.values():
            process.wait()
    return seconds


def _ready(
    stages: Sequence[Stage], seconds: dict[str, float], running: dict[str, tuple[Stage, subprocess.Popen[bytes], float]]
) -> list[Stage]:
    return [s for s in stages if s.name not in seconds and s.name not in running and all(need in seconds for need in s.after)]


def _start(stage: Stage, folder: Path, threads: int) -> subprocess.Popen[bytes]:
    log.info("%s: mmaudio-train %s", stage.name, " ".join(stage.command))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with _mark(folder / "stages", stage.name, "log").open("ab") as output:
        command = [sys.executable, "-m", "trainer", *stage.command]
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL)


def _mark(marks: Path, name: str, ending: str) -> Path:
    return marks / f"{name.replace(' ', '_')}.{ending}"


def _done(stage: Stage, marks: Path) -> float | None:
    mark = _mark(marks, stage.name, "json")
    if not mark.exists():
        return None
    said = json.loads(mark.read_text(encoding="utf-8"))
    if tuple(said["command"]) != stage.command:
        given, was = " ".join(stage.command), " ".join(said["command"])
        raise InputError(
            f"{marks.parent} holds another recipe ({was}, not {given}); give another folder, or the same settings."
        )
    return float(said["seconds"])


def _finish(stage: Stage, marks: Path, seconds: float) -> float:
    log.info("%s took %.0f s.", stage.name, seconds)
    with atomic_path(_mark(marks, stage.name, "json")) as temporary:
        temporary.write_text(json.dumps({"command": stage.command, "seconds": round(seconds, 1)}), encoding="utf-8")
    return seconds
