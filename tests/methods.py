"""Lists every method of the six packages and of docs/ as a Run on tiny data. Every promise is tested over this list.

A new method gets all promises by one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dark_experience import DarkExperience
from long_tailed_incremental import CorrectedDER, CorrectedICaRL, CorrectedLUCIR
from own_method import BalancedReplay

from bbn.methods import BBN, Ensemble, Mixup, Probe, UnitFeatures
from class_balanced.methods import ClassBalanced
from common.imbalance import Rebalance, Retrain
from common.runs import LongTail, Protocol, Run, Schedule
from der.methods import DER, WA, BiC
from feature_adaptation.methods import Adaptation, Extractor, Oracle, Recipe
from fsa.methods import FSA, EarlierBlock, Survey, Views
from lucir.methods import LUCIR, Base, ICaRL

Get = Callable[[str], Callable[..., Run]]
"""Takes the name of a fixture, and returns a function that makes Runs."""
SHORT = Schedule(2, lr=0.05, milestones=(1,), batch=16, weight_decay=0.01)
TWO_STEPS = Protocol(4, 2, 2, exemplars_per_class=3)
MLP = Adaptation()
KEEPS = Extractor(features=0.1, keep="truth")
MASKED = DER(finetune=SHORT, sparsity=0.5, mask_rate=20.0)
TWO_DONORS = FSA(tail=2, donors=3)


def incremental(get: Get, method: object, **changes: Any) -> Run:
    return replace(get("tiny_run")(method, protocol=TWO_STEPS, schedule=SHORT), **changes)


def started(get: Get, method: object) -> Run:
    base = incremental(get, Base("cosine"), protocol=Protocol(4, 4, 0, exemplars_per_class=0))
    return incremental(get, method, protocol=Protocol(8, 4, 2, exemplars_per_class=3), start=base)


def tailed(get: Get, method: object, maker: str = "tiny_run") -> Run:
    """Return a long-tailed, incremental Run. Its smallest classes have fewer images than other classes keep."""
    return replace(get(maker)(method, schedule=SHORT), protocol=Protocol(8, 4, 4, 3), longtail=LongTail(6))


def der(get: Get, method: object) -> Run:
    return get("der_run")(method, protocol=replace(TWO_STEPS, exemplars_per_class=4), schedule=SHORT)


def random_channels(get: Get) -> Run:
    learned = der(get, MASKED)
    return replace(learned, method=replace(MASKED, channels="random"), start=learned)


def stage1(get: Get, method: Extractor, images: int = 0) -> Run:
    protocol = replace(TWO_STEPS, exemplars_per_class=images)
    return incremental(get, method, protocol=protocol, paper="feature_adaptation", network="tiny-maps")


def feature_adaptation(get: Get, method: Adaptation = MLP, images: int = 0) -> Run:
    first = stage1(get, KEEPS, images)
    adapter, classifier = Recipe(4, 1e-3, "adam", batch=8), Recipe(4, 0.05, "sgd", batch=8)
    method = replace(method, features_per_class=4, adapter=adapter, classifier=classifier)
    return replace(first, method=method, start=first)


def bbn(get: Get, method: object, **changes: Any) -> Run:
    return get("bbn_run")(method, schedule=replace(SHORT, batch=8), **changes)


def after_bbn(get: Get, method: object) -> Run:
    return bbn(get, method, start=bbn(get, BBN()))


def tail(get: Get, method: object, **changes: Any) -> Run:
    """Return a long-tailed Run that is tested after every epoch. This must not disturb a resume or a captured step."""
    return get("tail_run")(method, schedule=replace(SHORT, batch=8), test_every=1, **changes)


def phase1(get: Get) -> Run:
    start = get("tail_run")(Rebalance(), schedule=Schedule(1, lr=0.05, batch=8))
    return replace(start, paper="fsa", network="tiny-maps")


def untrained(get: Get, method: object) -> Run:
    """Return a Run that only looks at Phase I."""
    return replace(phase1(get), method=method, start=phase1(get), schedule=Schedule(0))


def fsa(get: Get, method: FSA | EarlierBlock = TWO_DONORS, cached: bool = False) -> Run:
    start = untrained(get, Views(2)) if cached else phase1(get)
    schedule = Schedule(2, lr=0.05, batch=getattr(method, "fsa", method).images, weight_decay=0.0)
    return replace(start, method=method, start=start, schedule=schedule)


def earlier(get: Get) -> Run:
    run = fsa(get, EarlierBlock(1, TWO_DONORS))
    start = replace(phase1(get), network="resnet8-half")  # a network with blocks
    return replace(run, network=start.network, start=start)


CASES: dict[str, Callable[[Get], Run]] = {
    "LUCIR": lambda get: incremental(get, LUCIR(finetune=SHORT)),
    "iCaRL": lambda get: incremental(get, ICaRL()),
    "DER": lambda get: der(get, MASKED),
    "BiC": lambda get: der(get, BiC(bias=SHORT)),
    "feature adaptation": feature_adaptation,
    "BBN": lambda get: bbn(get, BBN()),
    "manifold mixup": lambda get: bbn(get, Mixup("features")),
    "LDAM-DRW": lambda get: tail(get, Rebalance("ldam", beta=0.99, defer=1)),
    "FSA on images": lambda get: fsa(get),
    "FSA on cached views": lambda get: fsa(get, cached=True),
}
"""One Run for every learner that has a step of its own. The tests on devices use these."""

VARIANTS: dict[str, Callable[[Get], Run]] = {
    # lucir
    "base model": lambda get: incremental(get, Base()),
    "LUCIR, everything finetuned": lambda get: incremental(get, LUCIR(finetune=SHORT, finetune_flag=3)),
    "LUCIR, a memory in total": lambda get: incremental(
        get, LUCIR(finetune=SHORT), protocol=Protocol(4, 2, 2, None, 12)
    ),
    "LUCIR from a base model": lambda get: started(get, LUCIR(finetune=SHORT)),
    "CN, a fixed scale": lambda get: incremental(get, LUCIR(old="cosine", margin=None, finetune=None, scale=4.0)),
    "iCaRL, finetuned": lambda get: incremental(get, ICaRL(finetune=SHORT)),
    # docs
    "balanced replay": lambda get: incremental(get, BalancedReplay()),
    "DER++": lambda get: incremental(get, DarkExperience(), protocol=Protocol(6, 2, 2, None, 12)),
    "long-tailed iCaRL": lambda get: tailed(get, CorrectedICaRL(align=True, retrain=SHORT)),
    "long-tailed LUCIR": lambda get: tailed(get, CorrectedLUCIR(beta=0.9, finetune=None, retrain=SHORT)),
    "long-tailed DER": lambda get: tailed(get, CorrectedDER(beta=0.9, finetune=None), "der_run"),
    # der
    "DER without masks": lambda get: der(get, DER(finetune=SHORT)),
    "DER, a single network": lambda get: der(get, DER(finetune=SHORT, expand=False)),
    "DER, random channels": random_channels,
    "DER, inherited masks": lambda get: der(get, replace(MASKED, mask_start="inherit")),
    "DER, inner channels": lambda get: der(get, replace(MASKED, mask_groups="inner", zero_last=False)),
    "WA": lambda get: der(get, WA()),
    # feature_adaptation
    "extractor": lambda get: stage1(get, KEEPS),
    "extractor with images": lambda get: stage1(get, Extractor(loss="softmax", per_task=True, finetune=SHORT), 2),
    "frozen extractor": lambda get: stage1(get, Extractor(frozen=True)),
    "feature adaptation, hybrid": lambda get: feature_adaptation(get, Adaptation(exemplar_pairs=True), 2),
    "oracle": lambda get: feature_adaptation(get, Oracle()),
    # bbn
    "BBN, beta and one pass": lambda get: bbn(
        get, BBN(adaptor="beta", passes="concatenated", sampler="balanced"), test_every=1
    ),
    "probe": lambda get: after_bbn(get, Probe("rb")),
    "mixup": lambda get: bbn(get, Mixup()),
    "mixup, two samplers": lambda get: bbn(get, Mixup(partners="reversed")),
    "manifold mixup, two samplers": lambda get: bbn(get, Mixup("features", partners="reversed")),
    "ensemble": lambda get: bbn(get, Ensemble(), test_every=1),
    "unit features": lambda get: bbn(get, UnitFeatures(Rebalance(sampler="balanced"))),
    # class_balanced
    "CB softmax": lambda get: tail(get, ClassBalanced(beta=0.99)),
    "CB softmax, weighted mean": lambda get: tail(get, ClassBalanced(beta=0.99, reduction="weighted_mean")),
    "CB sigmoid": lambda get: tail(get, ClassBalanced("sigmoid", 0.99)),
    "CB focal": lambda get: tail(get, ClassBalanced("focal", 0.99, 0.5)),
    "softmax focal": lambda get: tail(get, Rebalance("focal")),
    "CE-DRW": lambda get: tail(get, Rebalance(beta=0.99, defer=1)),
    "CE-DRS": lambda get: tail(get, Rebalance(sampler="balanced", defer=1)),
    "cRT": lambda get: tail(get, Retrain(), start=tail(get, Rebalance())),
    "cRT, BatchNorm in train mode": lambda get: tail(get, Retrain(norms="train"), start=tail(get, Rebalance())),
    "LDAM from LDAM's start": lambda get: tail(get, Rebalance("ldam", head_start="ldam")),
    # fsa
    "FSA, mixup": lambda get: fsa(get, replace(TWO_DONORS, fusion="mixup")),
    "FSA, fixed ratio": lambda get: fsa(get, replace(TWO_DONORS, ratio=0.5, donor_classes="random"), cached=True),
    "FSA, other maps": lambda get: fsa(get, replace(TWO_DONORS, scaling="relu-max", cam_weights="current")),
    "FSA, no donors": lambda get: fsa(get, FSA(tail=8, donors=0), cached=True),
    "FSA, natural batches": lambda get: fsa(get, FSA(batch="natural", tail=2)),
    "FSA, an earlier block": earlier,
    "views": lambda get: untrained(get, Views(2)),
    "survey": lambda get: untrained(get, Survey((0, 1, 7), points=4, pictures=3, fsa=TWO_DONORS)),
}
"""Options and further methods that take another way through a learner."""
EVERY = CASES | VARIANTS
