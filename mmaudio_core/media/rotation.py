"""The display matrix: how a player turns a decoded frame before showing it (phones record sideways)."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

Matrix = tuple[float, float, float, float]
"""(a, b, c, d): a decoded point (x, y) is shown at (a x + c y, b x + d y), y pointing down."""
UPRIGHT: Matrix = (1.0, 0.0, 0.0, 1.0)
_QUARTER_TURNS: dict[int, Matrix] = {
    0: UPRIGHT,
    1: (0.0, -1.0, 1.0, 0.0),
    2: (-1.0, 0.0, 0.0, -1.0),
    3: (0.0, 1.0, -1.0, 0.0),
}
"""By quarter turns counterclockwise."""


def display_matrix(frame: Any) -> Matrix:
    """The linear part of a PyAV frame's display matrix; upright where it has none.

    The matrix itself is read, not only ``frame.rotation``: PyAV before 14 lacks that, and it says nothing of mirroring.
    """
    for item in getattr(frame, "side_data", ()):
        if item.type.name == "DISPLAYMATRIX":
            a, b, _, c, d, *_ = struct.unpack("=9i", bytes(item)[:36])
            return (a / 65536, b / 65536, c / 65536, d / 65536)
    return _QUARTER_TURNS[round(getattr(frame, "rotation", 0) / 90) % 4]


class MatrixReader:
    """Display matrices of a stream's frames, read anew only where the angle changes.

    Looking at ``frame.side_data`` makes PyAV tie the frame to itself, so that it outlives its use until the garbage
    collector comes by; done for every frame, that kept hundreds of them in memory.
    """

    def __init__(self) -> None:
        self._angle: int | None = None
        self._matrix: Matrix | None = None

    def read(self, frame: Any) -> Matrix:
        """The matrix that holds for ``frame``."""
        angle = getattr(frame, "rotation", None)
        if self._matrix is None or angle != self._angle:
            self._angle, self._matrix = angle, display_matrix(frame)
        return self._matrix


def swaps_sides(matrix: Matrix) -> bool:
    """Whether width and height trade places; angles in between go to the nearest quarter turn."""
    a, b, c, d = matrix
    return abs(b) + abs(c) > abs(a) + abs(d)


def apply_matrix(image: np.ndarray, matrix: Matrix) -> np.ndarray:
    """uint8 (H, W, 3) -> the same picture as a player shows it, contiguous."""
    a, b, c, d = matrix
    if swaps_sides(matrix):
        image = image.transpose(1, 0, 2)
        mirror_x, mirror_y = c < 0, b < 0
    else:
        mirror_x, mirror_y = a < 0, d < 0
    if mirror_x:
        image = image[:, ::-1]
    if mirror_y:
        image = image[::-1]
    if image.strides[1] == 3:
        return np.ascontiguousarray(image)
    # Pixels out of their order: numpy copies three planes several times faster than many triples.
    turned = np.empty(image.shape, image.dtype)
    for channel in range(3):
        turned[..., channel] = image[..., channel]
    return turned
