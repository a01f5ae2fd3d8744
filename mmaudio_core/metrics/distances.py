"""Scores between sets of features or class logits (spec section 7), in float64."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError

INCEPTION_SEED, INCEPTION_SPLITS = 2020, 10


class MeanStd(NamedTuple):
    """A mean over splits and its standard deviation (ddof 0)."""

    mean: float
    std: float


def _pair(a: Tensor, b: Tensor, same_rows: bool) -> tuple[Tensor, Tensor]:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2 or (same_rows and len(a) != len(b)):
        rows = "the same rows" if same_rows else "2 rows or more each"
        raise InputError(
            f"Features of shapes {tuple(a.shape)} and {tuple(b.shape)} were given; (clips, width) with {rows} are needed."
        )
    return a.double(), b.double()


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 sqrt(S_a S_b)) of features (clips, width), covariances with ddof 1 (arXiv 1706.08500).

    Raises:
        InputError: when the widths differ or a set has fewer than 2 clips.
    """
    a, b = _pair(a, b, same_rows=False)
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a.reshape(a.shape[1], a.shape[1]))
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    # sqrt(S_a S_b) is similar to the root of this symmetric matrix: same trace, no complex round-off.
    product = torch.linalg.eigvalsh(root @ cov_b.reshape(a.shape[1], a.shape[1]) @ root)
    trace = values.sum() + cov_b.diagonal().sum() - 2 * product.clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + trace)


def kl_divergence(generated: Tensor, truth: Tensor, form: Literal["softmax", "sigmoid"] = "softmax") -> float:
    """Mean over clips of sum p_truth log(p_truth / p_generated) of class logits (clips, classes), without epsilon.

    Raises:
        InputError: when the shapes differ.
    """
    generated, truth = _pair(generated, truth, same_rows=True)
    if form == "softmax":
        log_g, log_t = generated.log_softmax(1), truth.log_softmax(1)
    else:
        log_g, log_t = torch.nn.functional.logsigmoid(generated), torch.nn.functional.logsigmoid(truth)
    return float((log_t.exp() * (log_t - log_g)).sum(1).mean())


def inception_score(logits: Tensor, splits: int = INCEPTION_SPLITS) -> MeanStd:
    """exp of the mean KL to the split's mean over ``splits`` contiguous parts of the permuted rows (arXiv 1606.03498).

    Raises:
        InputError: when there are fewer rows than splits.
    """
    rows = len(logits)
    if logits.ndim != 2 or rows < splits:
        raise InputError(
            f"Logits of shape {tuple(logits.shape)} were given; (clips, classes) with {splits} clips or more are needed."
        )
    order = np.random.RandomState(INCEPTION_SEED).permutation(rows)
    log_p = logits.double()[torch.from_numpy(order)].log_softmax(1)
    scores = []
    for i in range(splits):
        part = log_p[i * rows // splits : (i + 1) * rows // splits]
        mean = part.exp().mean(0, keepdim=True)
        scores.append(float((part.exp() * (part - mean.log())).sum(1).mean().exp()))
    return MeanStd(float(np.mean(scores)), float(np.std(scores)))
