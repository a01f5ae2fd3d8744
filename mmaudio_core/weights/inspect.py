"""What any file is, in a few lines for people."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from pathlib import Path

import torch

from .carried import with_carried
from .detect import Detected
from .files import TensorFile, open_tensors
from .metadata import KEY, decode
from .parts import split_parts
from .registry import by_md5, licence_of
from .safetensors_file import ByteProgress
from .sniff import size_text

CHUNK_BYTES = 4 << 20


def describe(path: str | os.PathLike[str], *, checksum: bool = False, progress: ByteProgress | None = None) -> str:
    """A few lines about ``path``: kind and variant of each part, tensors and numbers, formats, metadata, licence.

    With ``checksum`` the whole file is read and its MD5 compared with the published files'; ``progress`` then gets (bytes read,
    in all).

    Raises:
        WeightsError: for a wrong file, the one sentence that says what it is.
    """
    path = Path(path)
    file = open_tensors(path)
    metadata = with_carried(file.metadata, file.tensors, str(path))
    parts = split_parts(file.tensors, metadata, str(path))
    values = decode(metadata, str(path))
    lines = [f"{path.name}: {' and '.join(detected.phrase for detected, _ in parts.values())}"]
    for detected, prefix in parts.values():
        lines.append(_part_line(detected, prefix, file))
    nested = f", tensors under {file.nested!r}" if file.nested else ""
    lines.append(f"  file: {size_text(path.stat().st_size)}, {file.format}{nested}")
    if values:
        said = ", ".join(f"{key} {values[key]!r}" for key in ("variant", "source_name") if values.get(key))
        lines.append(f"  written by this package{': ' if said else ''}{said}")
    elif others := [key for key in file.metadata if key != KEY]:
        lines.append(f"  metadata: {', '.join(f'{key} = {file.metadata[key][:60]!r}' for key in others[:5])}")
    said = "licence" if values.get("licence") or values.get("licences") else "licence of the published weights"
    lines.append(f"  {said}: {'; '.join(sorted({licence_of(values, kind) for kind in parts}))}")
    if checksum:
        lines.append(f"  {checksum_line(path, progress)}")
    return "\n".join(lines)


def _part_line(detected: Detected, prefix: str, file: TensorFile) -> str:
    formats: Counter[torch.dtype] = Counter()
    tensors = 0
    for name, tensor in file.tensors.items():
        if name.startswith(prefix):
            formats[tensor.dtype] += tensor.numel()
            tensors += 1
    kinds = ", ".join(str(dtype).removeprefix("torch.") for dtype, _ in formats.most_common())
    sizes = ", ".join(f"{key} {value}" for key, value in detected.spec.to_dict().items())
    numbers = formats.total() / 1e6
    return f"  {detected.kind} {detected.variant}: {tensors} tensors, {numbers:,.1f} M numbers in {kinds} ({sizes})"


def checksum_line(path: str | os.PathLike[str], progress: ByteProgress | None = None) -> str:
    """The MD5 of a file and whether it is that of a published one."""
    digest = file_digest(path, "md5", progress)
    known = by_md5(digest)
    return f"MD5 {digest}: {f'the published {known.name}, unchanged' if known else 'of no published file whose MD5 is known'}"


def file_digest(path: str | os.PathLike[str], algorithm: str, progress: ByteProgress | None = None) -> str:
    """Hexadecimal digest ("md5", "sha256") of a file, read in pieces; ``progress`` gets (bytes read, in all)."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, "rb") as file:
        total = os.fstat(file.fileno()).st_size
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            if progress is not None:
                progress(file.tell(), total)
    return digest.hexdigest()
