"""sin^2 of whole tensors in plain arithmetic, for CPUs, where torch.sin and a square take twice as long.

With r the distance of x to the next whole number and s = sin^2(pi r / 2), sin^2(pi x) is 4 s (1 - s). s is a polynomial of
y = r^2 without a constant, c1 y + c2 y^2 + c3 y^3 + c4 y^4, which takes three passes as B (y + ...): with q = y + Q y^2 it is
B (q + S q^2 + Y y). The coefficients have the least relative error for y up to 1/4, which is 1.7e-7.
"""

from __future__ import annotations

import torch
from torch import Tensor

C1, C2, C3, C4 = 2.46740068, -2.02930484, 0.66662883, -0.11130323
Q = 2 * C4 / C3
B = (C2 - C3**2 / (4 * C4)) / Q
S, Y = C3**2 / (4 * C4 * B), C1 / B - 1
SCALE = 4 * B
"""What ``sin_squared_`` leaves to a factor that is multiplied anyway."""


def sin_squared_(x: Tensor, scratch: Tensor | None = None) -> Tensor:
    """``x`` becomes sin^2(pi x) / ``SCALE`` in place, to about the rounding of float32. ``scratch``: a tensor of x's shape."""
    y = torch.round(x, out=scratch) if scratch is not None else torch.round(x)
    x.sub_(y)
    torch.mul(x, x, out=y)
    torch.addcmul(y, y, y, value=Q, out=x)
    x.addcmul_(x, x, value=S).add_(y, alpha=Y)
    return x.addcmul_(x, x, value=-B)
