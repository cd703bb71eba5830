"""What a preset fixes, its protocols with their methods, and how Runs are made of them. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from common.datasets import DataSpec
from common.runs import Inputs, Protocol, Run, Schedule
from der import schedule as recipes
from der.methods import DER, Init
from lucir.methods import LUCIR


@dataclass(frozen=True)
class Setting:
    """One data set with the paper's protocols and schedules on it, and the repeats asked for."""

    preset: str
    data: DataSpec
    classes: int
    network: str
    """Of the protocols without a base (B0)."""
    base_network: str
    """Of the protocols with half of the classes as base (B50)."""
    small_network: str
    """Of the appendix's table with a smaller extractor."""
    schedule: Schedule
    base_schedule: Schedule
    """Of the base classes of B50."""
    finetune: Schedule
    temperature: float
    bias: Schedule
    ucir: LUCIR
    """LUCIR as its own package runs it on these data, but for the schedule, which is DER's."""
    b0: tuple[int, ...]
    """Numbers of steps of the protocols without a base."""
    b50: tuple[int, ...]
    """Numbers of steps after the base."""
    total: int
    """Exemplars in all (B0)."""
    per_class: int
    """Exemplars a class (B50)."""
    sparsity: float
    """lambda_s"""
    sparsities: tuple[float, ...]
    """lambda_s of the accuracy-against-parameters figure."""
    auxiliaries: tuple[float, ...]
    """lambda_a of the sensitivity figure."""
    inputs: Inputs
    mask_rate: float = 1.0
    mask_init: Init = "normal"
    probe: bool = False
    """Whether DER's runs have the read-out of the transfer figure; where not, the figure has runs of its own."""
    repeats: tuple[tuple[str, int], ...] = ()
    """(class order, seed) of each repeat."""

    @property
    def full_schedule(self) -> bool:
        """Whether results can be held against the published ones: real data at the paper's schedule."""
        return self.preset != "quick" and self.schedule in (recipes.CIFAR, recipes.IMAGENET)

    @property
    def steps(self) -> int:
        """The number of steps that most figures are about: 10, or the most a small data set has."""
        return 10 if 10 in self.b0 else max(self.b0)

    def der(self, **changes: Any) -> DER:
        """DER w/o P in this setting, or a variant of it."""
        return replace(DER(finetune=self.finetune, temperature=self.temperature, probe=self.probe), **changes)

    def masked(self, **changes: Any) -> DER:
        """DER with masks and pruning."""
        masks = {"sparsity": self.sparsity, "mask_rate": self.mask_rate, "mask_init": self.mask_init}
        return self.der(**masks | changes)

    def run(self, method: Any, protocol: Protocol, network: str, schedule: Schedule | None = None) -> list[Run]:
        """One Run per repeat."""
        run = Run("der", method, self.data, protocol, schedule or self.schedule, network, inputs=self.inputs)
        return [replace(run, order=order, seed=seed) for order, seed in self.repeats]

    def b0_runs(self, method: Any, steps: int, network: str = "") -> list[Run]:
        """No base: all classes in `steps` equal steps, a fixed memory in all."""
        size = self.classes // steps
        protocol = Protocol(self.classes, size, size, None, self.total, rounding="down")
        return self.run(method, protocol, network or self.network)

    def b50_runs(self, method: Any, steps: int) -> list[Run]:
        """Half of the classes as base, the rest in `steps` steps; DER goes on from a base model of its own schedule."""
        base = self.classes // 2
        protocol = Protocol(self.classes, base, (self.classes - base) // steps, self.per_class)
        runs = self.run(method, protocol, self.base_network)
        if not isinstance(method, DER):
            return runs
        alone = Protocol(base, base, 0, exemplars_per_class=0)
        first = replace(method, finetune=None, aux=DER.aux)  # what the base does not depend on
        starts = self.run(first, alone, self.base_network, self.base_schedule)
        return [replace(run, start=start) for run, start in zip(runs, starts, strict=True)]

    def random_runs(self, steps: int, network: str = "") -> list[Run]:
        """The control: random channels, as many as the Runs with learned masks kept."""
        learned = self.b0_runs(self.masked(), steps, network)
        control = self.b0_runs(self.masked(channels="random"), steps, network)
        return [replace(run, start=start) for run, start in zip(control, learned, strict=True)]
