"""Tests long-tailed class-incremental learning of docs/: exemplars, corrections against plain formulas, the arms."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from long_tailed_incremental import (
    BETA,
    FIGURES,
    PLAIN,
    CorrectedDER,
    CorrectedICaRL,
    CorrectedLUCIR,
    corrections,
    drawing,
    methods,
)
from lucir_runs import train
from torch import Tensor

from common.command import plan
from common.command.export import records_folder
from common.data.datasets import Dataset
from common.drawing.figures import Drawing, Figure, PublishedFigure
from common.errors import InputError
from common.incremental import Phase
from common.runs import LongTail, Protocol, Run, Schedule, canonical
from common.splits import class_order, longtail_counts
from common.store import Result
from common.training import Stage
from lucir.methods import Base
from lucir.reproduce.compare import Study, _script, study
from lucir.reproduce.presets import settings

MakeRun = Callable[..., Run]
ROOT = Path(__file__).parents[2]
SHORT = Schedule(2, lr=0.05, milestones=(1,), batch=8)
SIZES = longtail_counts(8, 12, 6)
"""Sizes of the data set's classes, from 12 to 2 images."""
ORDER = class_order(8)


def run_of(make: MakeRun, method: Any, **changes: Any) -> Run:
    fields = {"protocol": Protocol(8, 4, 4, exemplars_per_class=3), "longtail": LongTail(6.0)}
    return make(method, **(fields | changes))


