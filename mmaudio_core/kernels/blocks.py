"""How work on many rows is cut into blocks of few different sizes.

oneDNN compiles code for every size that it has not seen lately, which takes about a millisecond and is forgotten after 1024 of
them; signals and their windows come in many lengths.
"""

from __future__ import annotations

from collections.abc import Iterator

ELEMENTS = 1 << 14
"""Sizes are multiples of the rows that hold about so many: few enough that what is done for nothing costs next to nothing."""


def quantum(channels: int) -> int:
    """Rows whose multiples are the sizes of blocks, a power of two."""
    return 1 << max(0, (ELEMENTS // max(1, channels)).bit_length() - 1)


def block_rows(rows: int, about: float, step: int) -> int:
    """Rows of each of as many equal blocks of ``about`` rows as cover ``rows``, a multiple of ``step``."""
    count = max(1, round(rows / about))
    return -(-rows // (count * step)) * step


def blocks(rows: int, about: float, step: int) -> Iterator[tuple[int, int]]:
    """From and to of blocks of ``about`` rows that cover ``rows`` and no more, the last one overlapping the one before.

    Each is a multiple of ``step``, unless ``rows`` are fewer.
    """
    size = max(step, rows // (max(1, round(rows / about)) * step) * step)
    done = 0
    while done + size <= rows:
        yield done, done + size
        done += size
    if done < rows:
        yield max(0, rows - -(-(rows - done) // step) * step), rows
