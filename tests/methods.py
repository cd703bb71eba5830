"""Every method of the six packages as a Run on tiny data: what every method promises is tested over this list."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bbn.methods import BBN, Mixup
from common.imbalance import Rebalance
from common.runs import Protocol, Run, Schedule
from der.methods import DER, BiC
from feature_adaptation.methods import Adaptation, Extractor, Recipe
from fsa.methods import FSA, Views
from lucir.methods import LUCIR, ICaRL

Get = Callable[[str], Callable[..., Run]]
"""The name of a fixture -> what makes Runs."""
SHORT = Schedule(2, lr=0.05, milestones=(1,), batch=16, weight_decay=0.01)
TWO_STEPS = Protocol(4, 2, 2, exemplars_per_class=3)


def incremental(get: Get, method: object, paper: str = "lucir", network: str = "tiny") -> Run:
    return replace(get("tiny_run")(method, protocol=TWO_STEPS, schedule=SHORT), paper=paper, network=network)


def der(get: Get, method: object) -> Run:
    return get("der_run")(method, protocol=replace(TWO_STEPS, exemplars_per_class=4), schedule=SHORT)


def feature_adaptation(get: Get) -> Run:
    first = incremental(get, Extractor(features=0.1, keep="truth"), "feature_adaptation", "tiny-maps")
    first = replace(first, protocol=replace(TWO_STEPS, exemplars_per_class=0))
    adapter, classifier = Recipe(4, 1e-3, "adam", batch=8), Recipe(4, 0.05, "sgd", batch=8)
    return replace(first, method=Adaptation(features_per_class=4, adapter=adapter, classifier=classifier), start=first)


def fsa(get: Get, cached: bool) -> Run:
    method, plain = FSA(tail=2, donors=3), Schedule(1, lr=0.05, batch=8)
    start = replace(get("tail_run")(Rebalance(), schedule=plain), paper="fsa", network="tiny-maps")
    if cached:
        start = replace(start, method=Views(2), start=start, schedule=Schedule(0))
    return replace(start, method=method, start=start, schedule=replace(plain, batch=method.images, weight_decay=0.0))


CASES: dict[str, Callable[[Get], Run]] = {
    "LUCIR": lambda get: incremental(get, LUCIR(finetune=SHORT)),
    "iCaRL": lambda get: incremental(get, ICaRL()),
    "DER": lambda get: der(get, DER(finetune=SHORT, sparsity=0.5, mask_rate=20.0)),
    "BiC": lambda get: der(get, BiC(bias=SHORT)),
    "feature adaptation": feature_adaptation,
    "BBN": lambda get: get("bbn_run")(BBN(), schedule=replace(SHORT, batch=8)),
    "manifold mixup": lambda get: get("bbn_run")(Mixup("features"), schedule=replace(SHORT, batch=8)),
    "LDAM-DRW": lambda get: get("tail_run")(Rebalance("ldam", beta=0.99, defer=1), schedule=replace(SHORT, batch=8)),
    "FSA on images": lambda get: fsa(get, cached=False),
    "FSA on cached views": lambda get: fsa(get, cached=True),
}
