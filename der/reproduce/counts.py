"""Compute the numbers that figures take from a Result: mean parameters, shares kept by pruning, and transfer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.store import Result

ONE_NETWORK = {"resnet18": (11_168_832, 512), "resnet32": (466_256, 64), "resnet8-half": (77_392, 64)}
"""(parameters, features) of one extractor, for methods whose Results do not count them."""


def parameters(result: Result) -> list[int]:
    """Return the parameters of the whole network after every step.

    These are the parameters of all extractors so far, and of a classifier without biases for the classes seen.
    """
    summary = result.values["summary"]
    sizes, widths = np.cumsum(summary["parameters"]), np.cumsum(summary["features"])
    classes = [p["classes"] for p in result.phases()]
    if len(sizes) == 1:  # one network, which every step trains on
        sizes, widths = (np.repeat(v, len(classes)) for v in (sizes, widths))
    return [int(s + w * c) for s, w, c in zip(sizes, widths, classes, strict=True)]


def mean_parameters(result: Result) -> float:
    """Return the paper's #Paras: parameters averaged over steps, the first step included."""
    if "parameters" in result.values["summary"]:
        return float(np.mean(parameters(result)))
    extractor, features = ONE_NETWORK[result.config["network"]]
    return extractor + features * float(np.mean([p["classes"] for p in result.phases()]))


def shares(result: Result, key: str) -> list[float]:
    """Return, for each step, the percentage of an unpruned extractor that its extractor kept.

    key: "parameters" or "flops". "initial" is the percentage of weights that masks kept before they were trained.
    """
    summary = result.values["summary"]
    if key == "initial":
        return [100 * share for share in summary["initial_share"]] or [100.0]
    return [100 * kept / summary[f"full_{key}"] for kept in summary[key]]


def mean_share(result: Result, key: str) -> float:
    """Return the mean of `shares` over steps."""
    return float(np.mean(shares(result, key)))


def backward_transfer(matrix: Sequence[Sequence[float]]) -> float:
    """Return BWT = 1/(T-1) sum over i = 2..T of the mean over j <= i of (A_j^i - A_j^j), in points.

    Row i of `matrix` holds the accuracy on the classes of each step 1..i after step i, predicted among all classes
    seen.
    """
    steps = range(1, len(matrix))
    return float(np.mean([np.mean([matrix[i][j] - matrix[j][j] for j in range(i + 1)]) for i in steps]))


def forward_transfer(matrix: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> float:
    """Return FWT = 1/(T-1) sum over i = 2..T of (A_i^i - R_i^i), in points.

    reference: R, the matrix of extractors that start from random weights.
    """
    return float(np.mean([matrix[i][i] - reference[i][i] for i in range(1, len(matrix))]))
