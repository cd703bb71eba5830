"""Tests headlines and disagreements: paired differences against SciPy, and arms that differ in one thing."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import fakes
import numpy as np
import pytest
from fakes import FAKES, FIGURES, settings
from scipy import stats

from common.command.plan import PAPERS
from common.drawing.effects import NONE_SEEN, RULE, UNDECIDED, reading
from common.drawing.figures import Drawing, Estimate
from common.runs import Run, canonical
from common.store import Result

PAIRS = {
    "lucir": ("LUCIR", "iCaRL"),
    "der": ("DER", "random channels"),
    "feature_adaptation": ("FA (MLP)", "FA (no map)"),
    "bbn": ("BBN", "conventional branch"),
    "class_balanced": ("CB softmax", "Softmax"),
    "fsa": ("FSA", "No Aug"),
}
"""The two arms behind each paper's claim."""
READ_OUT = {"iCaRL": "nme", "conventional branch": "cb", "flips in class means (NME)": "nme"}
CHOICES: dict[str, dict[str, set[str]]] = {
    "lucir": {
        "direction of Eq. 7": {"method.direction"},
        "margin loss over K": {"method.margin_reduction"},
        "imprinting": {"method.imprint"},
        "old embeddings in CBF": {"method.finetune_flag"},
        "flips in class means (NME)": {"method.nme_flip"},
    },
    "der": {
        "classifier's old block": {"method.classifier"},
        "classifiers after the warm-up": {"method.reset"},
        "brightness": {"inputs.brightness"},
        "e of the next extractor": {"method.mask_start"},
    },
    "feature_adaptation": {
        "sigmoid loss over": {"start.method.nodes"},
        "pairs of the hybrid's map": {"method.exemplar_pairs"},
        "norm of features": {"method.norm"},
    },
    "bbn": {
        "learning rate": {"schedule.ahead"},
        "alpha": {"method.offset"},
        "passes through the trunk": {"method.passes"},
    },
    "class_balanced": {
        "reduction": {"method.reduction"},
        "bias of the focal loss": {"method.bias_start"},
        "shortcuts": {"network"},
    },
    "fsa": {
        "tail images of a batch": {"method.tail_draw"},
        "donors' classes": {"method.pool"},
        "thresholds": {"method.tau_specific", "method.tau_generic"},
        "scaling of maps": {"method.scaling"},
    },
}
"""The only settings that differ between the arms of each choice."""


def made_up(paper: str, noise: float) -> Any:
    """Return a function from a Run to a Result.

    Accuracies depend on the seed, and by up to `noise` points on all else.
    """

    def make(run: Run) -> Result:
        result = FAKES[paper](run)
        shift = 3 * np.sin(run.seed) + noise * (zlib.crc32(run.key.encode()) % 1000) / 1000
        for phase in result.phases():
            main = phase["stages"]["main"]
            for place, name in enumerate(list(main)):
                main[name] = main[name] | {"accuracy": 50 + shift + noise * np.cos(run.seed) * place}
        return result

    return make


def groups(paper: str, id: str) -> dict[Any, list[Run]]:
    return dict(FIGURES[paper][id].runs(settings(paper, "quick")))


def drawn(paper: str, id: str, noise: float) -> Drawing:
    return fakes.draw(paper, id, "quick", groups(paper, id), make=made_up(paper, noise))


def accuracies(paper: str, runs: list[Run], noise: float, readout: str) -> np.ndarray:
    """Return the mean over phases of each repeat's accuracy."""
    results = [made_up(paper, noise)(run) for run in runs]
    return np.array([np.mean([p["stages"]["main"][readout]["accuracy"] for p in r.phases()]) for r in results])


def interval(gaps: np.ndarray) -> tuple[float, float]:
    """Return SciPy's 95 % t-interval of a mean."""
    return stats.t.interval(0.95, len(gaps) - 1, loc=gaps.mean(), scale=stats.sem(gaps))


@pytest.mark.parametrize("noise", [1.0, 20.0])
@pytest.mark.parametrize("paper", PAPERS)
def test_the_headline_is_the_paired_difference_of_ten_seeds(paper: str, noise: float) -> None:
    runs, drawing = groups(paper, "headline"), drawn(paper, "headline", noise)
    assert tuple(runs) == PAIRS[paper]
    a, b = (accuracies(paper, group, noise, READ_OUT.get(name, "cnn")) for name, group in runs.items())
    low, high = interval(a - b)
    *arms, row = drawing.comparisons
    assert [r.ours.mean for r in arms if r.ours] == pytest.approx([a.mean(), b.mean()])
    assert row.ours and row.ours.n == 10 and row.quantity.startswith(f"{PAIRS[paper][0]} minus {PAIRS[paper][1]} ")
    assert (row.ours.mean - row.ours.interval, row.ours.mean + row.ours.interval) == pytest.approx((low, high))
    decided = "higher" if low > 0 else "lower" if high < 0 else NONE_SEEN
    assert row.method == (UNDECIDED if (high - low) / 2 > 3 else decided)
    (curve,) = drawing.panels[1].curves
    assert list(curve.y) == pytest.approx([*(a - b), (a - b).mean()]) and row.method in curve.legend
    assert list(curve.x) == [*(str(run.seed) for run in runs[PAIRS[paper][0]]), "mean"] and RULE in drawing.note


