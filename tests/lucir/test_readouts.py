"""Tests read-outs of LUCIR and iCaRL: the head, exemplar means, and thresholds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from lucir_runs import CPU, MakeRun, train

from common.data.datasets import Dataset
from common.heads import CosineHead, LinearHead
from common.incremental import Learner, Phase, learner_of
from common.loader import DeviceImages
from common.memory import open_context
from common.runs import Inputs, Run
from common.training import Stage
from lucir.learner import ICaRLLearner, LUCIRLearner
from lucir.methods import LUCIR, Base, ICaRL, Method


def built(kind: type[Learner], method: Method, run: Run, dataset: Dataset, classes: int = 6) -> Any:
    context = open_context(run, dataset, CPU)
    learner = kind(method, context)
    learner.build(classes)
    return learner


@pytest.mark.parametrize("flip", ["none", "horizontal", "channels"])
def test_exemplar_means_one_image_at_a_time(flip: str, tiny_run: MakeRun, tiny_data: Dataset) -> None:
    method = LUCIR(nme_flip=flip)  # type: ignore[arg-type]
    learner = built(LUCIRLearner, method, tiny_run(method), tiny_data)
    images, memory = learner.context.train, learner.context.memory
    for label in (2, 0, 1):
        memory.indices[label] = (images.labels == label).nonzero().squeeze(1)[: 3 + label]
    means = learner.exemplar_means()
    learner.net.eval()
    for label in range(3):
        sides = []
        for reverse in [lambda x: x] + {"none": [], "horizontal": [lambda x: x[:, ::-1]],
                                        "channels": [lambda x: x[..., ::-1]]}[flip]:  # fmt: skip
            unit = []
            for index in memory.indices[label].tolist():
                pixels = reverse(tiny_data.train_images[index])  # type: ignore[index]
                single = DeviceImages(pixels[None], torch.zeros(1, dtype=torch.long), Inputs(), CPU.torch)
                with torch.no_grad():
                    feature = learner.net.backbone(next(iter(single.plain(torch.tensor([0])))))[0].double().numpy()
                unit.append(feature / np.linalg.norm(feature))
            sides.append(np.mean(unit, axis=0))
        mean = np.mean(sides, axis=0)
        np.testing.assert_allclose(means[label].numpy(), mean / np.linalg.norm(mean), atol=1e-5)


def test_nme_takes_features_as_they_are(tiny_run: MakeRun, tiny_data: Dataset) -> None:
    method = LUCIR(nme_flip="none")
    learner = built(LUCIRLearner, method, tiny_run(method), tiny_data)
    for label in range(6):
        learner.context.memory.indices[label] = learner.context.of_classes(label, label + 1)[:4]
    features = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    predicted = learner.readouts(features, Phase(0, 0, 6))
    means = learner.exemplar_means()
    assert predicted["nme"].tolist() == ((features[:, None] - means[None]) ** 2).sum(2).argmin(1).tolist()
    assert predicted["cnn"].tolist() == (F.normalize(features, dim=1) @ F.normalize(
        learner.net.head.weight, dim=1).T).argmax(1).tolist()  # fmt: skip


def test_icarls_readouts(tiny_run: MakeRun, tiny_data: Dataset) -> None:
    """Threshold moving divides posteriors by class shares. The other read-outs take bias or norms away."""
    method = ICaRL()
    learner = built(ICaRLLearner, method, tiny_run(method), tiny_data)
    head, phase = learner.net.head, Phase(1, 4, 2)
    head.weight.data *= torch.linspace(0.5, 3, 6).unsqueeze(1)
    learner.counts = torch.tensor([3, 3, 3, 3, 12, 12])
    features = 2 * torch.randn(200, 8, generator=torch.Generator().manual_seed(0))
    x, w, b = features.double().numpy(), head.weight.detach().double().numpy(), head.bias.detach().double().numpy()
    norms = np.linalg.norm(w, axis=1)
    logits = x @ w.T + b
    posterior = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    expected = {
        "cnn": logits,
        "tm": posterior / (np.array([3, 3, 3, 3, 12, 12]) / 36),
        "no-bias": x @ w.T,
        "unit-weights": x @ (w / norms[:, None]).T * norms.mean() + b,
        "unit-weights-no-bias": x @ (w / norms[:, None]).T,
    }
    with torch.no_grad():
        predicted = learner.readouts(features, phase)
    assert predicted.keys() == expected.keys()
    assert {k: v.tolist() for k, v in predicted.items()} == {k: v.argmax(1).tolist() for k, v in expected.items()}
    assert len({tuple(v.tolist()) for v in predicted.values()}) == 5


def test_icarls_readouts_agree_where_nothing_is_taken_away(tiny_run: MakeRun, tiny_data: Dataset) -> None:
    learner = built(ICaRLLearner, ICaRL(), tiny_run(ICaRL()), tiny_data)
    learner.net.head.bias.data.zero_()
    learner.net.head.weight.data /= learner.net.head.weight.data.norm(dim=1, keepdim=True)
    features = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    for counts in (None, torch.full((6,), 12)):
        learner.counts = counts
        with torch.no_grad():
            predicted = learner.readouts(features, Phase(0, 0, 6))
        assert len(predicted) == 5
        assert all(torch.equal(p, predicted["cnn"]) for p in predicted.values())


def test_icarls_threshold_moving_in_a_run(tiny_run: MakeRun, tiny_data: Dataset, tmp_path: Path) -> None:
    """The balanced base phase has nothing to move. In other phases, counts are those of the main training."""
    counts = []

    def watch(learner: Any, phase: Phase, stage: Stage) -> None:
        counts.append(learner.counts.tolist())

    learner = train(tiny_run(ICaRL()), tiny_data, tmp_path, watch)
    base = learner.result["phases"][0]["stages"]["main"]
    assert base["tm"] == base["cnn"]
    assert counts == [[12] * 4, [3] * 4 + [12] * 2, [3] * 6 + [12] * 2]


def test_which_head_and_last_relu(tiny_run: MakeRun, tiny_data: Dataset) -> None:
    for method, head, final_relu in (
        (Base("linear"), LinearHead, True), (ICaRL(), LinearHead, True),
        (Base("cosine"), CosineHead, False), (LUCIR(), CosineHead, False),
    ):  # fmt: skip
        net = built(learner_of(method), method, tiny_run(method), tiny_data).net  # type: ignore[index]
        assert type(net.head) is head and net.backbone.final_relu == final_relu
