"""Whether a Matroska or WebM file is as long as its header says, or was cut off."""

from __future__ import annotations

from pathlib import Path

_SEGMENT = b"\x18\x53\x80\x67"
_HEADER_BYTES = 4096
"""The EBML header, which stands before the segment, is far shorter."""


def holds_its_whole_length(path: Path) -> bool:
    """Whether the segment's stated length fits into the file; ``False`` where none is stated (live recordings)."""
    with path.open("rb") as stream:
        head = stream.read(_HEADER_BYTES)
    at = head.find(_SEGMENT) + len(_SEGMENT)
    if at < len(_SEGMENT) or at >= len(head) or not head[at]:
        return False
    width = 9 - head[at].bit_length()
    mask = (1 << 7 * width) - 1
    length = int.from_bytes(head[at : at + width], "big") & mask
    return length != mask and at + width + length <= path.stat().st_size
