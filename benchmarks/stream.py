"""Reading shards: from local disk against HTTP from a server on this machine, and the memory of long reading.

``python -m benchmarks.stream [--samples 2000] [--epochs 2] [--step-ms 80] [--quick] [--json FILE]``; makes its shards itself,
in the shapes of 8 s at 16 kHz with the published encoders. The server is a process of its own.

Three things are measured. Bare: batches as fast as they come, with nothing else to do; here a disk whose pages are in memory
cannot be matched by a connection on the same processors, and the number only says what the way can carry. Paced: each batch
is followed by ``--step-ms`` of waiting, as for a step on an accelerator (80 ms for 64 samples is what the paper's 52 hours of
one H100 for the small model come to); here HTTP must keep up with the disk within 20 %.
Memory: the process's own bytes (mapped files left out) at their most in each epoch.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from mmaudio_core.spec.audio import AUDIO_16K
from mmaudio_core.weights.inspect import file_digest
from trainer.data.index import INDEX_NAME, Index, index_text, shard_info
from trainer.data.order import OrderSettings
from trainer.data.shards import Record, Sample, Widths, write_shard
from trainer.data.stream import Stream

WIDTHS = Widths(latent=(250, 20), clip=(64, 1024), sync=(192, 768), text=(77, 1024))
ROWS_PER_SHARD = 64
BATCH = 64
KEEPS_UP = 0.8


def make_dataset(folder: Path, samples: int) -> Index:
    """``samples`` samples of noise, all with video and text."""
    generator = torch.Generator().manual_seed(0)
    infos = []
    for number, first in enumerate(range(0, samples, ROWS_PER_SHARD)):
        made = []
        for i in range(first, min(first + ROWS_PER_SHARD, samples)):
            drawn = {
                name: torch.randn(getattr(WIDTHS, name), generator=generator) for name in ("latent", "clip", "sync", "text")
            }
            latent = drawn.pop("latent")
            made.append(Sample(f"clip{i}", "av", "noise", latent, latent.abs(), **{k: v.half() for k, v in drawn.items()}))
        path = folder / f"shard-{number:06d}.safetensors"
        write_shard(path, made, [Record(s.id, s.kind, s.caption, f"{s.id}.mp4", 0.0, 8.0) for s in made])
        infos.append(shard_info(path, file_digest(path, "sha256"))[0])
    (folder / INDEX_NAME).write_text(index_text(infos, AUDIO_16K, 8.0, WIDTHS, {}, {}), encoding="utf-8")
    return Index.load(folder)


class _Quiet(SimpleHTTPRequestHandler):
    def copyfile(self, source: Any, outputfile: Any) -> None:
        self.connection.sendfile(source)  # as web servers do; else this would measure Python's copying

    def log_message(self, *args: Any) -> None:
        pass


def _serve(folder: str, ready: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=folder))
    ready.send(server.server_address[1])
    server.serve_forever()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of ``folder``, served by another process."""
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(str(folder), there), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join()


def own_bytes() -> int:
    """Memory of this process that is no view of a file; 0 where the system does not say (not Linux)."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


def read(index: Index, epochs: int, step_s: float, settings: OrderSettings) -> dict[str, Any]:
    """One run of ``epochs``: samples per second, share of time waited for data, own memory at its most in each epoch."""
    stream = Stream(index, settings)
    steps = -(-len(index) // BATCH)
    batches = stream.batches()
    next(batches)  # threads and connections
    waited = stream.waited_s
    memory = []
    began = time.perf_counter()
    for _ in range(epochs):
        most = 0
        for _ in range(steps):
            batch = next(batches)
            if step_s:
                time.sleep(step_s)
            most = max(most, own_bytes())
        memory.append(most)
    seconds = time.perf_counter() - began
    del batch
    batches.close()
    return {
        "samples_per_s": epochs * steps * BATCH / seconds,
        "data_share": (stream.waited_s - waited) / seconds,
        "memory_bytes": memory,
        "most_held": stream.most_held,
    }


def measure(samples: int, epochs: int, step_s: float) -> list[dict[str, Any]]:
    """Rows of the table; disk and HTTP in turns, so that a busy machine harms both alike."""
    settings = OrderSettings(BATCH, lanes=4, window_shards=2)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        local = make_dataset(folder, samples)
        with served(folder) as address:
            sources = {"disk": local, "HTTP": Index.load(address)}
            for way, pause in (("bare", 0.0), ("paced", step_s)):
                for source, index in sources.items():
                    rows.append({"way": way, "source": source, **read(index, epochs, pause, settings)})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Reading shards from disk and over HTTP.")
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--step-ms", type=float, default=80.0, help="a training step of 64 samples (default 80)")
    parser.add_argument("--quick", action="store_true", help="320 samples")
    parser.add_argument("--json", type=Path, help="also write the rows there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = measure(320 if args.quick else args.samples, args.epochs, args.step_ms / 1000)
    print(f"{'':6} {'source':6} {'samples/s':>10} {'data share':>11} {'shards held':>12}  own memory by epoch (MB)")
    for row in rows:
        memory = " ".join(f"{value / 1e6:.0f}" for value in row["memory_bytes"])
        numbers = f"{row['samples_per_s']:10.0f} {row['data_share']:11.1%} {row['most_held']:12d}"
        print(f"{row['way']:6} {row['source']:6} {numbers}  {memory}")
    disk, http = (row["samples_per_s"] for row in rows if row["way"] == "paced")
    kept = "within" if http >= KEEPS_UP * disk else "NOT within"
    print(f"paced: HTTP gives {http / disk:.1%} of what the disk gives ({kept} 20 %)")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