def test_classes_keep_their_size_wherever_the_order_puts_them(
    tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    """Each class keeps at most three exemplars, or all if it has two images.

    Sizes belong to classes of the data set.
    """
    run = run_of(tiny_run, CorrectedICaRL())
    plan.check(run, tiny_data)
    learner = train(run, tiny_data, tmp_path)
    assert learner.context.counts.tolist() == SIZES[ORDER].tolist() and SIZES.min() == 2
    kept = learner.kept[-1]
    assert [len(kept[label]) for label in range(8)] == np.minimum(SIZES[ORDER], 3).tolist()
    assert all(learner.context.subset[i] for each in kept.values() for i in each)
    last = learner.result["phases"][-1]["stages"]["main"]["cnn"]
    assert last["few"] == pytest.approx(last["accuracy"]) and "many" not in last  # no class has 20 images


def test_other_runs_still_ask_for_no_more_exemplars_than_there_are(tiny_run: MakeRun, tiny_data: Dataset) -> None:
    with pytest.raises(InputError, match="13 exemplars per class"):
        plan.check(run_of(tiny_run, CorrectedICaRL(), longtail=None, protocol=Protocol(8, 4, 4, 13)), tiny_data)
    plan.check(run_of(tiny_run, CorrectedICaRL(), protocol=Protocol(8, 4, 4, 13)), tiny_data)


def weighted(logits: np.ndarray, labels: np.ndarray, counts: np.ndarray, beta: float) -> float:
    """Return cross-entropy with weights 1 / effective number, divided by the sum of the batch's weights."""
    weights = (1 - beta) / (1 - beta**counts)
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    return float((weights[labels] * losses).sum() / weights[labels].sum())


@pytest.mark.parametrize(
    "method",
    [CorrectedICaRL(), CorrectedLUCIR(finetune=None), CorrectedDER(finetune=None)],
    ids=lambda m: type(m).__name__,
)
def test_class_weights_are_in_the_cross_entropy_alone(
    method: Any, tiny_run: MakeRun, der_run: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    """In the second phase, weights change the loss by exactly the difference of the two cross-entropies."""
    make = der_run if isinstance(method, CorrectedDER) else tiny_run
    seen: list[tuple[float, float, np.ndarray, np.ndarray, np.ndarray]] = []

    def watch(learner: Any, phase: Phase, stage: Stage) -> None:
        if phase.index == 0:
            return
        images, labels = next(learner.context.train.epoch(learner.images, 16, torch.Generator().manual_seed(0)))
        learner.net.eval()
        with torch.no_grad():
            loss = learner.loss(images, labels).item()
            learner.config = replace(learner.config, beta=0.0)
            plain, logits = learner.loss(images, labels).item(), learner.net(images)
        counts = learner.context.train.labels[learner.images].bincount().double().numpy()
        seen.append((loss, plain, logits.double().numpy(), labels.numpy(), counts))

    train(run_of(make, replace(method, beta=0.9)), tiny_data, tmp_path, watch)
    ((loss, plain, logits, labels, counts),) = seen
    ordered = SIZES[ORDER]
    assert counts.tolist() == [*np.minimum(ordered[:4], 3), *ordered[4:]]
    usual = weighted(logits, labels, np.ones(8), 0.0)
    assert loss - plain == pytest.approx(weighted(logits, labels, counts, 0.9) - usual, abs=1e-5)
    assert abs(loss - plain) > 1e-4


def test_new_weights_are_scaled_to_the_norm_of_the_old(tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    learner = train(run_of(tiny_run, CorrectedICaRL(align=True)), tiny_data, tmp_path)
    norms = learner.net.head.weight.detach().norm(dim=1)
    assert norms[4:].mean().item() == pytest.approx(norms[:4].mean().item(), rel=1e-5)
    plain = train(run_of(tiny_run, CorrectedICaRL()), tiny_data, tmp_path).net.head.weight.detach()
    aligned = learner.net.head.weight.detach()
    assert torch.equal(plain[:4], aligned[:4])  # one factor for all of the new classes' weights
    factors = aligned[4:] / plain[4:]
    assert factors.std() < 1e-5 and abs(factors.mean().item() - 1) > 1e-4


@pytest.mark.parametrize("method", [CorrectedICaRL(), CorrectedLUCIR(finetune=None)], ids=lambda m: type(m).__name__)
def test_a_classifier_is_trained_anew_on_classes_drawn_alike(
    method: Any, tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path
) -> None:
    drawn: dict[int, Tensor] = {}

    def watch(learner: Any, phase: Phase, stage: Stage) -> None:
        if stage.name == "retrain":
            order = stage.sampler(stage.indices.repeat(50), torch.Generator().manual_seed(0))
            drawn[phase.index] = learner.context.train.labels[order].bincount()
            assert stage.indices.unique().numel() == len(stage.indices)  # no exemplar twice

    learner = train(run_of(tiny_run, replace(method, retrain=SHORT)), tiny_data, tmp_path, watch)
    for index, seen in ((0, 4), (1, 8)):
        before, after = learner.before[index, "retrain"], learner.after[index, "retrain"]
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {"head.weight"} | ({"head.bias"} if "head.bias" in before else set())
        shares = drawn[index] / drawn[index].sum()
        assert len(shares) == seen and shares.numpy() == pytest.approx(1 / seen, abs=0.05)
    old, new = learner.after[1, "main"]["head.weight"], learner.after[1, "retrain"]["head.weight"]
    cosine = torch.cosine_similarity(old.flatten(), new.flatten(), dim=0)
    assert cosine < 0.9  # begun afresh, not trained on


def test_the_arms() -> None:
    """There are twelve methods on one protocol, three of them in both figures. No run starts from another."""
    (s,) = settings("cifar", (1993, 1, 2), ["1993"], 0.05)
    found = {**methods(s), **{("corrected", *key): runs for key, runs in corrections(s).items()}}
    everything = {run.key: run for runs in found.values() for run in runs}
    assert len(everything) == 36 and len(methods(s)) == 9 and len(corrections(s)) == 6
    for run in everything.values():
        assert run.protocol == Protocol(100, 50, 10, exemplars_per_class=20) and run.start is None
        assert run.longtail == LongTail(100.0) and (run.order, run.schedule.epochs) == ("1993", 8)
    for name in (PLAIN, "CB loss", "cRT"):
        assert corrections(s)["iCaRL", name] == methods(s)["iCaRL", name]
    plain = canonical(methods(s)["LUCIR", PLAIN][0].method)
    assert plain["finetune"] is None and methods(s)["DER", "CB loss"][0].method.beta == BETA
    assert not any(r.method.finetune for r in everything.values() if r not in corrections(s)["iCaRL", "CBF"])
    quick = settings("quick", None, None, 1.0)[0]
    assert {len(runs) for runs in methods(quick).values()} == {10}
    assert {run.method.finetune.epochs for run in corrections(quick)["iCaRL", "CBF"]} == {10}


def fake(run: Run, accuracy: float) -> Result:
    """Return a Result with the same accuracy after each phase."""
    stage = {"main": {"cnn": {"accuracy": accuracy, "many": accuracy + 9, "medium": accuracy, "few": accuracy - 9}}}
    phases = [{"classes": 50 + 10 * i, "num_old": 0, "stages": stage} for i in range(6)]
    return Result(run.hash, canonical(run.resolved("f" * 16, "fp32")), {}, {"phases": phases})


@pytest.mark.parametrize("figure", FIGURES, ids=lambda f: f.id)
def test_figures_compare_each_correction_with_none(figure: Figure) -> None:
    (s,) = settings("cifar", (1993, 1, 2), ["1993"], 0.05)
    gain = {name: i for i, name in enumerate(dict.fromkeys(c for _, c in figure.experiment(s)))}
    results = {
        key: [fake(run, 30 + seed + gain[key[1]]) for seed, run in enumerate(runs)]
        for key, runs in figure.experiment(s).items()
    }
    drawn = drawing(s, results, PublishedFigure({}, ""))
    differences = {row.method: row.ours for row in drawn.comparisons if "paired" in row.quantity}
    assert len(differences) == len(results) - len({method for method, _ in results})
    for name, ours in differences.items():
        assert ours and (ours.mean, ours.n) == (pytest.approx(gain[name.split(", ")[1]]), 3)
        assert ours.interval == pytest.approx(0, abs=1e-9)
    (panel,) = drawn.panels
    assert all(len(curve.x) == len(results) for curve in panel.curves) and len(panel.curves) == 4
    few = next(row for row in drawn.comparisons if row.quantity.endswith("few"))
    assert few.ours and few.ours.mean == pytest.approx(31 - 9)


def test_runs_of_ones_own_methods_have_the_scripts_name(tmp_path: Path) -> None:
    words = Study(["mine"], plan.Choice(), figures=FIGURES, script="mine.py")
    use: Any = type("Use", (), {"out": tmp_path, "precision": "fp32"})
    part = words.part("mine", plan.Store(tmp_path), plan.Data(None, tmp_path), use)
    assert {run.paper for run in part.plan.runs().values()} == {"mine"}
    assert len(part.plan.runs()) == 120


def test_records_lie_beside_the_script() -> None:
    assert records_folder("long_tailed_incremental") == ROOT / "docs" / "records"
    assert records_folder("lucir") == ROOT / "lucir" / "records"


def small(s: Any) -> dict[str, list[Run]]:
    return {"a": s.base_runs(Base(), 4)}


def nothing(s: Any, results: Any, published: PublishedFigure) -> Drawing:
    return Drawing([], [], f"{len(results['a'])} runs")


def test_a_study_without_a_figure_of_the_preset_says_so(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        study([Figure("one", "One", small, nothing, ("quick",))], ["--preset", "cifar", "--list"])
    assert ended.value.code == 2 and "one needs --preset quick" in capsys.readouterr().err


def test_the_script_of_a_figure_is_found_behind_partials() -> None:
    assert _script([partial(partial(small), 1)]) == Path(__file__).name


def test_a_study_trains_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    words = ["--epochs-scale", "0.1", "--jobs", "1", "--device", "cpu", "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as ended:
        study([Figure("one", "One", small, nothing), Figure("two", "Two", small, nothing)], [*words, "--only", "two"])
    assert ended.value.code == 0
    assert "1 of 1 figures" in capsys.readouterr().out
    folder = tmp_path / "quick-x0.1" / "test_long_tailed_incremental"
    assert (folder / "two.png").exists() and not (folder / "one.png").exists()


def test_the_page_says_numbers_that_the_records_have(tmp_path: Path) -> None:
    """Differences are printed with the sign that the sentence gives them, so only their size is compared."""
    script = ROOT / "docs" / "long_tailed_incremental.py"
    subprocess.run([sys.executable, script, "--draw", "--out", tmp_path], check=True, capture_output=True)
    known = set[str]()
    for path in (tmp_path / "quick" / "long_tailed_incremental").glob("*.json"):
        for row in json.loads(path.read_text(encoding="utf-8"))["comparisons"]:
            known |= {f"{abs(row['ours'][name]):.2f}" for name in ("mean", "interval")}
    text = (ROOT / "docs" / "long_tailed_incremental.md").read_text(encoding="utf-8")
    findings = text[text.index("- Retraining") : text.index("The records are in")].replace("0.99, is not tuned", "")
    found = re.findall(r"\d+\.\d\d", findings)
    assert len(found) > 15 and [number for number in found if number not in known] == []
