"""Extraction that is killed at random moments, and extraction by several processes, end with the same bytes as one run."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.extracting import OPTIONS, contents, extract
from tests.trainer.helpers_a import write_clip, write_sound
from trainer.cli import main
from trainer.data.manifest import Row, write_manifest


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest of six blocks, some rows bad."""
    folder = tmp_path_factory.mktemp("media")
    rows = []
    for i in range(16):
        name = f"c{i}.mp4" if i % 2 else f"c{i}.wav"
        write_clip(folder / name, 1.2) if i % 2 else write_sound(folder / name, 1.2 + i / 8, level=0.0 if i == 4 else 0.5)
        rows.append(Row(f"c{i}", name if i != 7 else "gone.mp4", f"sound {i % 5}" if i % 3 else ""))
    write_manifest(rows, folder / "m.jsonl")
    return folder


def unbroken(media: Path, folder: Path, *options: str) -> dict[str, bytes]:
    """The shards of one run that nothing disturbed."""
    assert extract(media / "m.jsonl", folder, *options) == 0
    assert len(list(folder.glob("shard-*"))) == 6
    return contents(folder)


def _work(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    sys.exit(main(arguments))


@pytest.fixture(scope="module")
def start() -> Callable[[list[str]], Any]:
    """Starts the command in a process of its own, copied from one that has everything imported."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("there is no forkserver here; the slow test covers this")
    context = multiprocessing.get_context("forkserver")
    # The last three are what the command imports on its way, torch among them by building on the meta device.
    slow = ["torchaudio", "av", "torch.fx.experimental.symbolic_shapes"]
    context.set_forkserver_preload(["tests.trainer.test_extract_kills", "trainer.extract.run", *slow])

    def begin(arguments: list[str]) -> Any:
        process = context.Process(target=_work, args=(arguments,))
        process.start()
        return process

    return begin


def kill_often(begin: Callable[[], Any], folder: Path, wanted: dict[str, bytes], kills: int, longest_s: float) -> None:
    """Kills runs at random moments until ``kills`` were hit; each time one comes to its end, all must be as in ``wanted``."""
    moments = random.Random(20)
    killed = finished = 0
    while killed < kills or not finished:
        process = begin()
        if killed < kills:
            time.sleep(moments.uniform(0, longest_s))
            process.kill()
            ended = _ended(process)
        else:
            ended = _ended(process)
            assert ended == 0
        if ended == 0:
            finished += 1
            assert contents(folder) == wanted
            shutil.rmtree(folder)
        else:
            killed += 1
            for name, content in contents(folder).items() if folder.exists() else ():
                assert name.endswith(".partial") or content == wanted[name], f"{name} is whole or not there"


def _ended(process: Any) -> int:
    if isinstance(process, subprocess.Popen):
        return process.wait(120)
    process.join(120)
    return int(process.exitcode)


def test_kills_at_random_moments_change_no_bit(media: Path, tmp_path: Path, start: Callable[[list[str]], Any]) -> None:
    """The sound alone, since CLIP's package takes seconds to import; the slow test has everything."""
    wanted, folder = unbroken(media, tmp_path / "unbroken", "--latents-only"), tmp_path / "shards"
    arguments = ["extract", str(media / "m.jsonl"), "-o", str(folder), *OPTIONS, "--latents-only", "--quiet"]
    assert _ended(start(["--version"])) == 0  # by now everything is imported there
    began = time.monotonic()
    assert _ended(start(arguments)) == 0
    whole_s = time.monotonic() - began
    assert contents(folder) == wanted
    shutil.rmtree(folder)
    kill_often(lambda: start(arguments), folder, wanted, kills=20, longest_s=whole_s)


@pytest.mark.slow
@pytest.mark.timeout(1500)  # each run imports everything anew
def test_kills_of_the_command_itself(media: Path, tmp_path: Path) -> None:
    wanted, folder = unbroken(media, tmp_path / "unbroken"), tmp_path / "shards"
    command = [sys.executable, "-m", "trainer", "extract", str(media / "m.jsonl"), "-o", str(folder), *OPTIONS, "--quiet"]
    began = time.monotonic()
    subprocess.run(command, check=True)
    whole_s = time.monotonic() - began
    assert contents(folder) == wanted
    shutil.rmtree(folder)
    kill_often(lambda: subprocess.Popen(command), folder, wanted, kills=5, longest_s=whole_s)


@pytest.mark.slow
def test_torchrun(media: Path, tmp_path: Path) -> None:
    wanted, folder = unbroken(media, tmp_path / "unbroken"), tmp_path / "shards"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "trainer"]
    subprocess.run([*command, "extract", str(media / "m.jsonl"), "-o", str(folder), *OPTIONS], check=True)
    assert contents(folder) == wanted
