"""Finds lambda_s of every DER protocol: the weight with which Eq. 10 alone keeps the parameters that the paper prints.

    python -m benchmarks.lambda_s            # compares the lambda_s of the presets with the paper's parameters
    python -m benchmarks.lambda_s --find     # searches for lambda_s anew; takes some minutes

This needs no images and no training (see der/drift.py). The paper prints no parameters of a ResNet-32, so the share
that it prints for the ResNet-18 is used there.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from common.drawing.figures import Published, PublishedFigure
from common.runs import Run
from der import drift
from der.methods import MASKED, UNPRUNED
from der.reproduce.presets import Setting, settings

IMAGES = {"cifar100": 500, "imagenet-100": 1300, "imagenet": 1300}
"""Training images per class, on ImageNet about 1300."""
TABLES = {
    ("cifar100", False): "table1",
    ("cifar100", True): "table2",
    ("imagenet-100", False): "table3-imagenet100",
    ("imagenet-100", True): "imagenet100-b50",
    ("imagenet", False): "table3-imagenet1000",
}
"""The paper's table of parameters, by data set and by whether half of the classes form a base phase."""


@dataclass(frozen=True)
class Protocol:
    """Holds a Run of the masked method under one protocol, and the share of parameters that the paper prints."""

    name: str
    run: Run
    per_class: int
    share: float
    """Published parameters as a percentage of those without pruning, both averaged over steps."""

    def with_lambda(self, weight: float) -> Run:
        """Return the Run with another lambda_s."""
        return replace(self.run, method=replace(self.run.method, sparsity=weight))

    def kept(self, weight: float) -> float:
        """Return the percentage of parameters, like `share`, that Eq. 10 alone would keep with this lambda_s."""
        run = self.with_lambda(weight)
        net = drift.NetworkSizes.named(run.network)
        whole = net.parameters(net.channels) * (len(run.protocol.sizes) + 1) / 2
        return 1e8 * drift.mean_millions(run, self.per_class) / whole


def protocols() -> Iterator[Protocol]:
    """Yield every protocol of Tables 1 to 3 and, with the small network, that of the appendix."""
    published = Published.load(Path(drift.__file__).with_name("published.json")).figure("")
    for s in (*settings("cifar", None, None, 1.0), *settings("imagenet", None, None, 1.0)):
        for base, counts in ((False, s.b0), (True, s.b50)):
            for steps in counts:
                yield Protocol(*_about(s, steps, base), IMAGES[s.role], _share(s, steps, base, published))
    s = settings("cifar", None, None, 1.0)[0]
    run = s.b0_runs(s.masked(network=s.small_network), s.steps, s.small_network)[0]
    yield Protocol(f"cifar100 {run.network}, {s.steps} steps", run, 500, _share(s, s.steps, False, published))


def _about(s: Setting, steps: int, base: bool) -> tuple[str, Run]:
    method = s.masked(steps, base)
    run = (s.b50_runs if base else s.b0_runs)(method, steps)[0]
    return f"{s.role} {run.network}, {steps} steps{' after a base' if base else ''}", run


def _share(s: Setting, steps: int, base: bool, published: PublishedFigure) -> float:
    table = TABLES[s.role, base]
    x: int | str = steps if s.role == "cifar100" else "mean over steps"
    pruned, whole = (published.figure(f"{table}-params").value(name, x)[0] for name in (MASKED, UNPRUNED))
    assert pruned and whole
    return 100 * pruned / whole


def find(protocol: Protocol) -> float:
    """Return lambda_s to two digits, by bisection of its logarithm: the kept share falls as lambda_s grows."""
    low, high = 0.001, 20.0
    for _ in range(13):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if protocol.kept(middle) > protocol.share else (low, middle)
    return float(f"{math.sqrt(low * high):.2g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--find", action="store_true", help="search for lambda_s (else: that of the presets)")
    search = parser.parse_args().find
    print("| protocol | lambda_s | share predicted (%) | share published (%) |\n|---|---|---|---|")
    for protocol in protocols():
        weight = find(protocol) if search else protocol.run.method.sparsity
        print(f"| {protocol.name} | {weight:g} | {protocol.kept(weight):.1f} | {protocol.share:.1f} |", flush=True)


if __name__ == "__main__":
    main()