@pytest.mark.parametrize("paper", PAPERS)
def test_disagreements_are_paired_differences_of_ten_seeds(paper: str) -> None:
    noise, runs = 8.0, groups(paper, "disagreements")
    rows = {
        row.method.split(": ")[0]: row
        for row in drawn(paper, "disagreements", noise).comparisons
        if " minus " in row.quantity
    }
    assert list(rows) == list(CHOICES[paper])
    for choice, row in rows.items():
        (_, a), (_, b) = [(arm, group) for (of, arm), group in runs.items() if of == choice]
        readout = READ_OUT.get(choice, "cnn")
        low, high = interval(accuracies(paper, a, noise, readout) - accuracies(paper, b, noise, readout))
        assert row.ours and row.ours.n == 10
        assert (row.ours.mean - row.ours.interval, row.ours.mean + row.ours.interval) == pytest.approx((low, high))
        assert row.method == f"{choice}: {reading(row.ours)}"


def leaves(config: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value in a config with the path to it."""
    if not isinstance(config, dict):
        yield place, config
        return
    for name, value in config.items():
        yield from leaves(value, f"{place}.{name}" if place else name)


@pytest.mark.parametrize("preset", ["quick", "cifar"])
@pytest.mark.parametrize("paper", PAPERS)
def test_arms_differ_in_the_choice_alone(paper: str, preset: str) -> None:
    chosen = settings(paper, preset)
    runs = FIGURES[paper]["disagreements"].runs(chosen)
    found: dict[str, set[str]] = {}
    for choice in CHOICES[paper]:
        arms = [group for (of, _), group in runs.items() if of == choice]
        assert len(arms) == 2 and len(arms[0]) == len(arms[1]) == (10 if preset == "quick" else len(chosen[0].repeats))
        for first, second in zip(*arms, strict=True):
            a, b = (dict(leaves(canonical(run))) for run in (first, second))
            found.setdefault(choice, set()).update(k for k in a.keys() | b.keys() if a.get(k) != b.get(k))
    if (paper, preset) == ("feature_adaptation", "cifar"):  # the rate goes with the loss, see presets.highest_rate
        found["sigmoid loss over"] -= {"schedule.lr", "start.schedule.lr"}
    assert found == CHOICES[paper]


def test_readings() -> None:
    """A difference is undecided if it reaches beyond 3 points to either side, or has one repeat.

    Otherwise the interval decides: does it hold 0?
    """
    words = [(9, 3.01, UNDECIDED), (9, 3, "higher"), (-2, 1, "lower"), (1, 1, NONE_SEEN), (-1, 2, NONE_SEEN)]
    assert [reading(Estimate(mean, 1, half, 10)) for mean, half, _ in words] == [word for *_, word in words]
    assert reading(Estimate(5, float("nan"), float("nan"), 1)) == UNDECIDED


@pytest.mark.parametrize("paper", PAPERS)
def test_one_repeat_on_embedded_data_becomes_ten(paper: str) -> None:
    """They have the seed and the nine after it, each with its class order. Repeats that were asked for stay."""
    (first,) = settings(paper, "quick")[0].repeats
    tenfold = settings(paper, "quick")[0].tenfold().repeats
    assert tenfold[0] == first and [seed for _, seed in tenfold] == list(range(first[1], first[1] + 10))
    assert {order for order, _ in tenfold} == ({"native"} if first[0] == "native" else {str(s) for _, s in tenfold})
    for preset, seeds in (("quick", [3, 7]), ("cifar", [5])):
        asked = settings(paper, preset, seeds)[0]
        assert asked.tenfold().repeats == asked.repeats


def test_repeats_that_share_a_start_are_told() -> None:
    """On real images, several seeds of the later stages share one run of stage 1."""
    of = {seeds: FIGURES["feature_adaptation"]["headline"].runs(settings("feature_adaptation", "cifar", list(seeds)))
          for seeds in ((0,), (0, 1))}  # fmt: skip
    notes = [
        fakes.draw("feature_adaptation", "headline", "cifar", runs, list(seeds)).note for seeds, runs in of.items()
    ]
    assert ["share the run" in note for note in notes] == [True, False]
