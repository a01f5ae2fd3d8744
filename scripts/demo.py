"""The demo: draws a silent clip of the small world, gives it sound with ``mmaudio generate``, leaves an mp4 and a picture.

python scripts/demo.py [FOLDER] [--seed N]

The picture shows frames, and below them the spectrograms of the world's own sound and of the made one, marked at the strikes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from mmaudio_core.media.make_video import write_silent_video
from mmaudio_core.media.resample import load_audio
from trainer.prove.picture import clip_picture, write_picture
from trainer.world import HELD_OUT_SEED, make_clip

FRESH = HELD_OUT_SEED + 500_000_000
"""Demo clips take seeds from here on: neither trained on nor scored."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("demo_out"))
    parser.add_argument("--seed", type=int, help="of the clip (default: from the clock)")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else FRESH + int(time.time()) % 100_000_000
    args.folder.mkdir(parents=True, exist_ok=True)
    silent, sound, picture = (args.folder / name for name in ("silent.mp4", "with_sound.mp4", "picture.png"))
    clip = make_clip(seed, scene="stick")
    write_silent_video(clip.frames, clip.fps, silent)
    strikes = ", ".join(f"{event.time_s:.2f}" for event in clip.events)
    print(f"Clip {seed}: {clip.captions[0]}; strikes at {strikes} s.", flush=True)
    words = ["--prompt", clip.captions[0], "--output", str(sound)]
    code = subprocess.call([sys.executable, "-m", "mmaudio_core", "generate", str(silent), *words])
    if code:
        return code
    made, rate_hz = load_audio(sound)
    write_picture(clip_picture(clip, [(clip.samples, clip.sample_rate_hz), (made.numpy(), rate_hz)]), picture)
    print(f"Watch {sound}; {picture} shows frames, the true sound, and the made one, with the strikes marked.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
