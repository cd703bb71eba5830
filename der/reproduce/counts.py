"""Numbers figures take from a Result: parameters averaged over steps, shares kept, transfer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.store import Result

ONE_NETWORK = {"resnet18": (11_168_832, 512), "resnet32": (466_256, 64), "resnet8-half": (77_392, 64)}
"""(parameters, features) of a single extractor, for methods whose Results do not count them."""


def parameters(result: Result) -> list[int]:
    """Of the whole network after every step: extractors so far, and a classifier of the classes seen without biases."""
    summary = result.values["summary"]
    sizes, widths = np.cumsum(summary["parameters"]), np.cumsum(summary["features"])
    classes = [p["classes"] for p in result.phases()]
    if len(sizes) == 1:  # one network, trained on
        sizes, widths = (np.repeat(v, len(classes)) for v in (sizes, widths))
    return [int(s + w * c) for s, w, c in zip(sizes, widths, classes, strict=True)]


def mean_parameters(result: Result) -> float:
    """#Paras of the paper: averaged over steps, the first included."""
    if "parameters" in result.values["summary"]:
        return float(np.mean(parameters(result)))
    extractor, features = ONE_NETWORK[result.config["network"]]
    return extractor + features * float(np.mean([p["classes"] for p in result.phases()]))


def shares(result: Result, key: str) -> list[float]:
    """Percent of the unpruned extractor that each step's kept: of `parameters`, `flops`, or of weights `initial`ly."""
    summary = result.values["summary"]
    if key == "initial":
        return [100 * share for share in summary["initial_share"]] or [100.0]
    return [100 * kept / summary[f"full_{key}"] for kept in summary[key]]


def mean_share(result: Result, key: str) -> float:
    """The mean of `shares` over steps."""
    return float(np.mean(shares(result, key)))


def backward_transfer(matrix: Sequence[Sequence[float]]) -> float:
    """BWT = 1/(T-1) sum over i = 2..T of the mean over j <= i of (A_j^i - A_j^j), points.

    Row i holds the accuracy on the classes of steps 1..i after step i, predicting among all classes seen.
    """
    steps = range(1, len(matrix))
    return float(np.mean([np.mean([matrix[i][j] - matrix[j][j] for j in range(i + 1)]) for i in steps]))


def forward_transfer(matrix: Sequence[Sequence[float]], reference: Sequence[Sequence[float]]) -> float:
    """FWT = 1/(T-1) sum over i = 2..T of (A_i^i - R_i^i), points; R is of extractors that start from random weights."""
    return float(np.mean([matrix[i][i] - reference[i][i] for i in range(1, len(matrix))]))
