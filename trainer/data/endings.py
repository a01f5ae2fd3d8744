"""Endings of file names, as a hint only: what a file holds is decided by opening it."""

from __future__ import annotations

from pathlib import PurePath

VIDEO_ENDINGS = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp")
SOUND_ENDINGS = (".flac", ".wav", ".mp3", ".ogg", ".opus", ".m4a", ".aac", ".aif", ".aiff", ".wma")
MEDIA_ENDINGS = VIDEO_ENDINGS + SOUND_ENDINGS
OTHER_ENDINGS = (
    *(".txt", ".json", ".jsonl", ".csv", ".tsv", ".md", ".html", ".xml", ".yaml", ".yml", ".toml", ".log", ".pdf", ".py"),
    *(".jpg", ".jpeg", ".png", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".srt", ".vtt", ".lrc", ".cue"),
    *(".zip", ".tar", ".gz", ".npy", ".npz", ".pt", ".pth", ".safetensors", ".parquet", ".db", ".ini", ".part"),
)
"""Nothing to train on, though FFmpeg opens pictures and some texts as videos."""


def without_media_ending(name: str) -> str:
    """``name`` without its ending where that is one of a media file: "a.b.WAV" gives "a.b", and "a.b" stays."""
    ending = PurePath(name).suffix
    return name.removesuffix(ending) if ending.lower() in MEDIA_ENDINGS else name
