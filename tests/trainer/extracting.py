"""The command ``extract`` as the tests run it."""

from __future__ import annotations

from pathlib import Path

from trainer.cli import main

OPTIONS = ("--variant", "tiny", "--device", "cpu", "--duration", "1", "--rows-per-shard", "3", "--batch-size", "2")


def extract(manifest: Path, folder: Path, *options: str) -> int:
    return main(["extract", str(manifest), "-o", str(folder), *OPTIONS, *options, "--quiet"])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
